"""Samplers: batches of about equal work, and a resumable sequence of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import InMemoryDataset

from pyg_schnet.graph.memory import MAX_PAIRS_PER_BATCH, max_pairs
from pyg_schnet.loader.dataloader import collate
from pyg_schnet.transforms.radius_graph import RadiusGraph

_MAX_ATOM_PAIRS = 2**22  # pairs of atoms, neighbors or not, in one search for edges
_STRUCTURES_PER_BATCH = 1024  # when only sizes are counted
_MAX_COUNT = 2.0**62


class EdgeBudgetSampler(Sampler[list[int]]):
    """Batches filled with structures up to a number of edges, for ``DataLoader(batch_sampler=…)``.

    The time and memory of a step grow with its number of edges: a data set that mixes structures of 3 and 300
    atoms has batches of thousands of the former and a few of the latter. Each structure occurs once per
    epoch; a structure with more edges than the budget is a batch of its own.

    Args:
        edges: Number of edges of each structure, shape ``(structures,)``, from :func:`count_edges`.
        budget: Largest number of edges per batch.
        shuffle: Whether the order changes each epoch.
        seed: Seed of the order; the batches of an epoch depend on nothing else.

    Raises:
        ValueError: If ``edges`` has another shape, or the budget is below one.

    Attributes:
        epoch: Number of the next epoch, from 0; incremented with each pass.

    Example:
        >>> import torch
        >>> list(EdgeBudgetSampler(torch.tensor([6, 90, 6, 90, 90]), budget=200, shuffle=False))
        [[0, 1, 2, 3], [4]]
    """

    def __init__(self, edges: Tensor | Sequence[int], budget: int, shuffle: bool = True, seed: int = 0):
        self.edges = torch.as_tensor(edges, dtype=torch.long)
        if self.edges.dim() != 1 or len(self.edges) == 0:
            raise ValueError(
                f"`edges` must have shape (structures,) with at least one, got {tuple(self.edges.shape)}"
            )
        if budget < 1:
            raise ValueError(f"`budget` must be at least 1, got {budget}")
        self.budget, self.shuffle, self.seed = budget, shuffle, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        yield from (batch.tolist() for batch in self.batches(epoch))

    def __len__(self) -> int:
        """Return the number of batches of the next epoch."""
        return len(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[Tensor]:
        """Return the indices of the structures of each batch of an epoch, shape ``(structures,)`` each.

        Args:
            epoch: Number of the epoch, from 0.
        """
        count = len(self.edges)
        order = shuffled_order(count, self.seed, epoch) if self.shuffle else torch.arange(count)
        ends = self.edges[order].cumsum(0)
        starts, first, before = [], 0, 0
        while first < len(order):
            starts.append(first)
            end = int(torch.searchsorted(ends, before + self.budget, right=True))
            first = max(end, first + 1)
            before = int(ends[first - 1])
        return list(order.tensor_split(starts[1:]))


class BatchSequence:
    """The batches of all steps of a training, a function of seed and step alone, so that resuming is exact.

    The order changes each epoch. Batches of a fixed size drop the remainder of an epoch; batches filled up to
    a number of edges contain each structure.

    Args:
        structures: Number of structures.
        batch_size: Structures per batch.
        seed: Seed of the order.
        batch_edges: Largest number of edges per batch, which replaces ``batch_size``.
        edges: Number of edges of each structure, shape ``(structures,)``; needed for ``batch_edges``.

    Attributes:
        mean_size: Mean number of structures per batch.
    """

    def __init__(
        self,
        structures: int,
        batch_size: int,
        seed: int = 0,
        batch_edges: int | None = None,
        edges: Tensor | None = None,
    ):
        self._structures, self._seed = structures, seed
        self._sampler: EdgeBudgetSampler | None = None
        self.mean_size: float = min(batch_size, structures)
        if batch_edges is not None:
            assert edges is not None
            self._sampler = EdgeBudgetSampler(edges, batch_edges, seed=seed)
            self.mean_size = structures / len(self._sampler)

    def from_step(self, step: int) -> Iterator[Tensor]:
        """Yield the indices of the structures of each step, endlessly, starting at a step."""
        epoch = 0
        while step >= (steps := self._steps(epoch)):
            epoch, step = epoch + 1, step - steps
        while True:
            yield from self._epoch(epoch)[step:]
            epoch, step = epoch + 1, 0

    def _steps(self, epoch: int) -> int:
        return self._structures // int(self.mean_size) if self._sampler is None else len(self._epoch(epoch))

    def _epoch(self, epoch: int) -> Sequence[Tensor]:
        if self._sampler is not None:
            return self._sampler.batches(epoch)
        steps, size = self._steps(epoch), int(self.mean_size)
        order = shuffled_order(self._structures, self._seed, epoch)
        return order[: steps * size].view(steps, size).unbind()


def shuffled_order(items: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the items in an epoch, shape ``(items,)``."""
    generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
    return torch.randperm(items, generator=generator)


