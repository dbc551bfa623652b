"""The geometry that SchNet sees: edges and their lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_schnet.molecules import check_edges, check_positions
from pyg_schnet.neighbors import neighbor_list, radius_graph, undirected_pairs


class Geometry(NamedTuple):
    """Edges and their distances: one a row of `distance`, or a pair where `pair` maps edges to rows."""

    edge_index: Tensor
    distance: Tensor
    pair: Tensor | None = None


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
    share one row where the edges are found here, without periodicity.
    """
    periodic = pbc is not None and bool(torch.as_tensor(pbc).any())
    if periodic and cutoff is None:
        raise ValueError(
            "`pbc` must be false for a SchNet without cutoff, which connects all pairs of a molecule; "
            "use SchNet(cutoff=...)"
        )
    r = math.inf if cutoff is None else cutoff
    if edge_index is None and not periodic:
        edge_index = radius_graph(pos, r, batch, max_num_neighbors=max_num_neighbors)
        first, pair = undirected_pairs(edge_index)
        return Geometry(edge_index, _distance(pos, edge_index.index_select(1, first)), pair)
    if edge_index is None:
        edge_index, shift = neighbor_list(pos, r, batch, cell, pbc)
    else:
        if periodic and shift is None:
            raise ValueError(
                "`shift` must be given with `edge_index` where `pbc` is true; neighbor_list makes both"
            )
        if not torch.compiler.is_compiling():
            check_positions(pos, batch)
            check_edges(edge_index, batch)
    distance = _distance(pos, edge_index, shift, cell, batch)
    if not torch.compiler.is_compiling() and bool((distance == 0).any()):
        source, target = edge_index[:, distance == 0][:, 0].tolist()
        raise ValueError(
            f"`edge_index` must not connect atoms at one point, got atoms {source} and {target} at "
            "distance 0; remove loops and duplicated atoms"
        )
    return Geometry(edge_index, distance)


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
