"""Duplicates: structures that occur more than once in a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import stream


@dataclass(frozen=True)
class Duplicates:
    """Structures with exactly the atoms, positions and cell of an earlier one.

    Attributes:
        number: Number of duplicates.
        example: Indices of the first duplicate and of its original; ``None`` if there is none.
        energy_difference: Largest difference of the energies of duplicate and original, in eV; 0 without
            energies.
    """

    number: int
    example: tuple[int, int] | None
    energy_difference: float


def find_duplicates(dataset: MoleculeDataset, fingerprint: Tensor) -> Duplicates:
    """Find duplicates by their fingerprints, and compare them with their originals.

    Args:
        dataset: Data set; its ``transform`` is not applied.
        fingerprint: Hash of each structure, shape ``(structures,)``, see
            :func:`~pyg_schnet.datasets.splits.fingerprints`.
    """
    _, group = fingerprint.unique(return_inverse=True)
    number = torch.arange(len(group))
    first = torch.full_like(group, len(group)).scatter_reduce_(0, group, number, "amin")[group]
    later = (first < number).nonzero().flatten()
    fields = ("pos", "cell", "energy")
    found, differences = [later[:0]], [torch.zeros(0, dtype=torch.float64)]
    pairs = zip(stream(dataset, fields, later), stream(dataset, fields, first[later]), strict=True)
    for (numbers, copies), (_, originals) in pairs:
        same = _same(copies, originals)
        found.append(numbers[same])
        difference = copies.energy - originals.energy if "energy" in copies else torch.zeros(len(same))
        differences.append(difference[same].double().abs())
    copies, difference = torch.cat(found), torch.cat(differences)
    if len(copies) == 0:
        return Duplicates(0, None, 0.0)
    return Duplicates(len(copies), (int(copies[0]), int(first[copies[0]])), float(difference.max()))


def _same(batch: Data, other: Data) -> Tensor:
    """Return which structures of two batches are equal; equal fingerprints imply equal sizes."""
    different = (batch.z != other.z) | (batch.pos != other.pos).any(1)
    molecule = cast(Tensor, batch.batch)
    count = torch.zeros(len(batch.ptr) - 1, dtype=torch.int64).index_add_(0, molecule, different.long())
    same = count == 0
    return same & (batch.cell == other.cell).flatten(1).all(1) if "cell" in batch else same
