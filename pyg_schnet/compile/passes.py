"""Simplifications of a traced graph, and its division into forward and backward; for any backend."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from pyg_schnet.compile.trace import Trace

_aten = torch.ops.aten
EXTENTS = {_aten.sym_size.int, _aten.sym_numel.default}  # numbers, known before a program runs
VIEWS = {
    *(_aten.t.default, _aten.select.int, _aten.slice.Tensor, _aten.view.default, _aten.squeeze.dim),
    *(_aten.unsqueeze.default, _aten.expand.default),
}
_SHAREABLE = {_aten.t.default, _aten.select.int, _aten.slice.Tensor, _aten._to_copy.default} | EXTENTS
_SHAREABLE |= {operator.add, _aten.arange.default, _aten.searchsorted.Tensor}  # where molecules begin


def simplify(graph: Graph) -> None:
    """Simplify a graph in place; of its results, only the rounding of sums of products changes."""
    for node in list(graph.nodes):
        if node.target is _aten.detach.default or _is_neutral(node):
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    while _cancel_transposes(graph):
        graph.eliminate_dead_code()
    _fuse_sums_of_products(graph)
    _sum_into_rows(graph)
    _eliminate_common_views(graph)
    graph.eliminate_dead_code()


def _insert(graph: Graph, before: Node, target: Any, arguments: tuple, value: Any) -> Node:
    """Insert an operation whose result has the shape and type of ``value``."""
    with graph.inserting_before(before):
        node = graph.call_function(target, arguments)
    node.meta["val"] = value
    return node


def _sum_into_rows(graph: Graph) -> None:
    """Sum over atoms, for gradients of biases, without keeping a dimension that a view then removes."""
    for node in list(graph.nodes):
        if node.target is _aten.view.default and len(node.args[1]) == 1:
            total = node.args[0]
            if total.target is _aten.sum.dim_IntList and total.args[1:] == ([0], True):
                arguments = (total.args[0], [0], False)
                row = _insert(graph, node, _aten.sum.dim_IntList, arguments, node.meta["val"])
                node.replace_all_uses_with(row)


def _eliminate_common_views(graph: Graph) -> None:
    """Compute views, extents and conversions of one tensor once, and where molecules begin."""
    known: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _SHAREABLE:
            first = known.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)


def _is_neutral(node: Node) -> bool:
    neutral = {_aten.mul.Tensor: 1.0, _aten.add.Tensor: 0.0}.get(node.target)  # pyright: ignore
    return neutral is not None and isinstance(node.args[1], float) and node.args[1] == neutral


def _cancel_transposes(graph: Graph) -> bool:
    """Replace (Aᵀ)ᵀ by A and Aᵀ + Bᵀ by (A + B)ᵀ; return whether there was any."""
    changed = False
    for node in list(graph.nodes):
        if _is_transpose(node) and _is_transpose(node.args[0]):
            node.replace_all_uses_with(node.args[0].args[0])
            changed = True
        elif node.target is _aten.add.Tensor and all(map(_is_transpose, node.args)) and not node.kwargs:
            inner = [part.args[0] for part in node.args]
            total = _insert(graph, node, _aten.add.Tensor, tuple(inner), inner[0].meta["val"])
            node.replace_all_uses_with(_insert(graph, node, _aten.t.default, (total,), node.meta["val"]))
            changed = True
    return changed


def _is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and node.target is _aten.t.default


def _fuse_sums_of_products(graph: Graph) -> None:
    """Replace X + A B by one ``addmm``."""
    for node in list(graph.nodes):
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        for other, product in (node.args, node.args[::-1]):
            if _is_product(product) and isinstance(other, Node):
                arguments = (other, *product.args)
                fused = _insert(graph, node, _aten.addmm.default, arguments, node.meta["val"])
                node.replace_all_uses_with(fused)
                graph.erase_node(node)
                break


def _is_product(node: Any) -> bool:
    return isinstance(node, Node) and node.target is _aten.mm.default and len(node.users) == 1


@dataclass(frozen=True)
class Split:
    """Operations of a graph, divided into forward and backward.

    Attributes:
        forward: Operations on which the results depend, in order.
        backward: Operations on which only gradients of weights depend, in order.
        saved: Values of forward, arguments included, that backward reads.
    """

    forward: list[Node]
    backward: list[Node]
    saved: list[Node]


def split(trace: Trace) -> Split:
    """Divide a graph into what precedes the gradients of its results, and what follows from them."""
    body = [node for node in trace.graph.nodes if node.op == "call_function"]
    after = set(trace.cotangents)
    for node in body:
        if any(used in after for used in node.all_input_nodes):
            after.add(node)
    forward = _needed([node for node in body if node not in after], trace.results)
    computed = {node for node in forward if node.target not in EXTENTS}
    backward = _needed([node for node in body if node not in computed], trace.gradients)
    known = {*trace.weights, *trace.inputs.values(), *computed}
    saved = dict.fromkeys(used for node in backward for used in node.all_input_nodes if used in known)
    return Split(forward, backward, list(saved))


def _needed(nodes: list[Node], results: Sequence[Node | None]) -> list[Node]:
    """Return the nodes on which results depend."""
    wanted = {node for node in results if node is not None}
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    return [node for node in nodes if node in wanted]
