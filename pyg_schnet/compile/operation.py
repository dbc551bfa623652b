"""What the machine of `tape.c` can do, and which operation of torch is which of its own."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

_aten, _own = torch.ops.aten, torch.ops.pyg_schnet

# In the order of the codes in tape.c.
_NAMES = """
mm addmm ssp ssp_backward ssp_double_backward correlate_rows embedding embedding_backward
convolve convolve_backward convolve_double_backward distances distances_backward
distances_double_backward to_copy scale shift multiply add negate index_select index_add zeros
ones sum_rows pad_rows scale_rows divide clamp
"""
EXTENTS = {_aten.sym_size.int, _aten.sym_numel.default}  # numbers, which are known before a program runs
CODES = {name: code for code, name in enumerate(_NAMES.split())}


class Unsupported(Exception):
    """A graph holds what tapes do not know."""


@dataclass(frozen=True)
class Operation:
    """An operation of the machine.

    Attributes:
        name: Among ``CODES``.
        inputs: Nodes of the tensors it reads.
        results: Which of its results are wanted.
        integer: Its number that is an integer.
        number: Its other number.
    """

    name: str
    inputs: list[Node]
    results: tuple[bool, ...] = (True,)
    integer: int = 0
    number: float = 0.0


VIEWS = {
    *(_aten.t.default, _aten.select.int, _aten.slice.Tensor, _aten.view.default, _aten.squeeze.dim),
    *(_aten.unsqueeze.default, _aten.expand.default),
}
_PLAIN = {  # operations that need nothing but tensors
    _aten.mm.default: "mm",
    _aten.addmm.default: "addmm",
    _aten.embedding.default: "embedding",
    _own.ssp.default: "ssp",
    _own.ssp_backward.default: "ssp_backward",
    _aten._to_copy.default: "to_copy",
    _aten.neg.default: "negate",
    _own.distances.default: "distances",
    _own.distances_backward.default: "distances_backward",
}


def translate(node: Node, real: torch.dtype) -> Operation:
    """Name the machine's operation for a node.

    Args:
        node: A call in a traced graph.
        real: Type of the network.

    Raises:
        Unsupported: If there is none.
    """
    target: Any = node.target
    arguments: list[Any] = list(node.args)
    nodes: list[Node] = [a for a in arguments if isinstance(a, Node) and isinstance(a.meta["val"], Tensor)]
    if target in _PLAIN and not node.kwargs.keys() - {"dtype", "layout", "device"}:
        return Operation(_PLAIN[target], nodes)
    if target is _own.ssp_double_backward.default:
        return Operation("ssp_double_backward", nodes, (True, True))
    if target is _own.correlate_rows.default:
        return Operation("correlate_rows", nodes, integer=2 * len(arguments[1]) + int(arguments[2]))
    if target is _own.convolve.default:
        return Operation("convolve", nodes, number=arguments[-1])
    if target is _own.convolve_backward.default:
        return Operation("convolve_backward", nodes, (True, *arguments[-2:]), number=arguments[-3])
    if target is _own.convolve_double_backward.default:
        wanted = (True, True, True, arguments[-1])
        return Operation("convolve_double_backward", nodes, wanted, number=arguments[-2])
    if target is _own.distances_double_backward.default and not arguments[-1]:
        return Operation("distances_double_backward", nodes, (True, False))
    if target is _aten.embedding_dense_backward.default and not arguments[4]:
        return Operation("embedding_backward", nodes, integer=arguments[3])
    if target is _aten.index_select.default and nodes[0].meta["val"].dim() == 1:
        return Operation("index_select", nodes)
    if target is _aten.index_add.default and nodes[0].meta["val"].dim() == 1 and not node.kwargs:
        return Operation("index_add", nodes)
    if target in (_aten.new_zeros.default, _aten.zeros_like.default):
        return Operation("zeros", [])
    if target is _aten.ones_like.default:
        return Operation("ones", [])
    if target is _aten.sum.dim_IntList and arguments[1] == [0]:
        summed = nodes[0].meta["val"]
        if summed.dim() == 2 and summed.dtype == real:
            return Operation("sum_rows", nodes)
    if target is _aten.slice_backward.default and arguments[2:4] == [0, 0] and arguments[5] == 1:
        return Operation("pad_rows", nodes[:1])
    if target is _aten.clamp.default and len(arguments) == 2 and not node.kwargs:
        return Operation("clamp", nodes, number=float(arguments[1]))
    if target is _aten.div.Tensor and len(nodes) == 2 and not node.kwargs and _alike(nodes):
        return Operation("divide", nodes)
    if target in (_aten.mul.Tensor, _aten.add.Tensor) and not node.kwargs:
        return _of_two(node, nodes)
    raise Unsupported(f"{target} of {[tuple(n.meta['val'].shape) for n in nodes]}")


def _alike(nodes: list[Node]) -> bool:
    """Whether two tensors have the same shape and type."""
    first, second = (node.meta["val"] for node in nodes)
    return first.shape == second.shape and first.dtype == second.dtype


def _of_two(node: Node, nodes: list[Node]) -> Operation:
    product = node.target is _aten.mul.Tensor
    shape = node.meta["val"].shape
    if len(nodes) == 1:
        return Operation("scale" if product else "shift", nodes, number=float(node.args[1]))  # pyright: ignore
    shapes = [n.meta["val"].shape for n in nodes]
    if _alike(nodes):
        return Operation("multiply" if product else "add", nodes)
    if product and () in [tuple(s) for s in shapes]:
        return Operation("scale", nodes if len(shapes[1]) == 0 else nodes[::-1])
    column = (*shape[:1], 1)
    if product and tuple(shapes[1]) == column and shapes[0] == shape:
        return Operation("scale_rows", nodes)
    raise Unsupported(f"{node.target} of {shapes}")


def root(node: Node) -> Node:
    """Find the node whose memory a view shows."""
    while node.op == "call_function" and (node.target in VIEWS or node.target is operator.getitem):
        node = node.args[0]  # pyright: ignore
    return node
