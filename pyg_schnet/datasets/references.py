"""Atomic references: what the elements of a composition contribute to its energy."""

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

_ALIKE = 1e-3  # eV


@dataclass(frozen=True)
class Compositions:
    """The compositions that occur in a set, with their mean energies.

    Attributes:
        counts: Atoms of each element, shape ``(compositions, 100)``, float64; no two rows are equal.
        frames: Structures of each composition, shape ``(compositions,)``, float64.
        energy: Their mean energy in eV, shape ``(compositions,)``, float64.
    """

    counts: Tensor
    frames: Tensor
    energy: Tensor

    @classmethod
    def of(cls, z: Tensor, molecule: Tensor, energy: Tensor) -> Compositions:
        """Count the compositions of molecules.

        Args:
            z: Atomic numbers, shape ``(atoms,)``.
            molecule: To which molecule an atom belongs, shape ``(atoms,)``.
            energy: In eV, shape ``(molecules,)``.
        """
        size = MAX_ATOMIC_NUMBER + 1
        flat = torch.bincount(molecule * size + z, minlength=len(energy) * size)
        return cls._merged(flat.view(-1, size).double(), torch.ones_like(energy).double(), energy)

    def merged(self, other: Compositions) -> Compositions:
        """Join two sets."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return self._merged(*(torch.cat(pair) for pair in pairs))

    def mean_energy(self) -> float:
        """Mean energy of all structures, in eV."""
        return float((self.frames * self.energy).sum() / self.frames.sum())

    def elements(self) -> list[int]:
        """Atomic numbers that occur, sorted."""
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
    """Energies of the elements, and for which compositions they hold.

    Attributes:
        energy: In eV by atomic number, shape ``(100,)``, float64; zero for elements that do not occur.
        span: Orthonormal compositions from which all that they hold for are combined, shape
            ``(rank, 100)``; ``None`` if they hold for every composition of their elements.
        elements: Atomic numbers that they hold for.
        is_given: Whether they are energies of isolated atoms, not fitted ones.
        shift: The mean residual that is part of ``energy``, in eV an atom.
    """

    energy: Tensor
    span: Tensor | None
    elements: tuple[int, ...]
    is_given: bool = False
    shift: float = 0.0

    @classmethod
    def fit(cls, compositions: Compositions) -> References:
        r"""Fit the references that leave the least squares of the energies.

        .. math::
            \min_a \sum_m \Big( E_m - \sum_{i \in m} a_{z_i} \Big)^2

        in float64. Where several do, as for one molecule alone, it is the shortest :math:`a`: its elements
        then are no energies of atoms, and only compositions that can be combined from those of the set
        have a meaning.
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
        """Take energies of isolated atoms, in eV by atomic number."""
        table = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        for number, value in energy.items():
            if not 1 <= number <= MAX_ATOMIC_NUMBER:
                raise ValueError(
                    f"atomic references must be for atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {number}"
                )
            table[number] = value
        return cls(table, None, tuple(sorted(energy)), is_given=True)

    def with_mean_residual(self, compositions: Compositions) -> References:
        r"""Add what a set of structures has on average beyond the references, the same for each atom.

        .. math::
            \min_s \sum_m \Big( E_m - \sum_{i \in m} (a_{z_i} + s) \Big)^2

        Without it, a network that adds nothing is wrong by the whole binding energy, tens of eV. An isolated
        atom then has :math:`a_z + s`, as by SchNetPack's ``remove_mean`` and MACE's shift.

        Args:
            compositions: Of the training structures.
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
        """Number of independent compositions."""
        return len(self.elements) if self.span is None else len(self.span)

    def check(self, compositions: Compositions, source: str) -> None:
        """Refuse elements and compositions for which the references say nothing.

        Args:
            compositions: Of the structures that are to be predicted.
            source: Named in the message.

        Raises:
            ValueError: If there are any.
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
                "elements; train on more compositions, or give atomic references"
            )

    def report(self) -> str:
        """Say in one line what they are and of which rank."""
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
    """Write a row of element counts as a formula in Hill's order."""
    numbers = {chemical_symbols[z]: int(counts[z]) for z in counts.nonzero().flatten().tolist()}
    return Formula.from_dict(numbers).format("hill")


def isolated_atoms(dataset: MoleculeDataset) -> dict[int, float]:
    """Find the isolated atoms, unless there is nothing else.

    Returns:
        Their energies in eV, by their numbers in the data set.
    """
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
        if abs(energy - other) > _ALIKE:
            raise ValueError(
                f"structure {number}: an isolated {chemical_symbols[z]} must have the energy of the others, "
                f"{other:.4f} eV, got {energy:.4f} eV; leave one of them, or set `references`"
            )
    return energies
