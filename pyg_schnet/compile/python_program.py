"""Straight programs: the operations of a traced graph, one a line, as a Python function."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from pyg_schnet.compile.operation import EXTENTS
from pyg_schnet.kernels import DIRECT

_aten = torch.ops.aten
_VIEWS = {_aten.t.default, _aten.select.int, _aten.slice.Tensor, _aten._to_copy.default} | EXTENTS


def simplify(graph: Graph) -> None:
    """Remove what autograd leaves behind; of numbers, only the last digits of sums of products change."""
    for node in list(graph.nodes):
        if node.target is _aten.detach.default or _is_neutral(node):
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    while _cancel_transposes(graph):
        graph.eliminate_dead_code()
    _fuse_sums_of_products(graph)
    _sum_into_rows(graph)
    _share(graph)
    graph.eliminate_dead_code()


def _insert(graph: Graph, before: Node, target: Any, arguments: tuple, value: Any) -> Node:
    """Add an operation whose result is like a value of the trace."""
    with graph.inserting_before(before):
        node = graph.call_function(target, arguments)
    node.meta["val"] = value
    return node


def _sum_into_rows(graph: Graph) -> None:
    """Let sums over atoms, the gradients of biases, drop the dimension that a view would."""
    for node in list(graph.nodes):
        if node.target is _aten.view.default and len(node.args[1]) == 1:
            total = node.args[0]
            if total.target is _aten.sum.dim_IntList and total.args[1:] == ([0], True):
                arguments = (total.args[0], [0], False)
                row = _insert(graph, node, _aten.sum.dim_IntList, arguments, node.meta["val"])
                node.replace_all_uses_with(row)


def _share(graph: Graph) -> None:
    """Compute once what is computed twice from the same."""
    known: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _VIEWS:
            first = known.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)


def _is_neutral(node: Node) -> bool:
    neutral = {_aten.mul.Tensor: 1.0, _aten.add.Tensor: 0.0}.get(node.target)  # pyright: ignore
    return neutral is not None and isinstance(node.args[1], float) and node.args[1] == neutral


def _cancel_transposes(graph: Graph) -> bool:
    """Turn (Aᵀ)ᵀ into A and Aᵀ + Bᵀ into (A + B)ᵀ, of which the next round cancels more."""
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
    """Turn X + A B into one matrix operation."""
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


def program(nodes: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node | None]) -> Callable:
    """Write nodes as a function.

    Args:
        nodes: In an order in which they can be computed.
        inputs: The function's arguments.
        outputs: What it returns, a tuple.

    Returns:
        The function; ``function.source`` is its text.
    """
    writer = _Writer()
    last = {used: node for node in nodes for used in node.all_input_nodes}
    kept = {*inputs, *outputs}
    for node in nodes:
        writer.write(node)
        done = [used.name for used in node.all_input_nodes if last[used] is node and used not in kept]
        if done:
            writer.lines.append(f"del {', '.join(done)}")
    results = ", ".join("None" if node is None else node.name for node in outputs)
    lines = [*writer.lines, f"return ({results},)"]
    source = f"def run({', '.join(node.name for node in inputs)}):\n    " + "\n    ".join(lines)
    exec(compile(source, "<pyg_schnet program>", "exec"), writer.names)
    function = writer.names["run"]
    function.source = source
    return function


class _Writer:
    """Lines of a function, and what their names mean."""

    def __init__(self):
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._operations: dict[Any, str] = {}

    def write(self, node: Node) -> None:
        assert node.op == "call_function"  # a traced graph has nothing else
        arguments = [self._text(value) for value in node.args]
        if node.target is operator.getitem:
            value = f"{arguments[0]}[{arguments[1]}]"
        elif node.target is _aten.sym_size.int:
            value = f"{arguments[0]}.shape[{arguments[1]}]"
        elif node.target is _aten.sym_numel.default:  # torch 2.6
            value = f"{arguments[0]}.numel()"
        else:
            arguments += [f"{name}={self._text(value)}" for name, value in node.kwargs.items()]
            value = f"{self._operation(node.target)}({', '.join(arguments)})"
        self.lines.append(f"{node.name} = {value}")

    def _operation(self, target: Any) -> str:
        """Name an operation: ours without torch's dispatcher, torch's without its Python wrapper."""
        if target not in self._operations:
            words = re.findall(r"\w+", getattr(target, "__name__", ""))
            name = f"OP{len(self._operations)}_{words[0] if words else ''}"
            self._operations[target] = name
            own = target._op if isinstance(target, torch._ops.OpOverload) else target
            self.names[name] = DIRECT.get(target, own)
        return self._operations[target]

    def _text(self, value: Any) -> str:
        if isinstance(value, Node):
            return value.name
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._text, value))}]"
        if value is None or isinstance(value, int | float | str):
            return repr(value)
        name = f"CONSTANT{len(self.names)}"
        self.names[name] = value
        return name
