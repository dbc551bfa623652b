"""Distances between the atoms of a data set's structures: the shortest, and the most solitary atom's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import sizes, stream
from pyg_schnet.graph.neighbors import neighbor_list

_MOST_PAIRS = 2**28  # one or two seconds
_MOST_PERIODIC_PAIRS = 2**20  # the same, for each has many images
_LARGEST = 2**12  # atoms; the pairs of one structure must fit into memory
_PAIRS_AT_ONCE = 2**22
REACH = 10.0  # Å; how far an atom's nearest neighbor may be in a molecule, and is looked for in a crystal


@dataclass(frozen=True)
class Distances:
    """Distances in Å, with the structures where they are.

    Attributes:
        shortest: The shortest; ``None`` if no structure has two atoms.
        shortest_in: Number of its structure.
        solitary: The longest distance of an atom from its nearest neighbor, infinite if there is none
            within 10 Å in a periodic structure; ``None`` if no structure has two atoms.
        solitary_in: Number of its structure.
        structures: How many were measured, evenly over the set.
    """

    shortest: float | None
    shortest_in: int | None
    solitary: float | None
    solitary_in: int | None
    structures: int


def measure(dataset: MoleculeDataset, periodic: Tensor) -> Distances:
    """Measure all structures, or as many as can be in a few seconds.

    Args:
        dataset: At least one structure; its ``transform`` is not applied.
        periodic: Whether a structure is periodic, shape ``(structures,)``; all images of such a one count.
    """
    molecules = _sample(dataset, ~periodic, _MOST_PAIRS)
    crystals = _sample(dataset, periodic, _MOST_PERIODIC_PAIRS)
    parts = [_nearest(batch) for _, batch in stream(dataset, ("pos",), molecules)]
    for number in crystals:  # one at a time: each has many more pairs than atoms
        for _, batch in stream(dataset, ("pos", "cell", "pbc"), number[None]):
            parts.append(_nearest_periodic(batch))
    chosen = torch.cat([molecules, crystals])
    if not parts:
        return Distances(None, None, None, None, 0)
    low, high = (torch.cat(column) for column in zip(*parts, strict=True))
    near, far = int(low.argmin()), int(high.argmax())
    if high[far] == 0:  # each is one atom alone
        return Distances(None, None, None, None, len(chosen))
    shortest = float(low[near]) if bool(low[near].isfinite()) else None
    return Distances(shortest, int(chosen[near]), float(high[far]), int(chosen[far]), len(chosen))


def _sample(dataset: MoleculeDataset, wanted: Tensor, most_pairs: int) -> Tensor:
    """Take structures evenly, as many as have so many pairs together."""
    size = sizes(dataset)
    numbers = (wanted & (size <= _LARGEST)).nonzero().flatten()
    pairs = int(size[numbers].square().sum())
    return numbers[:: max(1, -(-pairs // most_pairs))]


def _nearest(batch: Data) -> tuple[Tensor, Tensor]:
    """Shortest and longest distance to the nearest neighbor in each molecule; an atom alone: inf and 0."""
    ptr, pos = cast(Tensor, batch.ptr), cast(Tensor, batch.pos)
    counts = ptr.diff()
    low, high = torch.full((2, len(counts)), float("inf"), dtype=pos.dtype)
    high.zero_()
    for size in counts.unique().tolist():
        if size == 1:
            continue
        molecules = (counts == size).nonzero().flatten()
        for part in molecules.split(max(1, _PAIRS_AT_ONCE // size**2)):
            points = pos[ptr[part][:, None] + torch.arange(size)]  # (molecules, atoms, 3)
            distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
            distance.diagonal(dim1=1, dim2=2).fill_(float("inf"))
            nearest = distance.amin(2)
            low[part], high[part] = nearest.amin(1), nearest.amax(1)
    return low, high


def _nearest_periodic(batch: Data) -> tuple[Tensor, Tensor]:
    """As :func:`_nearest`, with images; infinite beyond the reach."""
    molecule, pos = cast(Tensor, batch.batch), cast(Tensor, batch.pos)
    # Dense ones have many pairs within the reach, the more if the positions are in another unit.
    room = 2 * (float(batch.cell.det().abs().sum()) / len(pos)) ** (1 / 3)
    edges, shift = neighbor_list(pos, min(room or REACH, REACH), molecule, batch.cell, batch.pbc)
    if len(edges[1].unique()) < len(pos):  # some have no neighbor that near
        edges, shift = neighbor_list(pos, REACH, molecule, batch.cell, batch.pbc)
    source, target = edges
    cell = batch.cell.index_select(0, molecule[target])
    vector = pos[source] - pos[target] + torch.einsum("ea,eab->eb", shift.to(pos.dtype), cell)
    nearest = torch.full((len(pos),), float("inf"), dtype=pos.dtype)
    nearest.scatter_reduce_(0, target, vector.norm(dim=1), "amin")
    structures = len(cast(Tensor, batch.ptr)) - 1
    low = torch.full((structures,), float("inf"), dtype=pos.dtype)
    low.scatter_reduce_(0, molecule, nearest, "amin")
    return low, torch.zeros(structures, dtype=pos.dtype).scatter_reduce_(0, molecule, nearest, "amax")
