"""Programs in Python: the operations of a traced graph, one a line."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.inputs import Inputs
from pyg_schnet.compile.passes import Split
from pyg_schnet.compile.trace import Trace
from pyg_schnet.kernels import IMPLEMENTATIONS, on_accelerator

_aten = torch.ops.aten


def python_function(
    nodes: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node | None], direct: bool = True
) -> Callable:
    """Compile nodes to a Python function.

    Args:
        nodes: Operations, in order of execution.
        inputs: Arguments of the function.
        outputs: Results of the function, a tuple.
        direct: Whether to call our operations for CPUs without torch's dispatcher.

    Returns:
        The function; ``function.source`` is its text.
    """
    writer = _Writer(direct)
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
    """Lines of a function, and the objects that their names refer to."""

    def __init__(self, direct: bool):
        self._implementations = IMPLEMENTATIONS if direct else {}
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
        """Return a name for an operation, called without torch's wrapper, and ours without its dispatcher."""
        if target not in self._operations:
            words = re.findall(r"\w+", getattr(target, "__name__", ""))
            name = f"OP{len(self._operations)}_{words[0] if words else ''}"
            self._operations[target] = name
            own = target._op if isinstance(target, torch._ops.OpOverload) else target
            self.names[name] = self._implementations.get(target, own)
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


def _is_on_cpu(trace: Trace) -> bool:
    return not on_accelerator(trace.weights[0].meta["val"])


class PythonProgram:
    """A traced graph as two Python functions, which torch executes: the reference of other backends.

    Args:
        trace: A simplified trace.
        split: Its operations.
        compile_function: Compiles nodes to a function, as :func:`python_function`.

    Attributes:
        forward_function: Takes weights, tables and inputs; returns the results, then what backward reads.
        backward_function: Takes what forward saved and the gradients of its results.
    """

    def __init__(self, trace: Trace, split: Split, compile_function: Callable[..., Callable] | None = None):
        compile_function = compile_function or partial(python_function, direct=_is_on_cpu(trace))
        self._results, saved = len(trace.results), split.saved if trace.cotangents else []
        arguments = [*trace.weights, *trace.inputs.values()]
        self.forward_function = compile_function(split.forward, arguments, [*trace.results, *saved])
        self.backward_function = None
        if trace.cotangents:
            given = [*saved, *trace.cotangents]
            self.backward_function = compile_function(split.backward, given, trace.gradients)

    def bind(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the weights as they are."""
        return weights

    def forward(
        self, bound: list[Tensor], inputs: Inputs, keep: bool
    ) -> tuple[list[Tensor], list[Tensor], Any]:
        """Compute energy and forces; see :class:`~pyg_schnet.compile.program.Program`."""
        with torch.no_grad():
            values = list(self.forward_function(*bound, *inputs.values()))
        results, saved = values[: self._results], values[self._results :]
        numbers = [(k, value) for k, value in enumerate(saved) if not isinstance(value, Tensor)]
        return results, [value for value in saved if isinstance(value, Tensor)], numbers

    def backward(self, state: Any, saved: list[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute the gradients of the weights from those of the results."""
        assert self.backward_function is not None
        values: list[Any] = list(saved)
        for position, number in state:
            values.insert(position, number)
        return list(self.backward_function(*values, *gradients))
