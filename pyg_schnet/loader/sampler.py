"""Batches of about equal work, of structures of any sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import InMemoryDataset

from pyg_schnet.graph.memory import PAIRS_AT_ONCE, most_pairs
from pyg_schnet.loader import collate
from pyg_schnet.transforms.radius_graph import RadiusGraph

_PAIRS_AT_ONCE = 2**22  # of all atoms of a few structures, of which some are neighbors


class EdgeBudgetSampler(Sampler[list[int]]):
    """Fills batches with structures up to a number of edges, for ``DataLoader(batch_sampler=…)``.

    The time and memory of a step grow with its edges: a set that mixes 3 and 300 atoms has batches of
    thousands of the ones and of a few of the others. Each structure comes once an epoch, one that has more
    edges than the budget in a batch of its own.

    Args:
        edges: Edges of each structure, shape ``(structures,)``, as :func:`count_edges` counts them.
        budget: Edges of a batch at most.
        shuffle: Whether the order changes each epoch.
        seed: Of the order; the batches of an epoch depend on nothing else.

    Attributes:
        epoch: Which comes next, from 0; raised with each pass.

    Example:
        >>> import torch
        >>> list(EdgeBudgetSampler(torch.tensor([6, 90, 6, 90, 90]), budget=200, shuffle=False))
        [[0, 1, 2, 3], [4]]
    """

    def __init__(self, edges: Tensor | Sequence[int], budget: int, shuffle: bool = True, seed: int = 0):
        self.edges = torch.as_tensor(edges, dtype=torch.long)
        if self.edges.dim() != 1 or len(self.edges) == 0:
            raise ValueError(
                "`edges` must hold one number for each of at least one structure, got the shape "
                f"{tuple(self.edges.shape)}"
            )
        if budget < 1:
            raise ValueError(f"`budget` must be at least 1, got {budget}")
        self.budget, self.shuffle, self.seed = budget, shuffle, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        yield from (batch.tolist() for batch in self.batches(epoch))

    def __len__(self) -> int:
        """Count the batches of the epoch that comes next."""
        return len(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[Tensor]:
        """Give the numbers of the structures of each batch of an epoch."""
        order = shuffled(len(self.edges), self.seed, epoch) if self.shuffle else torch.arange(len(self.edges))
        ends = self.edges[order].cumsum(0)
        starts, first, before = [], 0, 0
        while first < len(order):
            starts.append(first)
            end = int(torch.searchsorted(ends, before + self.budget, right=True))
            first = max(end, first + 1)
            before = int(ends[first - 1])
        return list(order.tensor_split(starts[1:]))


def shuffled(items: int, seed: int, epoch: int) -> Tensor:
    """Give the order of the items in an epoch, shape ``(items,)``."""
    generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
    return torch.randperm(items, generator=generator)


def count_edges(dataset: InMemoryDataset, cutoff: float = math.inf) -> Tensor:
    """Count the edges of each structure: those that it has, or pairs of atoms within the cutoff.

    Args:
        dataset: With ``edge_index``, or ``z`` and ``pos`` in Å, and ``cell`` and ``pbc`` where there are any.
        cutoff: In Å; by default all pairs of a structure.

    Returns:
        ``(structures,)``, whole numbers.
    """
    every = torch.arange(len(dataset))
    if "edge_index" in (dataset.slices or {}):
        return torch.cat([_edges_there(dataset, part) for part in every.split(1024)])
    atoms = torch.cat([collate(dataset, part).ptr.diff() for part in every.split(1024)])
    if math.isinf(cutoff):
        return atoms * (atoms - 1)
    counts, search = torch.zeros_like(atoms), RadiusGraph(cutoff)
    at_once = max(1, int(_PAIRS_AT_ONCE / int(atoms.max()) ** 2))
    for part in every.split(at_once):
        batch = collate(dataset, part)
        edge_index = search(batch).edge_index
        assert edge_index is not None
        assert batch.batch is not None
        counts[part] = torch.bincount(batch.batch[edge_index[1]], minlength=len(part))
    return counts


def bound_edges(dataset: InMemoryDataset, cutoff: float = math.inf) -> Tensor | None:
    """Bound the edges of each structure without a search; ``None`` where the set does not tell its atoms."""
    slices = dataset.slices or {}
    if "z" not in slices:
        return None
    atoms = slices["z"].diff()[torch.as_tensor(list(dataset.indices()))].double()
    alone = torch.tensor(
        [most_pairs(1, cutoff, periodic=True)], dtype=torch.float64
    )  # of an atom and its images
    if "pbc" in slices and math.isfinite(cutoff):
        return atoms * alone
    return atoms * (atoms - 1).clamp(max=2.0**62 if math.isinf(cutoff) else float(alone))


def cut(ids: Tensor, edges: Tensor, most: int = PAIRS_AT_ONCE) -> list[Tensor]:
    """Cut a batch into parts of at most so many edges, and at least one structure.

    Args:
        ids: Numbers of the structures.
        edges: Of each structure of the set, or bounds of them.
        most: Edges of a part.
    """
    own = edges[ids]
    if float(own.sum()) <= most:
        return [ids]
    return [ids[part] for part in EdgeBudgetSampler(own.ceil().long(), most, shuffle=False).batches(0)]


def _edges_there(dataset: InMemoryDataset, part: Tensor) -> Tensor:
    batch = collate(dataset, part, follow_batch=["edge_index"])
    return batch.edge_index_ptr.diff()
