"""Statistics of a training set that define the domain of the potentials trained on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import sizes, stream
from pyg_schnet.graph.fragments import COVALENT_RADII, separation
from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.potentials.training_domain import TrainingDomain

_PERIODIC_CUTOFF = 4.0  # Å; elements farther apart in periodic structures count as never paired
_MAX_PAIRS = 2**27  # of all molecules: one or two seconds; larger sets are sampled evenly
_MAX_PERIODIC_PAIRS = 2**19  # the same; each pair has many images
_MAX_ATOMS = 2**12  # the pairs of one structure must fit into memory
_PAIRS_PER_BATCH = 2**21
_NUM_ELEMENTS = MAX_ATOMIC_NUMBER + 1


def measure_domain(dataset: MoleculeDataset) -> TrainingDomain:
    """Measure shortest distances of pairs of elements, the largest force, and separations of parts.

    Args:
        dataset: Training structures; of a very large data set, an even sample of structures is measured.
    """
    shortest = torch.full((_NUM_ELEMENTS * _NUM_ELEMENTS,), math.inf, dtype=torch.float64)
    separations = []
    for pair, distance, largest in _distances(dataset):
        shortest.scatter_reduce_(0, pair, distance.double(), "amin")
        separations += [] if largest is None else [largest]
    table = shortest.view(_NUM_ELEMENTS, _NUM_ELEMENTS)
    table = torch.minimum(table, table.T).triu()
    pairs = (table.isfinite() & (table > 0)).nonzero().tolist()
    has_stress = "stress" in cast(Data, dataset._data)
    distances = {(a, b): float(table[a, b]) for a, b in pairs}
    largest = max(separations, default=None)
    return TrainingDomain(distances, _largest_force(dataset), has_stress, largest)


def _distances(dataset: MoleculeDataset) -> Iterator[tuple[Tensor, Tensor, float | None]]:
    """Yield pairs of elements, each encoded as one integer, and their distances in Å.

    The third item is the largest separation of a part of the molecules, ``None`` of periodic structures.
    """
    fields = cast(Data, dataset._data).to_dict()
    size = sizes(dataset)
    periodic = torch.zeros(len(dataset), dtype=torch.bool)
    if "pbc" in fields:
        periodic = fields["pbc"].view(-1, 3).any(dim=1)[torch.tensor(dataset.indices())]
    fits = size <= _MAX_ATOMS
    for _, batch in stream(dataset, ("z", "pos"), _sample(size, fits & ~periodic, _MAX_PAIRS)):
        yield from _molecular(batch)
    for number in _sample(size, fits & periodic, _MAX_PERIODIC_PAIRS):
        for _, batch in stream(dataset, ("z", "pos", "cell", "pbc"), number[None]):
            yield *_periodic(batch), None


def _sample(size: Tensor, wanted: Tensor, max_pairs: int) -> Tensor:
    """Return evenly spaced indices of the wanted structures, with at most so many pairs of atoms."""
    numbers = wanted.nonzero().flatten()
    pairs = int(size[numbers].square().sum())
    return numbers[:: max(1, -(-pairs // max_pairs))]


def _molecular(batch: Data) -> Iterator[tuple[Tensor, Tensor, float]]:
    ptr, pos, z = cast(Tensor, batch.ptr), cast(Tensor, batch.pos), cast(Tensor, batch.z)
    counts = ptr.diff()
    for size in counts.unique().tolist():
        if size == 1:
            continue
        molecules = (counts == size).nonzero().flatten()
        for part in molecules.split(max(1, _PAIRS_PER_BATCH // size**2)):
            atoms = ptr[part][:, None] + torch.arange(size)  # (molecules, atoms)
            points, own = pos[atoms], z[atoms]
            distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
            distance.diagonal(dim1=1, dim2=2).fill_(math.inf)
            largest = float(separation(distance, COVALENT_RADII[own].to(pos.dtype)).max())
            if bool((own == own[0]).all()):  # frames of one molecule: the shortest of each pair is enough
                distance, own = distance.amin(0, keepdim=True), own[:1]
            yield (own[:, :, None] * _NUM_ELEMENTS + own[:, None, :]).flatten(), distance.flatten(), largest


def _periodic(batch: Data) -> tuple[Tensor, Tensor]:
    pos, z = cast(Tensor, batch.pos), cast(Tensor, batch.z)
    (source, target), shift = neighbor_list(pos, _PERIODIC_CUTOFF, None, batch.cell, batch.pbc)
    vector = pos[source] - pos[target] + shift.to(pos.dtype) @ batch.cell.view(3, 3).to(pos.dtype)
    return z[source] * _NUM_ELEMENTS + z[target], vector.norm(dim=1)


def _largest_force(dataset: MoleculeDataset) -> float | None:
    largest = [
        float(cast(Tensor, batch.forces).square().sum(dim=1).max())
        for _, batch in stream(dataset, ("forces",))
        if "forces" in batch and len(cast(Tensor, batch.forces))
    ]
    return math.sqrt(max(largest)) if largest else None
