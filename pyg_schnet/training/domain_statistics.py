"""What a training set holds: the domain of the potentials that are trained on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import sizes, stream
from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.potentials.training_domain import TrainingDomain

_REACH = 4.0  # Å; elements of crystals that stay farther apart count as having never met
_MOST_PAIRS = 2**27  # of all molecules: a second or two; more are measured in part, evenly
_MOST_PERIODIC_PAIRS = 2**19  # the same; each has many images
_LARGEST = 2**12  # atoms; the pairs of one structure must fit into memory
_PAIRS_AT_ONCE = 2**21
_SIDE = MAX_ATOMIC_NUMBER + 1


def measure_domain(dataset: MoleculeDataset) -> TrainingDomain:
    """Measure the shortest distances by elements, and the largest force.

    Args:
        dataset: Of any size: of one with very many pairs of atoms only some structures are measured.
    """
    shortest = torch.full((_SIDE * _SIDE,), math.inf, dtype=torch.float64)
    for key, distance in _distances(dataset):
        shortest.scatter_reduce_(0, key, distance.double(), "amin")
    table = shortest.view(_SIDE, _SIDE)
    table = torch.minimum(table, table.T).triu()
    pairs = (table.isfinite() & (table > 0)).nonzero().tolist()
    has_stress = "stress" in cast(Data, dataset._data)
    return TrainingDomain({(a, b): float(table[a, b]) for a, b in pairs}, _largest_force(dataset), has_stress)


def _distances(dataset: MoleculeDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Give pairs of elements, as one number, and their distances."""
    fields = cast(Data, dataset._data).to_dict()
    size = sizes(dataset)
    periodic = torch.zeros(len(dataset), dtype=torch.bool)
    if "pbc" in fields:
        periodic = fields["pbc"].view(-1, 3).any(dim=1)[torch.tensor(dataset.indices())]
    fit = size <= _LARGEST
    for _, batch in stream(dataset, ("z", "pos"), _evenly(size, fit & ~periodic, _MOST_PAIRS)):
        yield from _molecular(batch)
    for number in _evenly(size, fit & periodic, _MOST_PERIODIC_PAIRS):
        for _, batch in stream(dataset, ("z", "pos", "cell", "pbc"), number[None]):
            yield _periodic(batch)


def _evenly(size: Tensor, wanted: Tensor, most_pairs: int) -> Tensor:
    numbers = wanted.nonzero().flatten()
    pairs = int(size[numbers].square().sum())
    return numbers[:: max(1, -(-pairs // most_pairs))]


def _molecular(batch: Data) -> Iterator[tuple[Tensor, Tensor]]:
    ptr, pos, z = cast(Tensor, batch.ptr), cast(Tensor, batch.pos), cast(Tensor, batch.z)
    counts = ptr.diff()
    for size in counts.unique().tolist():
        if size == 1:
            continue
        molecules = (counts == size).nonzero().flatten()
        for part in molecules.split(max(1, _PAIRS_AT_ONCE // size**2)):
            atoms = ptr[part][:, None] + torch.arange(size)  # (molecules, atoms)
            points, own = pos[atoms], z[atoms]
            distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
            distance.diagonal(dim1=1, dim2=2).fill_(math.inf)
            if bool((own == own[0]).all()):  # frames of one molecule: the least of each pair is enough
                distance, own = distance.amin(0, keepdim=True), own[:1]
            yield (own[:, :, None] * _SIDE + own[:, None, :]).flatten(), distance.flatten()


def _periodic(batch: Data) -> tuple[Tensor, Tensor]:
    pos, z = cast(Tensor, batch.pos), cast(Tensor, batch.z)
    (source, target), shift = neighbor_list(pos, _REACH, None, batch.cell, batch.pbc)
    vector = pos[source] - pos[target] + shift.to(pos.dtype) @ batch.cell.view(3, 3).to(pos.dtype)
    return z[source] * _SIDE + z[target], vector.norm(dim=1)


def _largest_force(dataset: MoleculeDataset) -> float | None:
    largest = [
        float(cast(Tensor, batch.forces).square().sum(dim=1).max())
        for _, batch in stream(dataset, ("forces",))
        if "forces" in batch and len(cast(Tensor, batch.forces))
    ]
    return math.sqrt(max(largest)) if largest else None
