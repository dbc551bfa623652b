"""A C program from a traced graph: one function for each step, one call for each operation."""

from __future__ import annotations

import operator
import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.c_operations import call_of, wanted_results
from pyg_schnet.compile.c_values import Extent, Types, Value, c_text, is_view
from pyg_schnet.compile.partition import base_of, last_uses, partition
from pyg_schnet.compile.passes import Split
from pyg_schnet.compile.trace import Trace, Unsupported

_WIDTH = 110
_DIVIDED = (
    "atoms",
    "sites",
    "molecules",
)  # extents along which tensors are divided among the parts of a batch
_SIZES = ("atoms", "sites", "pairs", "molecules", "knots", "gaussians")
_NUMBERED = ("batch", "pair_index", "site_pairs")  # tensors that the runtime numbers anew for each part
_RESERVED = {*_SIZES, "rt", "part", "size", "bytes", "is_first", "real", "double", "float", "int", "long"}
_HEADER = """\
/* {title}
 *
 * Generated from a trace by pyg_schnet.compile; the operations are in runtime.c. Comments hold shapes.
 * `own` buffers belong to one part of a batch, `shared` ones to all.
 */
#include "runtime.h"
"""


def arguments_of(trace: Trace) -> list[Node]:
    """Return a program's tensors in order: weights, tables, inputs, gradients of results."""
    arguments = [*trace.weights, *trace.inputs.values(), *trace.cotangents]
    return [node for node in arguments if isinstance(node.meta["val"], Tensor)]


def c_source(trace: Trace, split: Split, title: str) -> str:
    """Write a traced graph as a C program for ``runtime.c``.

    Args:
        trace: A simplified trace.
        split: Its operations.
        title: What is computed, for the head of the program.

    Raises:
        Unsupported: If the runtime lacks an operation.
    """
    return _HEADER.format(title=title) + "\n" + _Program(trace, split).text()


class _Function:
    """A C function while its body is written."""

    def __init__(self, head: str, sizes: str = "part->size."):
        self.head, self.sizes = head, sizes
        self.lines: list[str] = []
        self.declared: set[str] = set()

    def text(self, result: str | None = "0") -> str:
        used = [
            name for name in _SIZES if any(re.search(rf"(?<![\w.>]){name}\b", line) for line in self.lines)
        ]
        sizes = ", ".join(f"{name} = {self.sizes}{name}" for name in used)
        lines = [f"const int64_t {sizes};"] if used else []
        lines += [*self.lines, *([f"return {result};"] if result else [])]
        body = [part for line in lines for part in _wrapped(line)]
        return "\n    ".join([f"static {self.head} {{", *body]) + "\n}\n"


def _wrapped(line: str) -> list[str]:
    """Divide a long line at spaces, of which comments keep theirs."""
    if len(line) <= _WIDTH:
        return [line]
    code, separator, comment = line.partition(" /*")
    lines = textwrap.wrap(code, _WIDTH, subsequent_indent="    ", break_long_words=False)
    return [*lines[:-1], lines[-1] + separator + comment]


