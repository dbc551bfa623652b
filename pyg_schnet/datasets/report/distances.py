"""Interatomic distances of a data set: the shortest, and the longest to a nearest neighbor."""

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
_MOST_PERIODIC_PAIRS = 2**20  # the same, with many images each
_LARGEST = 2**12  # atoms; the pairs of one structure must fit into memory
_PAIRS_AT_ONCE = 2**22
REACH = 10.0  # Å; larger distances to a nearest neighbor are reported, and in crystals not searched


@dataclass(frozen=True)
class Distances:
    """Extreme distances in Å, with the structures where they occur.

    Attributes:
        shortest: Shortest distance; ``None`` if no structure has two atoms.
        shortest_in: Index of its structure.
        solitary: Longest distance of an atom to its nearest neighbor; infinite if there is none within 10 Å
            in a periodic structure, ``None`` if no structure has two atoms.
        solitary_in: Index of its structure.
        structures: Number of structures that were measured, evenly spaced over the set.
    """

    shortest: float | None
    shortest_in: int | None
    solitary: float | None
    solitary_in: int | None
    structures: int


def measure_distances(dataset: MoleculeDataset, periodic: Tensor) -> Distances:
    """Measure all structures, or as many as possible in a few seconds.

    Args:
        dataset: Data set with at least one structure; its ``transform`` is not applied.
        periodic: Which structures are periodic, shape ``(structures,)``; their images are included.
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
    if high[far] == 0:  # single atoms
        return Distances(None, None, None, None, len(chosen))
    shortest = float(low[near]) if bool(low[near].isfinite()) else None
    return Distances(shortest, int(chosen[near]), float(high[far]), int(chosen[far]), len(chosen))


def _sample(dataset: MoleculeDataset, wanted: Tensor, most_pairs: int) -> Tensor:
    """Return indices of evenly spaced structures with at most so many pairs together."""
    size = sizes(dataset)
    numbers = (wanted & (size <= _LARGEST)).nonzero().flatten()
    pairs = int(size[numbers].square().sum())
    return numbers[:: max(1, -(-pairs // most_pairs))]


def _nearest(batch: Data) -> tuple[Tensor, Tensor]:
    """Return the shortest and longest distance to a nearest neighbor by molecule; inf and 0 for one atom."""
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
    """Return the same as :func:`_nearest` with periodic images; infinite beyond ``REACH``."""
    molecule, pos = cast(Tensor, batch.batch), cast(Tensor, batch.pos)
    # Dense crystals have many pairs within REACH, even more if the positions are in another unit.
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
