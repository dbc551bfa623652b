"""Inputs of the convolution: adjacency matrices in place of edge indices, and checks."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor, nn
from torch_geometric.index import ptr2index
from torch_geometric.typing import Adj


def edges_of(adj_t: Adj, flow: str) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
    """Return the entries of a transposed adjacency matrix, in the order in which it holds them.

    Nothing is sorted or summed: an entry that occurs twice is two edges.

    Args:
        adj_t: ``(targets, sources)``, a ``torch.sparse`` tensor in COO, CSR or CSC layout, or torch_sparse's.
        flow: Message direction; must be ``source_to_target``.

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


def check_decomposed_layers(decomposed_layers: int) -> None:
    """Raise ValueError unless PyG's ``decomposed_layers`` is 1."""
    if decomposed_layers != 1:
        raise ValueError(
            f"`decomposed_layers` must be 1, got {decomposed_layers}; PyG would cut the channels of nodes, "
            "but not those of filters"
        )


def check_shapes(
    x: Tensor, edge_index: Tensor, filters: Tensor, edge_weight: Tensor | None, pair: Tensor | None
) -> None:
    """Raise ValueError for shapes that would broadcast silently over rows or channels."""
    edges, rows, channels = edge_index.size(-1), filters.size(0), filters.size(-1)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            "`edge_index` must have shape (2, edges) or be a sparse COO, CSR or CSC matrix, got "
            f"{tuple(edge_index.shape)}"
        )
    if filters.dim() != 2:
        raise ValueError(
            f"`filter_network` must return (edges, channels), got {tuple(filters.shape)} of `edge_attr` "
            "with as many rows; flatten the features of an edge, or unsqueeze a single number"
        )
    if x.dim() < 2:
        raise ValueError(f"`x` must have shape (nodes, {channels}), got {tuple(x.shape)}")
    if x.size(-1) != channels:
        raise ValueError(
            f"`x` must have {channels} channels, as many as `filter_network` returns, got "
            f"{x.size(-1)}; put torch.nn.Linear({x.size(-1)}, {channels}) before the convolution"
        )
    if pair is None and rows != edges:
        raise ValueError(
            f"`edge_attr` must have one row for each of the {edges} edges, got {rows}; if edges share rows, "
            "pass `pair`"
        )
    if pair is not None and pair.size(0) != edges:
        raise ValueError(f"`pair` must have one number for each of the {edges} edges, got {pair.size(0)}")
    if edge_weight is not None and edge_weight.shape != filters.shape[:1]:
        raise ValueError(
            f"`edge_weight` must have shape ({rows},), as many as `edge_attr` has rows, got "
            f"{tuple(edge_weight.shape)}"
        )


def raise_missing(x: Tensor | None, edge_attr: Tensor | None) -> NoReturn:
    """Raise ValueError for features of nodes or edges that are missing."""
    if x is None:
        raise ValueError("`x` must hold features of the sources, got None; those of the targets may be None")
    raise ValueError(
        "`edge_attr` must be given, the features on which the filters depend, got None; only an adjacency "
        "matrix with values, which are the features then, does without"
    )


def raise_unscriptable(layer: nn.Module) -> NoReturn:
    """Raise TypeError when TorchScript compiles the layer, or a model that contains it."""
    raise TypeError(
        f"{type(layer).__name__} cannot be compiled by torch.jit.script, which knows no unions of adjacency "
        "types and no shapes in signatures; use torch.compile(model)"
    )
