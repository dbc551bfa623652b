"""Calls of the runtime's operations, in C, for the operations of a traced graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.c_values import Value, c_text
from pyg_schnet.compile.trace import Unsupported

_aten, _own = torch.ops.aten, torch.ops.pyg_schnet
_ARITHMETIC = {_aten.add.Tensor: "add", _aten.mul.Tensor: "mul", _aten.div.Tensor: "div"}
_IN_DOUBLE = {  # OPERATIONS in runtime.h
    *("scale", "shift", "clamp_min", "neg", "fill", "add", "mul", "div", "index_select", "index_add"),
    *("distances", "distances_backward", "distances_double_backward"),
}
_LIKE = {_aten.new_zeros.default: 0.0, _aten.zeros_like.default: 0.0, _aten.ones_like.default: 1.0}


def wanted_results(node: Node) -> tuple[bool, ...]:
    """Return which of an operation's results are computed."""
    arguments: Any = node.args
    if node.target is _own.convolve_backward.default:
        return (True, *arguments[-2:])
    if node.target is _own.convolve_double_backward.default:
        return (True, True, True, arguments[-1])
    if node.target is _own.distances_double_backward.default:
        return (True, arguments[-1])
    found = node.meta["val"]
    return (True,) if isinstance(found, Tensor) else (True,) * len(found)


