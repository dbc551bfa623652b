"""Atomic references: energies of the elements, fitted to compositions or of isolated atoms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from ase.data import chemical_symbols
from ase.formula import Formula
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.formats.records import is_isolated

if TYPE_CHECKING:
    from pyg_schnet.datasets.base import MoleculeDataset

_TOLERANCE = 1e-3  # eV, between isolated atoms of one element


@dataclass(frozen=True)
class Compositions:
    """Compositions that occur in a data set, with their mean energies or mean values of another label.

    Attributes:
        counts: Number of atoms of each element, shape ``(compositions, 100)``, float64; rows are unique.
        frames: Number of structures of each composition, shape ``(compositions,)``, float64.
        energy: Mean energy of each composition in eV, or mean value of another label in its unit, shape
            ``(compositions,)``, float64.
    """

    counts: Tensor
    frames: Tensor
    energy: Tensor

    @classmethod
    def of(cls, z: Tensor, molecule: Tensor, energy: Tensor) -> Compositions:
        """Count the compositions of structures.

        Args:
            z: Atomic numbers, shape ``(atoms,)``.
            molecule: Number of the structure of each atom, shape ``(atoms,)``.
            energy: Energies in eV, or values of another label, shape ``(structures,)``; structures with NaN
                are left out.
        """
        size = MAX_ATOMIC_NUMBER + 1
        flat = torch.bincount(molecule * size + z, minlength=len(energy) * size)
        known = ~energy.isnan()
        return cls._merged(
            flat.view(-1, size)[known].double(), torch.ones_like(energy)[known].double(), energy[known]
        )

    @classmethod
    def of_atoms(cls, z: Tensor, values: Tensor) -> Compositions:
        """Count atoms as structures of one atom, for a label with a value for each atom.

        Args:
            z: Atomic numbers, shape ``(atoms,)``.
            values: Values, shape ``(atoms,)``; atoms with NaN are left out.
        """
        size = MAX_ATOMIC_NUMBER + 1
        known = ~values.isnan()
        z, values = z[known], values[known].double()
        atoms = torch.bincount(z, minlength=size).double()
        occurs = atoms > 0
        total = torch.zeros(size, dtype=torch.float64).index_add_(0, z, values)
        return cls(torch.eye(size, dtype=torch.float64)[occurs], atoms[occurs], (total / atoms)[occurs])

    def merged(self, other: Compositions) -> Compositions:
        """Return the compositions of two sets together.

        Args:
            other: Compositions of the other set.
        """
        pairs = zip(self._parts(), other._parts(), strict=True)
        return self._merged(*(torch.cat(pair) for pair in pairs))

    def mean_energy(self) -> float:
        """Return the mean energy of all structures, in eV."""
        return float((self.frames * self.energy).sum() / self.frames.sum())

    def elements(self) -> list[int]:
        """Return the atomic numbers that occur, sorted."""
        return self.counts.sum(0).nonzero().flatten().tolist()

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.counts, self.frames, self.energy

    @classmethod
    def _merged(cls, counts: Tensor, frames: Tensor, energy: Tensor) -> Compositions:
        unique, group = counts.unique(dim=0, return_inverse=True)
        total = torch.zeros(len(unique), dtype=torch.float64).index_add_(0, group, frames)
        mean = torch.zeros_like(total).index_add_(0, group, frames / total[group] * energy.double())
        return cls(unique, total, mean)


@dataclass(frozen=True)
class References:
    """Energies of the elements, and the compositions for which they are determined.

    Attributes:
        energy: Energies in eV by atomic number, shape ``(100,)``, float64; zero for absent elements.
        span: Orthonormal basis of the compositions for which the energies are determined, shape
            ``(rank, 100)``; ``None`` if they are determined for all compositions of their elements.
        elements: Atomic numbers of the elements.
        is_given: Whether they are energies of isolated atoms instead of fitted ones.
        shift: Mean residual that is included in ``energy``, in eV per atom.
    """

    energy: Tensor
    span: Tensor | None
    elements: tuple[int, ...]
    is_given: bool = False
    shift: float = 0.0

    @classmethod
    def fit(cls, compositions: Compositions) -> References:
        r"""Fit references to energies by least squares, in float64.

        .. math::
            \min_a \sum_m \Big( E_m - \sum_{i \in m} a_{z_i} \Big)^2

        If the solution is not unique, for instance for a single molecule, :math:`a` has minimum norm. Its
        entries then are not energies of atoms, and only linear combinations of the compositions of the set
        have a determined energy.

        Args:
            compositions: Compositions of the training structures.

        Returns:
            References with energies in eV.
        """
        weight = compositions.frames.sqrt()
        counts = compositions.counts * weight[:, None]
        solution = torch.linalg.lstsq(counts, compositions.energy * weight, driver="gelsd").solution
        elements = compositions.elements()
        energy = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        energy[elements] = solution[elements]  # exactly zero for absent elements
        _, singular, directions = torch.linalg.svd(compositions.counts, full_matrices=False)
        rank = int((singular > 1e-9 * singular.max()).sum())
        span = None if rank == len(elements) else directions[:rank]
        return cls(energy, span, tuple(elements))

    @classmethod
    def given(cls, energy: dict[int, float]) -> References:
        """Build references from energies of isolated atoms.

        Args:
            energy: Energies in eV by atomic number.

        Raises:
            ValueError: If an atomic number is not one of 1 to 99.
        """
        table = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        for number, value in energy.items():
            if not 1 <= number <= MAX_ATOMIC_NUMBER:
                raise ValueError(
                    f"atomic references must be for atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {number}"
                )
            table[number] = value
        return cls(table, None, tuple(sorted(energy)), is_given=True)

    def with_mean_residual(self, compositions: Compositions) -> References:
        r"""Add the mean residual per atom of a set of structures, equal for all elements.

        .. math::
            \min_s \sum_m \Big( E_m - \sum_{i \in m} (a_{z_i} + s) \Big)^2

        Without it, a network with zero output is wrong by the binding energy, tens of eV. The energy of an
        isolated atom then is :math:`a_z + s`, as with SchNetPack's ``remove_mean`` and MACE's shift.

        Args:
            compositions: Compositions of the training structures.
        """
        atoms = compositions.counts.sum(1)
        residual = compositions.energy - compositions.counts @ self.energy
        weight = compositions.frames * atoms
        shift = float((weight * residual).sum() / (weight * atoms).sum())
        energy = self.energy.clone()
        energy[list(self.elements)] += shift
        return replace(self, energy=energy, shift=self.shift + shift)

    @property
    def rank(self) -> int:
        """Number of linearly independent compositions."""
        return len(self.elements) if self.span is None else len(self.span)

    def check(self, compositions: Compositions, source: str) -> None:
        """Check that the references determine the energies of compositions.

        Args:
            compositions: Compositions of the structures to predict.
            source: Name of the data, for error messages.

        Raises:
            ValueError: If an element is absent, or a composition is not determined.
        """
        foreign = sorted(set(compositions.elements()) - set(self.elements))
        if foreign:
            known = ", ".join(chemical_symbols[z] for z in self.elements)
            raise ValueError(
                f"{source}: holds {chemical_symbols[foreign[0]]}, for which there is no atomic reference; "
                f"the training structures hold {known}"
            )
        if self.span is None:
            return
        beyond = compositions.counts - compositions.counts @ self.span.T @ self.span
        wrong = beyond.abs().amax(1) > 1e-6
        if bool(wrong.any()):
            row = compositions.counts[int(wrong.nonzero()[0])]
            raise ValueError(
                f"{source}: holds {formula(row)}, whose energy does not follow from the "
                f"{self._independent()} of the training structures, fewer than their {len(self.elements)} "
                "elements; train on more compositions, or pass atomic references"
            )

    def report(self) -> str:
        """Return values and rank in one line."""
        own = self.energy - self.shift
        values = ", ".join(f"{chemical_symbols[z]} {float(own[z]):.4f}" for z in self.elements)
        text = f"Atomic references (eV): {values}"
        if self.shift:
            text += f"; and the mean residual, {self.shift:.4f} for each atom"
        if self.span is None:
            return text
        return (
            f"{text}; shares, not energies of atoms: {self._independent()} for {len(self.elements)} elements"
        )

    def _independent(self) -> str:
        return f"{self.rank} independent composition{'s' * (self.rank > 1)}"


def formula(counts: Tensor) -> str:
    """Return the formula, in Hill's order, of a row of element counts."""
    numbers = {chemical_symbols[z]: int(counts[z]) for z in counts.nonzero().flatten().tolist()}
    return Formula.from_dict(numbers).format("hill")


