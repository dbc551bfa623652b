"""Summary of a data set: its content, and warnings about implausible numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ase.data import chemical_symbols
from rich.console import Group
from torch import Tensor

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.label_statistics import LabelStatistics
from pyg_schnet.datasets.references import formula
from pyg_schnet.datasets.report.bond_lengths import Bonding, measure_bonding
from pyg_schnet.datasets.report.distances import Distances, measure_distances
from pyg_schnet.datasets.report.duplicates import Duplicates, find_duplicates
from pyg_schnet.datasets.report.force_energy import ForceEnergyConsistency, compare_forces_with_energies
from pyg_schnet.datasets.report.outliers import Outliers, find_energy_outliers, find_force_outliers
from pyg_schnet.datasets.report.rendering import render_summary
from pyg_schnet.datasets.report.sanity import sanity_warnings
from pyg_schnet.datasets.report.structure_statistics import StructureStatistics, compute_statistics
from pyg_schnet.datasets.report.unit_evidence import Evidence, ratio_to_free_atoms
from pyg_schnet.io.units import Units, kcal_per_mol

_COMPOSITIONS_SHOWN = 5


@dataclass(frozen=True)
class Energies:
    """Energies of structures, in eV.

    Attributes:
        min: Lowest energy.
        mean: Mean energy.
        max: Highest energy.
        std: Standard deviation; 0 for one structure.
        spread_per_atom: RMS of the energies relative to fitted atomic references, in eV per atom.
        ratio_to_free_atoms: Median ratio of the energies to those of the free atoms with all electrons: near
            1 for total energies of an all-electron method; ``None`` if an element is beyond krypton.
    """

    min: float
    mean: float
    max: float
    std: float
    spread_per_atom: float
    ratio_to_free_atoms: float | None


@dataclass(frozen=True)
class Forces:
    """Forces in eV/Å.

    Attributes:
        rms: Root mean square of the components.
        largest: Magnitude of the largest component.
        largest_in: Index of its structure.
        net_rms: RMS of the components of a structure's net force.
        net_share: RMS of the net force divided by the number of atoms, relative to ``rms``; no model whose
            energy is invariant under translation can fit this part.
    """

    rms: float
    largest: float
    largest_in: int
    net_rms: float
    net_share: float


@dataclass(frozen=True)
class Stress:
    """Stress in eV/Å³.

    Attributes:
        rms: Root mean square of the nine components.
        largest: Magnitude of the largest component.
    """

    rms: float
    largest: float


@dataclass(frozen=True)
class Summary:
    """Content of a data set; ``rich`` prints it. Indices of structures count from 0 in the whole set.

    Attributes:
        structures: Number of structures.
        periodic: Number of structures that are periodic in any direction.
        atoms: Smallest, mean and largest number of atoms of a structure.
        elements: Symbols of the elements, by atomic number.
        unknown_elements: Atomic numbers outside 1 to 99, which no model accepts.
        compositions: Number of compositions.
        frequent: Most frequent compositions, with their number of structures.
        energy: Energies, if there are any.
        read_as: Unit in which the energies of a file were read; ``None`` for published sets.
        forces: Forces, if there are any.
        stress: Stress, if there is any.
        distances: Interatomic distances.
        copies: Structures that occur more than once.
        work: Consistency of forces and energies; ``None`` if it cannot be determined.
        energy_outliers: Structures with energies far from all others, if there are any.
        force_outliers: Structures with force components far beyond all others, if there are any.
        charged: Number of structures with a charge, which is ignored.
        bonding: Distances of nearest neighbors and stiffness of bonds, which depend on the units.
        properties: Statistics of other labels, by name.
        available: Further values that could be properties, by name: ``"structure"`` or ``"atom"``.
        unit_doubt: Why the units of a file cannot be those in which it was read, with likely ones.
        warnings: Warnings, a sentence each, including ``unit_doubt``.
    """

    structures: int
    periodic: int
    atoms: tuple[int, float, int]
    elements: tuple[str, ...]
    unknown_elements: tuple[int, ...]
    compositions: int
    frequent: tuple[tuple[str, int], ...]
    energy: Energies | None
    read_as: str | None
    forces: Forces | None
    stress: Stress | None
    distances: Distances
    copies: Duplicates
    work: ForceEnergyConsistency | None
    bonding: Bonding
    energy_outliers: Outliers | None = None
    force_outliers: Outliers | None = None
    charged: int = 0
    properties: dict[str, LabelStatistics] = field(default_factory=dict)
    available: dict[str, str] = field(default_factory=dict)
    unit_doubt: str | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all values for JSON; energies and forces also in kcal/mol, with the suffix ``_kcal``."""
        table = asdict(self)
        for name, label in self.properties.items():
            known = {key: x for key, x in asdict(label).items() if x == x}  # JSON has no NaN
            table["properties"][name] = known
        for name in ("min", "mean", "max", "std", "spread_per_atom") if self.energy else ():
            table["energy"][f"{name}_kcal"] = table["energy"][name] / kcal_per_mol
        for name in ("rms", "largest", "net_rms") if self.forces else ():
            table["forces"][f"{name}_kcal"] = table["forces"][name] / kcal_per_mol
        if self.distances.solitary == math.inf:
            table["distances"]["solitary"] = None  # JSON has no infinity
        return table

    def __rich__(self) -> Group:
        return render_summary(self)


