"""Assembling a tape: where each value of a traced graph lies, and the operations on them."""

from __future__ import annotations

import ctypes
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.operation import CODES, VIEWS, Unsupported, translate

_aten = torch.ops.aten

CONSTANT, ATOMS, PAIRS, KNOTS, GAUSSIANS, MOLECULES, SITES = range(7)  # what an extent may stand for
SINGLE, DOUBLE, INTEGER = range(3)
_OUTPUTS, _INPUTS = 4, 8


@dataclass(frozen=True)
class Size:
    """An extent: what a call's size of some kind is, plus a number."""

    symbol: int
    plus: int


@dataclass(frozen=True)
class Value:
    """A matrix: where it is and how it lies there."""

    kind: int
    index: int
    type: int
    rows: Size
    columns: Size
    row_stride: Size
    column_stride: Size
    offset: Size = Size(0, 0)
    shared: bool = False

    def fields(self) -> list[int]:
        sizes = (self.rows, self.columns, self.row_stride, self.column_stride, self.offset)
        return [
            self.kind,
            self.index,
            self.type,
            *(n for size in sizes for n in (size.symbol, size.plus)),
            int(self.shared),
        ]


class Op(ctypes.Structure):
    """An operation as `tape.c` reads it."""

    _fields_ = (
        ("code", ctypes.c_int64),
        ("out", ctypes.c_int64 * _OUTPUTS),
        ("input", ctypes.c_int64 * _INPUTS),
        ("integer", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("number", ctypes.c_double),
    )


@dataclass
class Assembler:
    """Gathers values, their memory and operations, node by node.

    Attributes:
        sizes: What the extents of the example stand for.
        real: Type of the network.
        values: All of them.
        known: The value of a node, or of one of its results.
        slots: Pieces of memory: rows, columns, type, and whether the parts share it.
        free: Slots that hold nothing, by their kind.
        ops: The operations.
        sums: Values of the parts, and those of their sums.
        shared: Whether operations are done once now, not part by part.
        taps: Weights of the splines' rule.
    """

    sizes: dict[int, Size]  # of the example -> of a call
    real: torch.dtype
    values: list[Value] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)  # node, or (node, number of its result) -> value
    slots: list[tuple[Size, Size, int, bool]] = field(default_factory=list)
    free: dict[tuple, list[int]] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    sums: dict[int, int] = field(default_factory=dict)  # value of the parts -> their sum
    shared: bool = False  # whether operations are done once, not part by part
    taps: tuple[float, ...] = ()

    @property
    def types(self) -> dict[torch.dtype, int]:
        return {torch.float64: DOUBLE, torch.int64: INTEGER, self.real: SINGLE}

    def size(self, extent: Any) -> Size:
        number = extent.node.hint if isinstance(extent, torch.SymInt) else int(extent)
        if number is None:
            raise Unsupported("a size that depends on data")
        return self.sizes.get(number, Size(CONSTANT, number))

    def shape(self, tensor: Tensor) -> tuple[Size, Size]:
        """Give rows and columns; a vector of fixed length is a row, any other a column."""
        sizes = [self.size(extent) for extent in tensor.shape]
        if len(sizes) > 2:
            raise Unsupported(f"{len(sizes)} dimensions")
        if len(sizes) == 1:
            fixed = sizes[0].symbol == CONSTANT
            return (Size(0, 1), sizes[0]) if fixed else (sizes[0], Size(0, 1))
        return (sizes[0], sizes[1]) if sizes else (Size(0, 1), Size(0, 1))

    def type(self, tensor: Tensor) -> int:
        if tensor.dtype not in self.types:
            raise Unsupported(str(tensor.dtype))
        return self.types[tensor.dtype]

    def external(self, node: Node, index: int) -> None:
        tensor = node.meta["val"]
        if tensor.dtype not in self.types:
            return  # flags, which no operation reads
        rows, columns = self.shape(tensor)
        self._keep(node, Value(1, index, self.type(tensor), rows, columns, columns, Size(0, 1)))

    def allocate(self, key: Any, tensor: Tensor) -> int:
        rows, columns = self.shape(tensor)
        kind = (rows, columns, self.type(tensor), self.shared)
        if not self.free.get(kind):
            self.free.setdefault(kind, []).append(len(self.slots))
            self.slots.append(kind)
        slot = self.free[kind].pop()
        where = (0, slot, kind[2], rows, columns, columns, Size(0, 1))
        return self._keep(key, Value(*where, shared=self.shared))

    def release(self, value: int) -> None:
        held = self.values[value]
        if held.kind == 0:
            self.free[self.slots[held.index]].append(held.index)

    def _keep(self, key: Any, value: Value) -> int:
        self.known[key] = len(self.values)
        self.values.append(value)
        return self.known[key]

    def has_rows(self, node: Node) -> bool:
        """Whether a node has rows for atoms, sites, pairs or molecules."""
        found = node.meta["val"]
        tensors = [found] if isinstance(found, Tensor) else found
        sizes = [self.size(extent) for tensor in tensors for extent in tensor.shape]
        return any(size.symbol in (ATOMS, PAIRS, MOLECULES, SITES) for size in sizes)

    def view(self, node: Node) -> bool:
        """Take a node as another view of a value, if it is one."""
        source = node.args[0]
        if node.target is operator.getitem:
            self.known[node] = self.known[source, node.args[1]]
            return True
        if node.target not in VIEWS:
            return False
        assert isinstance(source, Node)
        old = self.values[self._source(source)]
        rows, columns = self.shape(node.meta["val"])
        if node.target is _aten.t.default:
            new = Value(
                *(old.kind, old.index, old.type, old.columns, old.rows),
                *(old.column_stride, old.row_stride, old.offset, old.shared),
            )
        elif node.target is _aten.select.int and node.args[1] == 0:
            offset = Size(old.columns.symbol, int(node.args[2]))  # pyright: ignore
            if old.columns.plus or old.row_stride != old.columns:
                raise Unsupported("selecting from a view")
            new = Value(
                old.kind, old.index, old.type, rows, columns, Size(0, 1), Size(0, 1), offset, old.shared
            )
        elif node.target is _aten.slice.Tensor and node.args[1:3] == (0, 0):
            kept = (old.row_stride, old.column_stride, old.offset, old.shared)
            new = Value(old.kind, old.index, old.type, rows, columns, *kept)
        elif node.target in (
            _aten.view.default,
            _aten.squeeze.dim,
            _aten.unsqueeze.default,
            _aten.expand.default,
        ):
            if old.row_stride != old.columns and Size(0, 1) not in (old.rows, old.columns):
                raise Unsupported("another shape of a view")
            if {old.rows, old.columns} != {rows, columns}:
                raise Unsupported(f"{node.target} that copies")
            kept = (columns, Size(0, 1), old.offset, old.shared)
            new = Value(old.kind, old.index, old.type, rows, columns, *kept)
        else:
            raise Unsupported(f"{node.target}{node.args[1:]}")
        self._keep(node, new)
        return True

    def add(self, node: Node) -> None:
        if self.view(node):
            return
        operation = translate(node, self.real)
        if operation.name == "correlate_rows":
            self.taps = tuple(node.args[1])  # pyright: ignore
        sources = [self._source(source) for source in operation.inputs]
        for source in sources:
            value = self.values[source]
            turned = value.column_stride != Size(0, 1) or value.row_stride != value.columns
            if (
                turned
                and operation.name not in ("mm", "addmm")
                and Size(0, 1) not in (value.rows, value.columns)
            ):
                raise Unsupported(f"{operation.name} of a view")
        outs = []
        found = node.meta["val"]
        for k, wanted in enumerate(operation.results):
            key, tensor = (node, found) if isinstance(found, Tensor) else ((node, k), found[k])
            outs.append(self.allocate(key, tensor) if wanted else -1)
        op = Op(code=CODES[operation.name], integer=operation.integer, number=operation.number)
        op.out[:] = [*outs, *[-1] * (_OUTPUTS - len(outs))]
        fill = sources[0] if sources else outs[0]
        op.input[:] = [*sources, *[fill] * (_INPUTS - len(sources))]
        self.ops.append(op)

    def _source(self, node: Node) -> int:
        """Find an input; of what belongs to the parts, the sum over them where that is needed."""
        if node not in self.known:
            raise Unsupported(f"an input of {node.meta['val'].dtype}")
        value = self.known[node]
        held = self.values[value]
        if not self.shared or held.shared or held.kind == 1:
            return value
        if Size(0, 1) != held.column_stride and held.columns != Size(0, 1):
            raise Unsupported("a sum over a view")
        if value not in self.sums:
            self.sums[value] = self.allocate(("sum", node), node.meta["val"])
        return self.sums[value]