def count_edges(dataset: InMemoryDataset, cutoff: float = math.inf) -> Tensor:
    """Count the edges of each structure: the stored ones, or those within the cutoff.

    Args:
        dataset: Structures with ``edge_index``, or with ``z``, ``pos`` in Å and, for periodic ones, ``cell``
            and ``pbc``.
        cutoff: Cutoff in Å; by default all pairs of atoms are connected.

    Returns:
        Integers of shape ``(structures,)``.
    """
    ids = torch.arange(len(dataset))
    if "edge_index" in (dataset.slices or {}):
        return torch.cat([_count_stored(dataset, part) for part in ids.split(_STRUCTURES_PER_BATCH)])
    atoms = torch.cat([collate(dataset, part).ptr.diff() for part in ids.split(_STRUCTURES_PER_BATCH)])
    if math.isinf(cutoff):
        return atoms * (atoms - 1)
    counts, search = torch.zeros_like(atoms), RadiusGraph(cutoff)
    batch_size = max(1, int(_MAX_ATOM_PAIRS / int(atoms.max()) ** 2))
    for part in ids.split(batch_size):
        batch = collate(dataset, part)
        edge_index = search(batch).edge_index
        assert edge_index is not None
        assert batch.batch is not None
        counts[part] = torch.bincount(batch.batch[edge_index[1]], minlength=len(part))
    return counts


def bound_edges(dataset: InMemoryDataset, cutoff: float = math.inf) -> Tensor | None:
    """Bound the number of edges of each structure from above, without a search.

    Args:
        dataset: Structures.
        cutoff: Cutoff in Å; by default all pairs of atoms are connected.

    Returns:
        Bounds of shape ``(structures,)``, float64; ``None`` if the data set does not store its atoms.
    """
    slices = dataset.slices or {}
    if "z" not in slices:
        return None
    atoms = slices["z"].diff()[torch.as_tensor(list(dataset.indices()))].double()
    if math.isinf(cutoff):
        return atoms * (atoms - 1).clamp(max=_MAX_COUNT)
    per_atom = max_pairs(1, cutoff, periodic=True)  # with all images
    return atoms * per_atom if "pbc" in slices else atoms * (atoms - 1).clamp(max=per_atom)


def split_by_edges(ids: Tensor, edges: Tensor, max_edges: int = MAX_PAIRS_PER_BATCH) -> list[Tensor]:
    """Split a batch into parts with a bounded number of edges, and at least one structure.

    Args:
        ids: Indices of the structures of the batch.
        edges: Number of edges of each structure of the data set, or upper bounds.
        max_edges: Largest number of edges per part.
    """
    own = edges[ids]
    if float(own.sum()) <= max_edges:
        return [ids]
    sampler = EdgeBudgetSampler(own.ceil().long(), max_edges, shuffle=False)
    return [ids[part] for part in sampler.batches(0)]


def _count_stored(dataset: InMemoryDataset, part: Tensor) -> Tensor:
    batch = collate(dataset, part, follow_batch=["edge_index"])
    return batch.edge_index_ptr.diff()
