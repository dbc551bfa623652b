"""The geometry that SchNet sees: edges and their lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_schnet.graph.images import find_images
from pyg_schnet.graph.neighbors import neighbor_list, radius_graph
from pyg_schnet.graph.validation import check_edges, check_positions, is_periodic, raise_coincident
from pyg_schnet.kernels import find_pairs, has_kernels, is_symmetric, pair_distances


class Geometry(NamedTuple):
    """Which atoms see each other, and their distances: a row a pair where both directions share it.

    Attributes:
        distance: In Å, ``(rows,)``.
        pairs: Both atoms of each row, ``(2, rows)``, for graphs where each edge has its reverse.
        edges: Source and target of each row, ``(2, rows)``, for all others.
    """

    distance: Tensor
    pairs: Tensor | None = None
    edges: Tensor | None = None

    def directed(self) -> tuple[Tensor, Tensor | None]:
        """Give all edges and, where they share rows, the row of each."""
        if self.pairs is None:
            assert self.edges is not None
            return self.edges, None
        row = torch.arange(self.pairs.size(1), device=self.pairs.device)
        return torch.cat([self.pairs, self.pairs.flip(0)], dim=1), torch.cat([row, row])


def measure(
    pos: Tensor,
    batch: Tensor,
    cutoff: float | None,
    edge_index: Tensor | None = None,
    shift: Tensor | None = None,
    cell: Tensor | None = None,
    pbc: Tensor | Sequence[bool] | bool | None = None,
    max_num_neighbors: int | None = None,
) -> Geometry:
    """Find the edges, unless they are given, and measure them; differentiable in ``pos`` and ``cell``.

    The arguments are those of :class:`~pyg_schnet.SchNet` and its ``forward``. Both directions of a pair
    share one row.
    """
    periodic = is_periodic(pbc)
    if periodic and cutoff is None:
        raise ValueError(
            "`pbc` must be false for a SchNet without cutoff, which connects all pairs of a molecule; "
            "use SchNet(cutoff=...)"
        )
    if edge_index is None and not periodic:
        pairs = _find_pairs(pos, batch, cutoff, max_num_neighbors)
        return Geometry(_pair_distances(pos, pairs), pairs)
    given = edge_index is not None
    if edge_index is None:
        assert cutoff is not None
        edge_index, shift = neighbor_list(pos, cutoff, batch, cell, pbc)
    else:
        if periodic and shift is None:
            raise ValueError(
                "`shift` must be given with `edge_index` where `pbc` is true; neighbor_list makes both"
            )
        if not torch.compiler.is_compiling():
            check_positions(pos, batch)
            check_edges(edge_index, batch)
    images = None
    if shift is not None and cell is not None and not torch.compiler.is_compiling():
        images = find_images(edge_index, shift, batch)
    if images is not None:
        assert cell is not None
        distance = _pair_distances(images.positions(pos, cell, batch), images.places)
        geometry = Geometry(distance, images.pairs)
    elif shift is None and has_kernels(pos) and is_symmetric(edge_index):
        pairs = edge_index[:, edge_index[0] < edge_index[1]]
        distance = _pair_distances(pos, pairs)
        geometry = Geometry(distance, pairs)
    else:
        distance = _distance(pos, edge_index, shift, cell, batch)
        geometry = Geometry(distance, edges=edge_index)
    if not torch.compiler.is_compiling() and bool((distance == 0).any()):
        rows = edge_index if geometry.pairs is None else geometry.pairs
        source, target = rows[:, distance == 0][:, 0].tolist()
        if not given:  # the search looks at differences of positions, and this at positions of images
            raise_coincident(source, target)
        raise ValueError(
            f"`edge_index` must not connect atoms at one point, got atoms {source} and {target} at "
            "distance 0; remove loops and duplicated atoms"
        )
    return geometry


def _find_pairs(pos: Tensor, batch: Tensor, cutoff: float | None, max_num_neighbors: int | None) -> Tensor:
    if max_num_neighbors is None and has_kernels(pos):
        pairs = find_pairs(pos, batch, cutoff)
        if pairs is not None:
            return pairs
    r = math.inf if cutoff is None else cutoff
    edge_index = radius_graph(pos, r, batch, max_num_neighbors=max_num_neighbors)
    return edge_index[:, edge_index[0] < edge_index[1]]


def _pair_distances(pos: Tensor, pairs: Tensor) -> Tensor:
    return pair_distances(pos, pairs) if has_kernels(pos) else _distance(pos, pairs)


def _distance(
    pos: Tensor,
    edge_index: Tensor,
    shift: Tensor | None = None,
    cell: Tensor | None = None,
    batch: Tensor | None = None,
) -> Tensor:
    source, target = edge_index
    vector = pos.index_select(0, source) - pos.index_select(0, target)  # (edges, 3)
    if shift is not None:
        if cell is None:
            raise ValueError("`cell` must be given, in Å, with `shift`; got None")
        assert batch is not None
        lattice = cell.view(-1, 3, 3).to(pos.dtype)
        lattice = lattice[batch[target]] if len(lattice) > 1 else lattice.expand(len(target), 3, 3)
        vector = vector + torch.einsum("ei,eij->ej", shift.to(pos.dtype), lattice)
    return vector.norm(dim=1)
