"""The summary of a data set: what it holds, and what looks wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ase.data import chemical_symbols
from rich.console import Group
from torch import Tensor

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.references import formula
from pyg_schnet.datasets.report.bond_lengths import Bonding, measure_bonding
from pyg_schnet.datasets.report.distances import Distances, measure
from pyg_schnet.datasets.report.duplicates import Copies, find_copies
from pyg_schnet.datasets.report.force_energy import Work, compare_work
from pyg_schnet.datasets.report.free_atoms import ratio_to_free_atoms
from pyg_schnet.datasets.report.outliers import Outliers, energy_outliers, force_outliers
from pyg_schnet.datasets.report.sanity import doubts
from pyg_schnet.datasets.report.structure_statistics import Survey, survey
from pyg_schnet.datasets.report.summary_page import layout
from pyg_schnet.datasets.report.unit_evidence import Evidence
from pyg_schnet.io.units import Units, kcal_per_mol

_COMPOSITIONS_SHOWN = 5


@dataclass(frozen=True)
class Energies:
    """Energies in eV a structure.

    Attributes:
        min: The lowest.
        mean: Their mean.
        max: The highest.
        std: Their standard deviation; 0 for one structure.
        spread_per_atom: RMS of the energies relative to fitted atomic references, in eV an atom.
        ratio_to_free_atoms: Energies over the energies of the free atoms, all electrons counted: near 1 for
            total energies of an all-electron method; ``None`` where an element is beyond krypton.
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
        largest_in: Number of its structure.
        net_rms: RMS of the components of a structure's sum of forces.
        net_share: RMS of what each atom has of that sum, a part that no model whose energy is invariant under
            translation can fit, relative to ``rms``.
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
    """What a data set holds; ``rich`` prints it. Structures are numbered from 0, as in the whole set.

    Attributes:
        structures: How many.
        periodic: How many of them are periodic in any direction.
        atoms: Fewest, mean and most atoms of a structure.
        elements: Their symbols, by atomic number.
        unknown_elements: Atomic numbers beyond 99, which no model here takes.
        compositions: How many there are.
        frequent: The most frequent of them, with the number of their structures.
        energy: Energies.
        read_as: The unit that the energies of a file were taken to be in; ``None`` for published sets.
        forces: Forces, if there are any.
        stress: Stress, if there is any.
        distances: Interatomic distances.
        copies: Structures that occur more than once.
        work: Whether forces and energies belong together, where that can be told.
        energy_outliers: Structures whose energy is far from those of the others, if there are any.
        force_outliers: The same of the largest component of the forces.
        charged: Structures with a charge, which is left out.
        bonding: Distances of nearest neighbors and the stiffness of bonds, which units show by.
        unit_doubt: Why the units cannot be those in which a file was read, and which may be.
        warnings: What looks wrong, a sentence each, the doubt of the units among them.
    """

    structures: int
    periodic: int
    atoms: tuple[int, float, int]
    elements: tuple[str, ...]
    unknown_elements: tuple[int, ...]
    compositions: int
    frequent: tuple[tuple[str, int], ...]
    energy: Energies
    read_as: str | None
    forces: Forces | None
    stress: Stress | None
    distances: Distances
    copies: Copies
    work: Work | None
    bonding: Bonding
    energy_outliers: Outliers | None = None
    force_outliers: Outliers | None = None
    charged: int = 0
    unit_doubt: str | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON can hold it; energies and forces also in kcal/mol, suffix ``_kcal``."""
        table = asdict(self)
        for name in ("min", "mean", "max", "std", "spread_per_atom"):
            table["energy"][f"{name}_kcal"] = table["energy"][name] / kcal_per_mol
        for name in ("rms", "largest", "net_rms") if self.forces else ():
            table["forces"][f"{name}_kcal"] = table["forces"][name] / kcal_per_mol
        if self.distances.solitary == math.inf:
            table["distances"]["solitary"] = None  # JSON knows no infinity
        return table

    def __rich__(self) -> Group:
        return layout(self)


def summarise(dataset: MoleculeDataset) -> Summary:
    """Summarise a data set, in bounded memory and some seconds for 500,000 structures.

    Args:
        dataset: At least one structure; its ``transform`` is not applied.

    Raises:
        ValueError: If there are none.
    """
    known = survey(dataset)
    elements = known.elements()
    units = getattr(dataset, "units", None)
    summary = Summary(
        structures=len(known),
        periodic=int(known.periodic.sum()),
        atoms=(int(known.atoms.min()), float(known.atoms.double().mean()), int(known.atoms.max())),
        elements=tuple(chemical_symbols[z] for z in elements if 1 <= z <= 99),
        unknown_elements=tuple(z for z in elements if not 1 <= z <= 99),
        compositions=len(known.counts),
        frequent=_frequent(known),
        energy=_energies(known),
        read_as=None if units is None else units.energy,
        forces=_forces(known),
        stress=_stress(known),
        distances=measure(dataset, known.periodic),
        copies=find_copies(dataset, known.fingerprint),
        work=compare_work(dataset, known),
        bonding=measure_bonding(dataset, known.periodic),
        energy_outliers=energy_outliers(known),
        force_outliers=force_outliers(known),
        charged=getattr(dataset, "charged", 0),
    )
    atoms = summary.energy.ratio_to_free_atoms
    evidence = Evidence(units or Units("eV"), atoms, summary.bonding, summary.work)
    summary = _numbered(replace(summary, unit_doubt=evidence.doubt()), dataset.indices())
    return replace(summary, warnings=tuple(doubts(summary)))


def _numbered(summary: Summary, numbers: Sequence[int]) -> Summary:
    """Number structures as in the whole data set of which a part was summarised."""
    forces, distances, copies = summary.forces, summary.distances, summary.copies
    if forces is not None:
        forces = replace(forces, largest_in=int(numbers[forces.largest_in]))
    places = {"shortest_in": distances.shortest_in, "solitary_in": distances.solitary_in}
    known = {name: int(numbers[place]) for name, place in places.items() if place is not None}
    if copies.example is not None:
        copies = replace(copies, example=(int(numbers[copies.example[0]]), int(numbers[copies.example[1]])))
    far = {
        name: replace(found, worst=int(numbers[found.worst]))
        for name in ("energy_outliers", "force_outliers")
        if (found := getattr(summary, name)) is not None
    }
    return replace(summary, forces=forces, distances=replace(distances, **known), copies=copies, **far)


def _frequent(known: Survey) -> tuple[tuple[str, int], ...]:
    frequencies, order = known.frequencies().sort(descending=True, stable=True)
    shown = zip(order[:_COMPOSITIONS_SHOWN].tolist(), frequencies.tolist(), strict=False)
    return tuple((formula(known.counts[row, :119]), count) for row, count in shown)


def _energies(known: Survey) -> Energies:
    energy = known.energy
    return Energies(
        min=float(energy.min()),
        mean=float(energy.mean()),
        max=float(energy.max()),
        std=float(energy.std()) if len(energy) > 1 else 0.0,
        spread_per_atom=_root_mean(known.relative_energy().square()),
        ratio_to_free_atoms=ratio_to_free_atoms(known.counts, known.composition, energy),
    )


def _forces(known: Survey) -> Forces | None:
    if known.forces_squares is None or known.forces_largest is None or known.net_force_squares is None:
        return None
    largest, number = known.forces_largest.max(0)
    return Forces(
        rms=math.sqrt(float(known.forces_squares.sum()) / (3 * int(known.atoms.sum()))),
        largest=float(largest),
        largest_in=int(number),
        net_rms=_root_mean(known.net_force_squares / 3),
        net_share=_ratio((known.net_force_squares / known.atoms).sum(), known.forces_squares.sum()),
    )


def _ratio(squares: Tensor, others: Tensor) -> float:
    return math.sqrt(float(squares) / float(others)) if float(others) > 0 else 0.0


def _stress(known: Survey) -> Stress | None:
    if known.stress_squares is None or known.stress_largest is None:
        return None
    return Stress(_root_mean(known.stress_squares / 9), float(known.stress_largest.max()))


def _root_mean(squares: Tensor) -> float:
    return math.sqrt(float(squares.mean()))