def summarize(dataset: MoleculeDataset, properties: Sequence[str] = ()) -> Summary:
    """Compute the summary of a data set, in bounded memory and some seconds for 500,000 structures.

    Args:
        dataset: Data set with at least one structure; its ``transform`` is not applied.
        properties: Names of labels besides the energies to count.

    Raises:
        ValueError: If the data set is empty, or has no such label.
    """
    statistics = compute_statistics(dataset)
    elements = statistics.elements()
    units = getattr(dataset, "units", None)
    summary = Summary(
        structures=len(statistics),
        periodic=int(statistics.periodic.sum()),
        atoms=(
            int(statistics.atoms.min()),
            float(statistics.atoms.double().mean()),
            int(statistics.atoms.max()),
        ),
        elements=tuple(chemical_symbols[z] for z in elements if 1 <= z <= 99),
        unknown_elements=tuple(z for z in elements if not 1 <= z <= 99),
        compositions=len(statistics.counts),
        frequent=_frequent(statistics),
        energy=_energies(statistics),
        read_as=None if units is None or statistics.energy is None else units.energy,
        forces=_forces(statistics),
        stress=_stress(statistics),
        distances=measure_distances(dataset, statistics.periodic),
        copies=find_duplicates(dataset, statistics.fingerprint),
        work=compare_forces_with_energies(dataset, statistics),
        bonding=measure_bonding(dataset, statistics.periodic),
        energy_outliers=find_energy_outliers(statistics),
        force_outliers=find_force_outliers(statistics),
        charged=getattr(dataset, "charged", 0),
        properties={name: dataset.statistics(name) for name in properties},
        available=_available(dataset, properties),
    )
    atoms = None if summary.energy is None else summary.energy.ratio_to_free_atoms
    evidence = Evidence(units or Units("eV"), atoms, summary.bonding, summary.work)
    summary = _with_whole_indices(replace(summary, unit_doubt=evidence.warning()), dataset.indices())
    return replace(summary, warnings=tuple(sanity_warnings(summary)))


def _with_whole_indices(summary: Summary, numbers: Sequence[int]) -> Summary:
    """Convert indices in a part of a data set to indices in the whole set."""
    forces, distances, copies = summary.forces, summary.distances, summary.copies
    if forces is not None:
        forces = replace(forces, largest_in=int(numbers[forces.largest_in]))
    places = {"shortest_in": distances.shortest_in, "solitary_in": distances.solitary_in}
    measured = {name: int(numbers[place]) for name, place in places.items() if place is not None}
    if copies.example is not None:
        copies = replace(copies, example=(int(numbers[copies.example[0]]), int(numbers[copies.example[1]])))
    far = {
        name: replace(found, worst=int(numbers[found.worst]))
        for name in ("energy_outliers", "force_outliers")
        if (found := getattr(summary, name)) is not None
    }
    return replace(summary, forces=forces, distances=replace(distances, **measured), copies=copies, **far)


def _frequent(statistics: StructureStatistics) -> tuple[tuple[str, int], ...]:
    frequencies, order = statistics.frequencies().sort(descending=True, stable=True)
    shown = zip(order[:_COMPOSITIONS_SHOWN].tolist(), frequencies.tolist(), strict=False)
    return tuple((formula(statistics.counts[row, :119]), count) for row, count in shown)


def _available(dataset: MoleculeDataset, properties: Sequence[str]) -> dict[str, str]:
    """Return what else could be a label: fields of the data set, and values of the file that are not read."""
    fields = {name: "atom" if dataset.is_atomic(name) else "structure" for name in dataset.properties}
    found = fields | getattr(dataset, "available", {})
    return {name: kind for name, kind in found.items() if name not in properties}


def _energies(statistics: StructureStatistics) -> Energies | None:
    energy = statistics.energy
    if energy is None:
        return None
    return Energies(
        min=float(energy.min()),
        mean=float(energy.mean()),
        max=float(energy.max()),
        std=float(energy.std()) if len(energy) > 1 else 0.0,
        spread_per_atom=_root_mean(statistics.relative_energy().square()),
        ratio_to_free_atoms=ratio_to_free_atoms(statistics.counts, statistics.composition, energy),
    )


def _forces(statistics: StructureStatistics) -> Forces | None:
    if (
        statistics.forces_squares is None
        or statistics.forces_largest is None
        or statistics.net_force_squares is None
    ):
        return None
    largest, number = statistics.forces_largest.max(0)
    return Forces(
        rms=math.sqrt(float(statistics.forces_squares.sum()) / (3 * int(statistics.atoms.sum()))),
        largest=float(largest),
        largest_in=int(number),
        net_rms=_root_mean(statistics.net_force_squares / 3),
        net_share=_ratio(
            (statistics.net_force_squares / statistics.atoms).sum(), statistics.forces_squares.sum()
        ),
    )


def _ratio(squares: Tensor, others: Tensor) -> float:
    return math.sqrt(float(squares) / float(others)) if float(others) > 0 else 0.0


def _stress(statistics: StructureStatistics) -> Stress | None:
    if statistics.stress_squares is None or statistics.stress_largest is None:
        return None
    return Stress(_root_mean(statistics.stress_squares / 9), float(statistics.stress_largest.max()))


def _root_mean(squares: Tensor) -> float:
    return math.sqrt(float(squares.mean()))