def isolated_atoms(dataset: MoleculeDataset) -> dict[int, float]:
    """Return the energies of isolated atoms among other structures.

    Returns:
        Energies in eV by number of the structure; empty if all structures are single atoms, or without
        energies.
    """
    if not dataset.has_energy:
        return {}
    counts = cast(dict[str, Tensor], dataset.slices)["z"].diff()[torch.tensor(list(dataset.indices()))]
    single = (counts == 1).nonzero().flatten().tolist()
    if len(single) == len(counts):
        return {}
    found = {}
    for number in single:
        item = cast(Data, dataset[number])
        cell, pbc = (item[key][0].numpy() if key in item else None for key in ("cell", "pbc"))
        if is_isolated(cell, pbc):
            found[number] = float(item.energy)
    return found


def energies_of(dataset: MoleculeDataset, numbers: dict[int, float]) -> dict[int, float]:
    """Return the energy of each element's isolated atom, in eV by atomic number.

    Raises:
        ValueError: If two of an element differ.
    """
    energies: dict[int, float] = {}
    for number, energy in numbers.items():
        z = int(cast(Data, dataset[number]).z)
        other = energies.setdefault(z, energy)
        if abs(energy - other) > _TOLERANCE:
            raise ValueError(
                f"structure {number}: an isolated {chemical_symbols[z]} must have the energy of the others, "
                f"{other:.4f} eV, got {energy:.4f} eV; leave one of them, or set `references`"
            )
    return energies