class _Program:
    """The functions, buffers and arguments of a program."""

    def __init__(self, trace: Trace, split: Split):
        self._trace, self._types = trace, Types(trace.dtype, trace.sizes)
        self._values: dict[Any, Value] = {}  # of a node, or of (a node, the number of its result)
        self._declarations: dict[str, tuple[str, str | None]] = {}  # of a name, and the name that it needs
        self._buffers: dict[str, list[tuple[Extent, Extent, str]]] = {"own": [], "shared": []}
        self._free: dict[tuple[Extent, Extent, str], list[int]] = {}
        self._sums: dict[str, tuple[Value, Value]] = {}  # of a part's value: it, and the sum over the parts
        self._sliced: list[
            tuple[int, str]
        ] = []  # an argument's position, and the bytes that a view of it reads
        self._function = _Function("")
        self._arguments = arguments_of(trace)
        for position, node in enumerate(self._arguments):
            self._add_argument(node, position)
        names = {name: trace.inputs[name] for name in _NUMBERED if name in trace.inputs}
        divided = {node for node in self._arguments if self._divided(node)} | set(names.values())
        self._partition = partition(
            split, divided, lambda n: bool(self._types.symbols(n) & {*_DIVIDED, "pairs"})
        )

    def text(self) -> str:
        part = self._partition
        step = "int {}(const Runtime *rt, const Part *part)"
        before = [self._shared_step(step.format(f"before_{k}"), nodes) for k, nodes in enumerate(part.before)]
        forward, backward = self._steps_of_parts(step)
        after, missing = [], {g: k for k, g in enumerate(g for g in self._trace.gradients if g is not None)}
        for number, nodes in enumerate(part.after):
            own = {g: missing.pop(g) for g in [*missing] if base_of(g) in nodes}
            after.append(self._shared_step(step.format(f"after_{number}"), nodes, own))
        constant = {g: k for g, k in missing.items() if self._value(g).is_shared}
        if constant:
            after.append(self._shared_step(step.format(f"after_{len(after)}"), [], constant))
        add_part = self._add_part({g: k for g, k in missing.items() if g not in constant})
        functions = [*before, forward, *([backward] if backward else []), add_part, *after]
        sizes = [self._input_bytes(), *(self._buffer_bytes(which) for which in self._buffers)]
        return "\n".join([*functions, *sizes, self._structure(len(before), bool(backward), len(after))])

    def _identifier(self, node: Node) -> str:
        return f"{node.name}_" if node.name in _RESERVED else node.name

    def _divided(self, node: Node) -> str | None:
        """Return the extent along which parts have rows of an argument of their own."""
        shape = node.meta["val"].shape
        rows = str(self._types.extent(shape[0])) if len(shape) else ""
        return rows if rows in _DIVIDED else None

    def _add_argument(self, node: Node, position: int) -> None:
        tensor, name = node.meta["val"], self._identifier(node)
        try:
            type = self._types.type(tensor)
        except Unsupported:
            return  # flags, which no operation reads
        rows, columns = self._types.shape(tensor)
        along = self._divided(node)
        value = Value(name, type, rows, columns, columns, is_shared=along is None, argument=position)
        text = f"(const {type} *)part->input[{position}]"
        if node in [self._trace.inputs.get(label) for label in _NUMBERED]:
            text, value = f"part->{node.name}", replace(value, is_shared=False)
        elif along:
            text += f" + part->first.{along}" + (f" * {columns}" if columns != 1 else "")
        self._values[node] = value
        self._declarations[name] = f"const {type} *{name} = {text}; /* {value.comment} */", None

    def _use(self, value: Value) -> Value:
        """Declare a value, or after all parts the sum of theirs, in the present function."""
        if self._is_shared and not value.is_shared:
            if value.argument is not None or not value.is_contiguous:
                raise Unsupported("a sum over parts of a view or an argument")
            if value.name not in self._sums:
                total = self._allocate(f"{value.name}_sum", value.type, value.rows, value.columns)
                self._sums[value.name] = value, total
            value = self._sums[value.name][1]
        self._declare(value.name)
        return value

    def _declare(self, name: str) -> None:
        if name in self._function.declared:
            return
        self._function.declared.add(name)
        line, needed = self._declarations[name]
        if needed is not None:
            self._declare(needed)
        self._function.lines.append(line)

    def _allocate(self, name: str, type: str, rows: Extent, columns: Extent) -> Value:
        """Return a contiguous value in a buffer that holds nothing else; parts reuse theirs."""
        which, kind = ("shared" if self._is_shared else "own"), (rows, columns, type)
        free = self._free.get(kind) if which == "own" else None
        if free:
            buffer = free.pop()
        else:
            buffer = len(self._buffers[which])
            self._buffers[which].append(kind)
        value = Value(name, type, rows, columns, columns, is_shared=self._is_shared)
        line = f"{type} *{name} = ({type} *)part->{which}[{buffer}]; /* {value.comment} */"
        self._declarations[name] = line, None
        if which == "own":
            self._own[name] = kind, buffer
        return value

    def _write(self, node: Node) -> list[str]:
        """Write an operation; return the names of its new buffers."""
        if is_view(node):
            self._view(node)
            return []
        tensors = [a for a in node.args if isinstance(a, Node) and isinstance(a.meta["val"], Tensor)]
        inputs = [self._use(self._value(a)) for a in tensors]
        found, outputs = node.meta["val"], []
        for number, wanted in enumerate(wanted_results(node)):
            single = isinstance(found, Tensor)
            tensor, key = (found, node) if single else (found[number], (node, number))
            value = None
            if wanted:
                name = self._identifier(node) + ("" if single else f"_{number}")
                value = self._allocate(name, self._types.type(tensor), *self._types.shape(tensor))
                self._values[key] = value
                self._declare(name)
            outputs.append(value)
        self._function.lines += call_of(node, inputs, outputs)
        return [value.name for value in outputs if value is not None]

    def _value(self, node: Node) -> Value:
        if node not in self._values and is_view(node):
            self._view(node)
        if node not in self._values:
            raise Unsupported(f"an input of {node.meta['val'].dtype}")
        return self._values[node]

    def _view(self, node: Node) -> None:
        source: Any = node.args[0]
        if node.target is operator.getitem:
            self._values[node] = self._values[source, node.args[1]]
            return
        old = self._value(source)
        if self._is_shared and not old.is_shared:
            old = self._use(old)
        value, offset = self._types.view(node, old)
        if offset != 0:
            name = self._identifier(node)
            line = f"const {value.type} *{name} = {old.name} + {c_text(offset)}; /* {value.comment} */"
            self._declarations[name] = line, old.name
            value = replace(value, name=name)
        elif old.argument is not None and value.count != old.count:
            self._sliced.append((old.argument, value.bytes))
        self._values[node] = value

    def _shared_step(self, head: str, nodes: Iterable[Node], gradients: dict[Node, int] | None = None) -> str:
        """Write a function of what all parts share, and of gradients that it completes."""
        self._function, self._is_shared = _Function(head), True
        for node in nodes:
            self._write(node)
        for gradient, number in (gradients or {}).items():
            self._accumulate(gradient, number, "1")
        return self._function.text()

    def _steps_of_parts(self, step: str) -> tuple[str, str | None]:
        """Write forward and, if there is one, backward."""
        part, self._own = self._partition, {}
        nodes, self._is_shared = [*part.forward, *part.backward], False
        late = [used for group in part.after for node in group for used in node.all_input_nodes]
        last = last_uses(nodes, [*self._trace.results, *self._trace.gradients, *late])
        forward = self._function = _Function(step.format("forward"))
        ends: dict[int, list[str]] = {}
        for number, node in enumerate(nodes):
            if number == len(part.forward):
                self._write_results()
                self._function = _Function(step.format("backward"))
            made = self._write(node)
            if base_of(node) is node:
                ends.setdefault(last.get(node, number), []).extend(made)
            for name in ends.pop(number, []):
                kind, buffer = self._own[name]
                self._free.setdefault(kind, []).append(buffer)
        if self._function is forward:
            self._write_results()
            return forward.text(), None
        return forward.text(), self._function.text()

    def _write_results(self) -> None:
        sites = self._divided(self._trace.inputs["pos"])
        for number, (node, rows) in enumerate(zip(self._trace.results, self._trace.rows, strict=True)):
            value, along = self._use(self._value(node)), sites if rows == "sites" else rows
            if str(value.rows) != along or not value.is_contiguous:
                raise Unsupported(f"a result of the shape {value.comment}")
            to = f"({value.type} *)part->result[{number}] + part->first.{along} * {c_text(value.columns)}"
            self._function.lines.append(f"memcpy({to}, {value.name}, {value.bytes});")

    def _add_part(self, gradients: dict[Node, int]) -> str:
        """Write the function that adds what a part contributes to gradients of weights."""
        self._function = _Function("void add_part(const Runtime *rt, const Part *part, int is_first)")
        self._is_shared = False
        for value, total in self._sums.values():
            self._use(value)
            self._declare(total.name)
            self._add(value, total.name, "is_first")
        for gradient, number in gradients.items():
            self._accumulate(gradient, number, "is_first")
        return self._function.text(None)

    def _accumulate(self, gradient: Node, number: int, is_first: str) -> None:
        self._add(self._use(self._value(gradient)), f"(real *)part->result[{number}]", is_first)

    def _add(self, value: Value, to: str, is_first: str) -> None:
        if value.type != "real":
            raise Unsupported(f"a gradient of the type {value.type}")
        shape = (value.rows, value.columns, value.row_stride, value.column_stride)
        words = ", ".join(map(c_text, (value.name, *shape, is_first, to)))
        self._function.lines.append(f"rt->accumulate({words});")

    def _input_bytes(self) -> str:
        function = _Function("void input_bytes(const Sizes *size, int64_t *bytes)", "size->")
        for position, node in enumerate(self._arguments):
            value = self._values.get(node)
            bytes = value.bytes if value else "0"
            function.lines.append(f"bytes[{position}] = {bytes}; /* {node.name} */")
        for position, bytes in dict.fromkeys(self._sliced):
            function.lines.append(f"AT_LEAST(bytes[{position}], (int64_t)({bytes}));")
        return function.text(None)

    def _buffer_bytes(self, which: str) -> str:
        function = _Function(f"void {which}_bytes(const Sizes *size, int64_t *bytes)", "size->")
        for number, (rows, columns, type) in enumerate(self._buffers[which]):
            bytes = c_text(rows * columns, f"sizeof({type})")
            function.lines.append(f"bytes[{number}] = {bytes}; /* ({rows}, {columns}) */")
        return function.text(None)

    def _structure(self, befores: int, has_backward: bool, afters: int) -> str:
        order = {node: position for position, node in enumerate(self._arguments)}
        inputs = [(name, self._trace.inputs.get(name)) for name in (*_NUMBERED, "site_atom")]
        fields = {
            "inputs": len(order),
            "own": len(self._buffers["own"]),
            "shared": len(self._buffers["shared"]),
            **{name: -1 if node is None else order[node] for name, node in inputs},
            **{name: name for name in ("input_bytes", "own_bytes", "shared_bytes", "forward")},
            "backward": "backward" if has_backward else "NULL",
            "add_part": "add_part",
        }
        arrays = ""
        for name, count in (("before", befores), ("after", afters)):
            steps = ", ".join(f"{name}_{k}" for k in range(count))
            if count:
                arrays += f"static Step *const {name}[] = {{{steps}}};\n"
            fields |= {f"{name}s": count, name: name if count else "NULL"}
        lines = "".join(f"    .{name} = {value},\n" for name, value in fields.items())
        return f"{arrays}\nconst Program program = {{\n{lines}}};\n"
