"""Sparse adjacency matrices, which PyG's convolutions take in place of edge indices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.index import ptr2index
from torch_geometric.typing import Adj


def edges_of(adj_t: Adj, flow: str) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
    """List the entries of a transposed adjacency matrix, in the order in which it holds them.

    Nothing is sorted or added up: an entry that is there twice is two edges.

    Args:
        adj_t: ``(targets, sources)``, a ``torch.sparse`` tensor in COO, CSR or CSC layout, or torch_sparse's.
        flow: Of the layer, which must be PyG's usual one.

    Returns:
        Edge indices ``(2, edges)``, row 0 the sources; values ``(edges, ...)``, or ``None`` if the matrix has
        none; numbers of sources and targets.

    Raises:
        ValueError: For another flow; and if values need a gradient that torch does not pass on.
    """
    if flow != "source_to_target":
        raise ValueError(
            f"an adjacency matrix needs the flow 'source_to_target', got {flow!r}; keep that flow and "
            "transpose the matrix"
        )
    size = (adj_t.size(1), adj_t.size(0))
    if not isinstance(adj_t, Tensor):  # torch_sparse's
        row, col, values = adj_t.coo()
    elif adj_t.layout == torch.sparse_coo:
        (row, col), values = adj_t._indices(), adj_t._values()
        if adj_t.requires_grad:
            if not adj_t.is_coalesced():
                raise ValueError(
                    "an adjacency matrix whose values need a gradient must be coalesced, got one that is "
                    "not; pass adj_t.coalesce()"
                )
            values = adj_t.values()
    elif adj_t.layout == torch.sparse_csr:
        col, values = adj_t.col_indices(), adj_t.values()
        row = ptr2index(adj_t.crow_indices(), output_size=len(col))
    else:
        assert adj_t.layout == torch.sparse_csc
        row, values = adj_t.row_indices(), adj_t.values()
        col = ptr2index(adj_t.ccol_indices(), output_size=len(row))
    return torch.stack([col, row]).long(), values, size