def call_of(node: Node, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> list[str]:
    """Write an operation as C statements.

    Args:
        node: A call in a traced graph, which is no view.
        inputs: Values of its tensors.
        outputs: Values of its results, ``None`` for one that is not wanted.

    Raises:
        Unsupported: If the runtime lacks the operation.
    """
    if node.target not in (_aten.mm.default, _aten.addmm.default):
        for value in inputs:
            if not value.is_contiguous:
                raise Unsupported(f"{_name(node)} of a view")
    write = _WRITERS.get(node.target)  # pyright: ignore
    if write is None:
        raise Unsupported(f"{node.target} of {[value.comment for value in inputs]}")
    return write(node, inputs, outputs)


def _name(node: Node) -> str:
    return str(node.target).split(".")[1]


def _unsupported(node: Node, inputs: Sequence[Value]) -> Unsupported:
    return Unsupported(f"{node.target}{tuple(value.comment for value in inputs)}")


def _call(function: str, out: Value, *arguments: Any) -> str:
    """Write a call, in the variant for the type of its result."""
    if out.type == "int64_t" or (out.type == "double" and function not in _IN_DOUBLE):
        raise Unsupported(f"{function} of {out.type}")
    suffix = "_double" if out.type == "double" else ""
    words = [a.name if isinstance(a, Value) else c_text(a) for a in (*arguments, out)]
    return f"rt->{function}{suffix}({', '.join(words)});"


def _checked(call: str) -> str:
    return f"TRY({call.removesuffix(';')});"


def _number(value: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        raise Unsupported(f"the number {number}")
    return repr(number)


def _matrix(value: Value) -> tuple[str, str, Any]:
    """Return a matrix product's arguments for one matrix."""
    if value.column_stride != 1 and value.columns != 1:
        return value.name, "'T'", value.column_stride
    return value.name, "'N'", value.row_stride


def _mm(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    *more, a, b = inputs
    (out,) = outputs
    if (a.columns, a.rows, b.columns) != (b.rows, out.rows, out.columns) or node.kwargs:
        raise _unsupported(node, inputs)
    shape = (a.rows, a.columns, b.columns)
    if not more:
        return [_call("mm", out, *shape, *_matrix(a), *_matrix(b))]
    (bias,) = more
    if not bias.is_contiguous or bias.columns != out.columns or bias.rows not in (1, out.rows):
        raise _unsupported(node, inputs)
    return [_call("addmm", out, bias, bias.rows, *shape, *_matrix(a), *_matrix(b))]


def _arithmetic(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (out,), name = outputs, _ARITHMETIC[node.target]  # pyright: ignore
    if node.kwargs:
        raise _unsupported(node, inputs)
    if len(inputs) == 1:
        if name == "div":
            raise _unsupported(node, inputs)
        return [
            _call({"add": "shift", "mul": "scale"}[name], out, inputs[0], _number(node.args[1]), out.count)
        ]
    shapes = [tuple(n.meta["val"].shape) for n in node.args[:2]]  # pyright: ignore
    first, second = inputs
    if first.type == second.type and (first.rows, first.columns) == (second.rows, second.columns):
        return [_call(name, out, first, second, out.count)]
    if name == "mul" and () in shapes:
        number, other = (first, second) if shapes[0] == () else (second, first)
        return [_call("scale", out, other, f"(double){number.name}[0]", out.count)]
    if name == "mul" and out.type == "real" and (second.rows, second.columns) == (first.rows, 1):
        return [_call("scale_rows", out, first, second, first.rows, first.columns)]
    raise _unsupported(node, inputs)


def _to_copy(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (value,), (out,) = inputs, outputs
    if value.type == out.type:
        return [f"memcpy({out.name}, {value.name}, {out.bytes});"]
    if {value.type, out.type} != {"real", "double"}:
        raise _unsupported(node, inputs)
    return [f"rt->to_{out.type}({value.name}, {c_text(out.count)}, {out.name});"]


def _fill(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (out,) = outputs
    return [_call("fill", out, _LIKE[node.target], out.count)]  # pyright: ignore


def _elementwise(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    """Write operations on numbers at the same places in all tensors."""
    return [_call(_name(node), outputs[-1], *inputs, inputs[0].count, *outputs[:-1])]


def _clamp(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    if len(node.args) != 2 or node.kwargs:
        raise _unsupported(node, inputs)
    (value,), (out,) = inputs, outputs
    return [_call("clamp_min", out, value, _number(node.args[1]), out.count)]


def _sum_rows(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (value,), (out,) = inputs, outputs
    if node.args[1] != [0] or len(node.args[0].meta["val"].shape) != 2 or value.type != "real":  # pyright: ignore
        raise _unsupported(node, inputs)
    return [_call("sum_rows", out, value, value.rows, value.columns)]


def _pad_rows(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    value, (out,) = inputs[0], outputs
    if node.args[2:4] != (0, 0) or node.args[5] != 1 or value.type != "real":
        raise _unsupported(node, inputs)
    return [_call("pad_rows", out, value, value.rows, value.columns, out.rows)]


def _index_select(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (value, index), (out,) = inputs, outputs
    if len(node.args[0].meta["val"].shape) != 1:  # pyright: ignore
        raise _unsupported(node, inputs)
    return [_checked(_call("index_select", out, value, value.count, index, out.count))]


def _index_add(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (value, index, added), (out,) = inputs, outputs
    if len(node.args[0].meta["val"].shape) != 1 or node.kwargs:  # pyright: ignore
        raise _unsupported(node, inputs)
    return [_checked(_call("index_add", out, value, value.count, index, added, added.count))]


def _embedding(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (weight, index), (out,) = inputs, outputs
    return [_checked(_call("embedding", out, weight, weight.rows, index, index.count, weight.columns))]


def _embedding_backward(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (gradient, index), (out,) = inputs, outputs
    if node.args[4]:  # scaled by frequency
        raise _unsupported(node, inputs)
    shape = (gradient.columns, node.args[3], out.rows)
    return [_checked(_call("embedding_backward", out, gradient, index, index.count, *shape))]


def _correlate_rows(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    (values,), (out,) = inputs, outputs
    weights, transpose = node.args[1:]
    numbers = ", ".join(map(_number, weights))  # pyright: ignore
    rows = out.rows if transpose else values.rows
    array = f"static const double {out.name}_weights[] = {{{numbers}}};"
    arguments = (f"{out.name}_weights", len(weights), rows, out.columns, int(bool(transpose)))  # pyright: ignore
    return [array, _call("correlate_rows", out, values, *arguments)]


def _convolve(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    *features, table, distance, first, second = inputs
    flags = {"convolve": 0, "convolve_backward": 2, "convolve_double_backward": 1}[_name(node)]
    spacing = node.args[len(node.args) - flags - 1]
    y = features[0 if len(features) == 1 else 1]
    if table.columns != y.columns:
        raise _unsupported(node, inputs)
    made = f"{outputs[0].name}_task"
    words = (
        table.name,
        table.rows,
        table.columns,
        distance.name,
        first.name,
        second.name,
        distance.rows,
        y.rows,
    )
    arguments = ", ".join(map(c_text, (*words, _number(spacing))))
    results = [value.name if value else "NULL" for value in outputs]
    call = ", ".join((f"&{made}", *(value.name for value in features), *results))
    return [
        f"const Convolution {made} = convolution(part, {arguments});",
        f"TRY(rt->{_name(node)}({call}));",
    ]


def _distances(node: Node, inputs: Sequence[Value], outputs: Sequence[Any]) -> list[str]:
    pos, first = inputs[-3:-1]
    sizes = [first.rows] if _name(node) == "distances" else [first.rows, pos.rows]
    out, *more = outputs
    call = _call(_name(node), out, *inputs, *sizes)
    if not more:
        return [call]
    return [call.removesuffix(");") + f", {more[0].name if more[0] else 'NULL'});"]


_WRITERS: dict[Any, Callable[[Node, Sequence[Value], Sequence[Any]], list[str]]] = {
    _aten.mm.default: _mm,
    _aten.addmm.default: _mm,
    _aten._to_copy.default: _to_copy,
    _aten.neg.default: _elementwise,
    _own.ssp.default: _elementwise,
    _own.ssp_backward.default: _elementwise,
    _own.ssp_double_backward.default: _elementwise,
    _aten.clamp.default: _clamp,
    _aten.sum.dim_IntList: _sum_rows,
    _aten.slice_backward.default: _pad_rows,
    _aten.index_select.default: _index_select,
    _aten.index_add.default: _index_add,
    _aten.embedding.default: _embedding,
    _aten.embedding_dense_backward.default: _embedding_backward,
    _own.correlate_rows.default: _correlate_rows,
    _own.convolve.default: _convolve,
    _own.convolve_backward.default: _convolve,
    _own.convolve_double_backward.default: _convolve,
    _own.distances.default: _distances,
    _own.distances_backward.default: _distances,
    _own.distances_double_backward.default: _distances,
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(_LIKE, _fill),
}
