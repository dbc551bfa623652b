"""Programs of PyTorch's compiler Inductor, which fuses operations: Triton code on GPUs, C++ on CPUs.

Inductor compiles the traced graph with the trace's own symbolic sizes, through ``compile_fx_inner``: of the
entry points of torch 2.6 to 2.13, it alone accepts a graph with symbolic sizes unchanged. Convolutions,
distances and sums of segments stay operations of this package; all others are fused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import TracingContext, tracing
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from pyg_schnet.compile.passes import Split
from pyg_schnet.compile.python_backend import PythonProgram
from pyg_schnet.compile.trace import Trace, Unsupported, check_generality

_aten, _own = torch.ops.aten, torch.ops.pyg_schnet


def _ssp(x: Tensor) -> Tensor:
    return x.clamp(min=0) + (-x.abs()).exp().log1p() - math.log(2.0)


def _ssp_backward(g: Tensor, x: Tensor) -> Tensor:
    return g * x.sigmoid()


def _ssp_double_backward(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    slope = x.sigmoid()
    return a * slope, a * g * slope * (1 - slope)


def _correlate_rows(values: Tensor, weights: Sequence[float], transpose: bool) -> Tensor:
    reach = len(weights) - 1
    if transpose:
        zeros = values.new_zeros(reach, values.size(1))
        values, weights = torch.cat([zeros, values, zeros]), weights[::-1]
    rows = values.size(0) - reach
    parts = [weight * values.narrow(0, k, rows) for k, weight in enumerate(weights)]
    return sum(parts[1:], parts[0])


_PLAIN = {
    _own.ssp.default: _ssp,
    _own.ssp_backward.default: _ssp_backward,
    _own.ssp_double_backward.default: _ssp_double_backward,
    _own.correlate_rows.default: _correlate_rows,
}


class InductorProgram(PythonProgram):
    """A traced graph as two functions compiled by Inductor, for batches of any size.

    Args:
        trace: A simplified trace.
        split: Its operations.

    Raises:
        Unsupported: If Inductor fails.
    """

    def __init__(self, trace: Trace, split: Split):
        super().__init__(trace, _with_sizes(trace, split), inductor_function)


def _with_sizes(trace: Trace, split: Split) -> Split:
    """Return the split with all symbolic sizes saved, of which shapes of saved tensors are expressions."""
    if not trace.cotangents:
        return split
    values = {node: node.meta["val"] for node in trace.inputs.values()}
    numbers = [node for node, value in values.items() if not isinstance(value, Tensor)]
    known = {values[node].node.expr for node in numbers}
    computed = []
    for node, value in values.items():
        for dimension, size in enumerate(value.shape if isinstance(value, Tensor) else ()):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol and size.node.expr not in known:
                known.add(size.node.expr)
                with trace.graph.inserting_after(next(reversed(values))):
                    computed.append(trace.graph.call_function(_aten.sym_size.int, (node, dimension)))
                computed[-1].meta["val"] = size
    saved = dict.fromkeys([*split.saved, *numbers, *computed])
    return replace(split, forward=[*computed, *split.forward], saved=list(saved))


def inductor_function(
    nodes: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node | None]
) -> Callable[..., list[Any]]:
    """Compile nodes by Inductor; the arguments are those of :func:`python_function`.

    Raises:
        Unsupported: If Inductor fails.
    """
    known = set(inputs)
    computed = list(dict.fromkeys(n for n in outputs if n is not None and n not in known))
    try:
        run = _compile(nodes, inputs, computed)
    except Exception as error:  # of any kind: a missing compiler, or an error in Inductor
        line = str(error).strip().split("\n")[0]
        raise Unsupported(f"Inductor failed: {type(error).__name__}: {line}") from error
    taken = [(k, n.meta["val"]) for k, n in enumerate(inputs)]
    dense = [k for k, value in taken if isinstance(value, Tensor) and value.is_contiguous()]
    # Of each result, its place among the arguments or, counted after these, among what is computed.
    place: dict[Node | None, int | None] = {node: k for k, node in enumerate([*inputs, *computed])}
    places = [place.get(node) for node in outputs]

    def call(*arguments: Any) -> list[Any]:
        values = list(arguments)
        for k in dense:
            values[k] = values[k].contiguous()
        found = [*values, *run(values.copy())]  # which empties its list
        return [None if k is None else found[k] for k in places]

    return call


def _compile(
    nodes: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node]
) -> Callable[[list[Any]], Sequence[Any]]:
    """Compile nodes to a function of a list of arguments."""
    graph, copies = Graph(), {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    examples = [node.meta["val"] for node in inputs]
    mode = next(value.fake_mode for value in examples if isinstance(value, FakeTensor))
    table = {**select_decomp_table(), **_PLAIN}
    with mode, torch.no_grad():
        module = make_fx(GraphModule(nn.Module(), graph), table, _allow_non_fake_inputs=True)(*examples)
    results = next(iter(reversed(module.graph.nodes)))
    results.meta["user_visible_output_idxs"] = range(len(outputs))  # which have the strides of the trace
    results.meta["original_output_strides"] = [_strides(node.meta["val"]) for node in outputs]
    with tracing(TracingContext(mode)), config.patch({"triton.cudagraphs": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TensorFloat32", UserWarning)  # products keep float32 unless asked
        run = compile_fx_inner(module, examples)
    if mode.shape_env is not None:
        check_generality(mode.shape_env, {})
    return run


def _strides(value: Any) -> tuple | None:
    return value.stride() if isinstance(value, Tensor) else None
