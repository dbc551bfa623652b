"""Sums in a fixed order, in place of those that GPUs compute by atomic operations."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from pyg_schnet.compile.trace import Trace

_aten, _own = torch.ops.aten, torch.ops.pyg_schnet


def order_sums(trace: Trace) -> None:
    """Replace sums by molecule and by element, in place, by operations without atomics.

    Sums by molecule become sums of segments, because atoms are sorted by molecule; the gradient of the
    embedding becomes a product with a matrix of zeros and ones.
    """
    batch, molecules = trace.inputs["batch"], trace.inputs["molecules"]
    rowptr = None
    for node in list(trace.graph.nodes):
        if node.target is _aten.index_add.default and node.args[1:3] == (0, batch):
            insert = _Inserter(node)
            if rowptr is None:
                end = insert(operator.add, molecules, 1)
                rows = insert(_aten.arange.default, end, dtype=torch.long, device=batch.meta["val"].device)
                rowptr = insert(_aten.searchsorted.Tensor, batch, rows, out_int32=True)
            total = insert(_own.segment_sum.default, node.args[3], rowptr, [])
            node.replace_all_uses_with(_sum(insert, node.args[0], total))
        elif node.target is _aten.embedding_dense_backward.default and not node.args[4]:
            node.replace_all_uses_with(_embedding_gradient(_Inserter(node), *node.args[:4]))
    trace.graph.eliminate_dead_code()


class _Inserter:
    """Inserts operations before a node, and evaluates their shapes."""

    def __init__(self, before: Node):
        self._before = before

    def __call__(self, target: Any, *arguments: Any, **options: Any) -> Node:
        with self._before.graph.inserting_before(self._before):
            node = self._before.graph.call_function(target, arguments, options)
        value = self._before.meta["val"]
        with value.fake_mode:
            node.meta["val"] = target(*map_arg(arguments, _value_of), **options)
        return node


def _value_of(node: Node) -> Any:
    return node.meta["val"]


def _sum(insert: _Inserter, base: Any, total: Node) -> Node:
    return total if base.target is _aten.new_zeros.default else insert(_aten.add.Tensor, base, total)


def _embedding_gradient(insert: _Inserter, gradient: Any, index: Any, rows: Any, padding: Any) -> Node:
    """Sum gradients, ``(atoms, channels)``, by element; the row ``padding`` gets none."""
    like = gradient.meta["val"]
    row = insert(_aten.arange.default, rows, dtype=torch.long, device=like.device)
    if padding >= 0:
        is_padding = insert(_aten.eq.Scalar, row, padding)
        row = insert(_aten.masked_fill.Scalar, row, is_padding, -1)  # which is no index
    column = insert(_aten.unsqueeze.default, row, 1)
    is_own = insert(_aten.eq.Tensor, column, index)  # (rows, atoms)
    ones = insert(_aten._to_copy.default, is_own, dtype=like.dtype)
    return insert(_aten.mm.default, ones, gradient)
