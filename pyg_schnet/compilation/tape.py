"""Tapes: the operations of a traced graph for `tape.c`, which runs them without leaving C."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

_aten, _own = torch.ops.aten, torch.ops.pyg_schnet

CONSTANT, ATOMS, PAIRS, KNOTS, GAUSSIANS, MOLECULES = range(6)
_SINGLE, _DOUBLE, _INTEGER = range(3)
_OUTPUTS, _INPUTS = 4, 8
_MOST_SLOTS = 1024  # in tape.c

# In the order of the codes in tape.c.
_NAMES = """
mm addmm ssp ssp_adjoint ssp_adjoint_adjoint taps embedding embedding_backward convolve adjoint
adjoint_adjoint distances distances_adjoint distances_adjoint_adjoint to_copy scale shift multiply add
negate index_select index_add zeros ones sum_rows pad_rows scale_rows
"""
_CODES = {name: code for code, name in enumerate(_NAMES.split())}


class Unsupported(Exception):
    """A graph holds what tapes do not know."""


@dataclass(frozen=True)
class _Size:
    symbol: int
    plus: int


@dataclass(frozen=True)
class _Value:
    """A matrix: where it is and how it lies there."""

    kind: int
    index: int
    type: int
    rows: _Size
    columns: _Size
    row_stride: _Size
    column_stride: _Size
    offset: _Size = _Size(0, 0)
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


@dataclass(frozen=True)
class External:
    """A tensor from outside: whether a part of a batch has rows of its own in it, and their bytes."""

    along: int
    row_bytes: int


class _Op(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int64),
        ("out", ctypes.c_int64 * _OUTPUTS),
        ("input", ctypes.c_int64 * _INPUTS),
        ("integer", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("number", ctypes.c_double),
    )


@dataclass
class _Builder:
    sizes: dict[int, _Size]  # of the example -> of a call
    real: torch.dtype
    values: list[_Value] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)  # node, or (node, number of its result) -> value
    slots: list[tuple[_Size, _Size, int, bool]] = field(default_factory=list)
    free: dict[tuple, list[int]] = field(default_factory=dict)
    ops: list[_Op] = field(default_factory=list)
    sums: dict[int, int] = field(default_factory=dict)  # value of the parts -> their sum
    shared: bool = False  # whether operations are done once, not part by part
    taps: tuple[float, ...] = ()

    @property
    def types(self) -> dict[torch.dtype, int]:
        return {torch.float64: _DOUBLE, torch.int64: _INTEGER, self.real: _SINGLE}

    def size(self, extent: Any) -> _Size:
        number = extent.node.hint if isinstance(extent, torch.SymInt) else int(extent)
        if number is None:
            raise Unsupported("a size that depends on data")
        return self.sizes.get(number, _Size(CONSTANT, number))

    def shape(self, tensor: Tensor) -> tuple[_Size, _Size]:
        """Give rows and columns; a vector of fixed length is a row, any other a column."""
        sizes = [self.size(extent) for extent in tensor.shape]
        if len(sizes) > 2:
            raise Unsupported(f"{len(sizes)} dimensions")
        if len(sizes) == 1:
            fixed = sizes[0].symbol == CONSTANT
            return (_Size(0, 1), sizes[0]) if fixed else (sizes[0], _Size(0, 1))
        return (sizes[0], sizes[1]) if sizes else (_Size(0, 1), _Size(0, 1))

    def type(self, tensor: Tensor) -> int:
        if tensor.dtype not in self.types:
            raise Unsupported(str(tensor.dtype))
        return self.types[tensor.dtype]

    def external(self, node: Node, index: int) -> None:
        tensor = node.meta["val"]
        if tensor.dtype not in self.types:
            return  # flags, which no operation reads
        rows, columns = self.shape(tensor)
        self._keep(node, _Value(1, index, self.type(tensor), rows, columns, columns, _Size(0, 1)))

    def allocate(self, key: Any, tensor: Tensor) -> int:
        rows, columns = self.shape(tensor)
        kind = (rows, columns, self.type(tensor), self.shared)
        if not self.free.get(kind):
            self.free.setdefault(kind, []).append(len(self.slots))
            self.slots.append(kind)
        slot = self.free[kind].pop()
        where = (0, slot, kind[2], rows, columns, columns, _Size(0, 1))
        return self._keep(key, _Value(*where, shared=self.shared))

    def release(self, value: int) -> None:
        held = self.values[value]
        if held.kind == 0:
            self.free[self.slots[held.index]].append(held.index)

    def _keep(self, key: Any, value: _Value) -> int:
        self.known[key] = len(self.values)
        self.values.append(value)
        return self.known[key]

    def view(self, node: Node) -> bool:
        """Take a node as another view of a value, if it is one."""
        source = node.args[0]
        if node.target is operator.getitem:
            self.known[node] = self.known[source, node.args[1]]
            return True
        if node.target not in _VIEWS:
            return False
        assert isinstance(source, Node)
        old = self.values[self._source(source)]
        rows, columns = self.shape(node.meta["val"])
        if node.target is _aten.t.default:
            new = _Value(
                *(old.kind, old.index, old.type, old.columns, old.rows),
                *(old.column_stride, old.row_stride, old.offset, old.shared),
            )
        elif node.target is _aten.select.int and node.args[1] == 0:
            offset = _Size(old.columns.symbol, int(node.args[2]))  # pyright: ignore
            if old.columns.plus or old.row_stride != old.columns:
                raise Unsupported("selecting from a view")
            new = _Value(
                old.kind, old.index, old.type, rows, columns, _Size(0, 1), _Size(0, 1), offset, old.shared
            )
        elif node.target is _aten.slice.Tensor and node.args[1:3] == (0, 0):
            kept = (old.row_stride, old.column_stride, old.offset, old.shared)
            new = _Value(old.kind, old.index, old.type, rows, columns, *kept)
        elif node.target in (
            _aten.view.default,
            _aten.squeeze.dim,
            _aten.unsqueeze.default,
            _aten.expand.default,
        ):
            if old.row_stride != old.columns and _Size(0, 1) not in (old.rows, old.columns):
                raise Unsupported("another shape of a view")
            if {old.rows, old.columns} != {rows, columns}:
                raise Unsupported(f"{node.target} that copies")
            kept = (columns, _Size(0, 1), old.offset, old.shared)
            new = _Value(old.kind, old.index, old.type, rows, columns, *kept)
        else:
            raise Unsupported(f"{node.target}{node.args[1:]}")
        self._keep(node, new)
        return True

    def add(self, node: Node) -> None:
        if self.view(node):
            return
        name, inputs, results, integer, number = _translate(node, self)
        sources = [self._source(source) for source in inputs]
        for source in sources:
            value = self.values[source]
            turned = value.column_stride != _Size(0, 1) or value.row_stride != value.columns
            if turned and name not in ("mm", "addmm") and _Size(0, 1) not in (value.rows, value.columns):
                raise Unsupported(f"{name} of a view")
        outs = []
        found = node.meta["val"]
        for k, wanted in enumerate(results):
            key, tensor = (node, found) if isinstance(found, Tensor) else ((node, k), found[k])
            outs.append(self.allocate(key, tensor) if wanted else -1)
        op = _Op(code=_CODES[name], integer=integer, number=number)
        op.out[:] = [*outs, *[-1] * (_OUTPUTS - len(outs))]
        fill = sources[0] if sources else outs[0]
        op.input[:] = [*sources, *[fill] * (_INPUTS - len(sources))]
        self.ops.append(op)

    def _source(self, node: Node) -> int:
        """Find an input; of what belongs to the parts, the sum over them where that is needed."""
        value = self.known[node]
        held = self.values[value]
        if not self.shared or held.shared or held.kind == 1:
            return value
        if _Size(0, 1) != held.column_stride and held.columns != _Size(0, 1):
            raise Unsupported("a sum over a view")
        if value not in self.sums:
            self.sums[value] = self.allocate(("sum", node), node.meta["val"])
        return self.sums[value]


_VIEWS = {
    *(_aten.t.default, _aten.select.int, _aten.slice.Tensor, _aten.view.default, _aten.squeeze.dim),
    *(_aten.unsqueeze.default, _aten.expand.default),
}
_PLAIN = {  # operations that need nothing but tensors
    _aten.mm.default: "mm",
    _own.ssp.default: "ssp",
    _own.ssp_adjoint.default: "ssp_adjoint",
    _aten._to_copy.default: "to_copy",
    _aten.neg.default: "negate",
    _own.distances.default: "distances",
    _own.distances_adjoint.default: "distances_adjoint",
}


def _translate(node: Node, builder: _Builder) -> tuple[str, list[Node], list[bool], int, float]:
    """Name the operation, its inputs, which results are wanted, and its two numbers."""
    target: Any = node.target
    arguments: list[Any] = list(node.args)
    nodes: list[Node] = [a for a in arguments if isinstance(a, Node) and isinstance(a.meta["val"], Tensor)]
    if target in _PLAIN:
        return _PLAIN[target], nodes, [True], 0, 0.0
    if target is _aten.addmm.default and not node.kwargs:
        return "addmm", nodes, [True], 0, 0.0
    if target is _own.ssp_adjoint_adjoint.default:
        return "ssp_adjoint_adjoint", nodes, [True, True], 0, 0.0
    if target is _own.taps.default:
        builder.taps = tuple(arguments[1])
        return "taps", nodes, [True], 2 * len(builder.taps) + int(arguments[2]), 0.0
    if target is _own.convolve.default:
        return "convolve", nodes, [True], 0, arguments[-1]
    if target is _own.adjoint.default:
        return "adjoint", nodes, [True, *arguments[-2:]], 0, arguments[-3]
    if target is _own.adjoint_adjoint.default:
        return "adjoint_adjoint", nodes, [True, True, True, arguments[-1]], 0, arguments[-2]
    if target is _own.distances_adjoint_adjoint.default and not arguments[-1]:
        return "distances_adjoint_adjoint", nodes, [True, False], 0, 0.0
    if target is _aten.embedding.default:
        return "embedding", nodes, [True], 0, 0.0
    if target is _aten.embedding_dense_backward.default and not arguments[4]:
        return "embedding_backward", nodes, [True], arguments[3], 0.0
    if target is _aten.index_select.default and nodes[0].meta["val"].dim() == 1:
        return "index_select", nodes, [True], 0, 0.0
    if target is _aten.index_add.default and nodes[0].meta["val"].dim() == 1 and not node.kwargs:
        return "index_add", nodes, [True], 0, 0.0
    if target in (_aten.new_zeros.default, _aten.zeros_like.default):
        return "zeros", [], [True], 0, 0.0
    if target is _aten.ones_like.default:
        return "ones", [], [True], 0, 0.0
    if target is _aten.sum.dim_IntList and arguments[1] == [0]:
        summed = nodes[0].meta["val"]
        if summed.dim() == 2 and summed.dtype == builder.real:
            return "sum_rows", nodes, [True], 0, 0.0
    if target is _aten.slice_backward.default and arguments[2:4] == [0, 0] and arguments[5] == 1:
        return "pad_rows", nodes[:1], [True], 0, 0.0
    if target in (_aten.mul.Tensor, _aten.add.Tensor):
        return _of_two(node, nodes)
    raise Unsupported(f"{target} of {[tuple(n.meta['val'].shape) for n in nodes]}")


def _of_two(node: Node, nodes: list[Node]) -> tuple[str, list[Node], list[bool], int, float]:
    product = node.target is _aten.mul.Tensor
    shape, types = node.meta["val"].shape, {n.meta["val"].dtype for n in nodes}
    if len(nodes) == 1:
        return "scale" if product else "shift", nodes, [True], 0, float(node.args[1])  # pyright: ignore
    shapes = [n.meta["val"].shape for n in nodes]
    if shapes[0] == shapes[1] == shape and len(types) == 1:
        return "multiply" if product else "add", nodes, [True], 0, 0.0
    if product and () in [tuple(s) for s in shapes]:
        return "scale", nodes if len(shapes[1]) == 0 else nodes[::-1], [True], 0, 0.0
    column = (*shape[:1], 1)
    if product and tuple(shapes[1]) == column and shapes[0] == shape:
        return "scale_rows", nodes, [True], 0, 0.0
    raise Unsupported(f"{node.target} of {shapes}")


class _TapeStructure(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("values", "slots", "externals", "ops", "results")),
        *((name, ctypes.c_int64) for name in ("sums", "groups")),
        *((name, ctypes.c_void_p) for name in ("value", "slot", "slot_bytes", "slot_shared", "along")),
        *((name, ctypes.c_void_p) for name in ("row_bytes", "result", "result_along", "sum")),
        *((name, ctypes.c_int64) for name in ("batch", "pairs", "before", "until", "after")),
        ("op", ctypes.c_void_p),
    )


def _integers(numbers: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


class Tape:
    """A traced graph for `tape.c`: first the operations of forward, then those of backward.

    Args:
        inputs: The graph's arguments that are tensors, with how each is divided among the parts of a batch.
        forwards: Operations in order.
        backwards: Operations that need the gradients of the results.
        outputs: Results of forward: nodes, with how each is put together from the parts.
        gradients: Results of backward, summed over the parts; ``None`` where there is none.
        sizes: What the extents of the example stand for.
        batch: Which input numbers the molecules of atoms.
        pairs: Which input holds pairs of atoms.
        real: Type of the network.

    Raises:
        Unsupported: If the machine lacks an operation.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[Node, External]],
        forwards: Sequence[Node],
        backwards: Sequence[Node],
        outputs: Sequence[tuple[Node, int]],
        gradients: Sequence[Node | None],
        sizes: dict[int, tuple[int, int]],
        batch: Node,
        pairs: Node,
        real: torch.dtype,
    ):
        builder = _Builder({number: _Size(*size) for number, size in sizes.items()}, real)
        for index, (node, _) in enumerate(inputs):
            builder.external(node, index)
        own = {node for node, external in inputs if external.along} | {pairs}
        phases = _phases(forwards, backwards, own, builder)
        nodes = [node for phase in phases for node in phase]
        last = _last_uses(nodes, [n for n, _ in outputs], gradients, len(phases[0]) + len(phases[1]))
        held: dict[int, list[int]] = {}
        step, ends, groups = 0, [], {}
        for number, phase in enumerate(phases):
            builder.shared = number in (0, 3)
            groups = _groups(phase) if builder.shared else {}
            for node in phase:
                before, done = len(builder.values), len(builder.ops)
                builder.add(node)
                for op in builder.ops[done:]:
                    op.group = groups.get(node, 0)
                if not builder.shared and _root(node) is node:
                    held.setdefault(last.get(node, step), []).extend(range(before, len(builder.values)))
                for value in held.pop(step, []):
                    builder.release(value)
                step += 1
            ends.append(len(builder.ops))
        marks = dict(zip(("before", "until", "after"), ends, strict=False))
        marks |= {"batch": [n for n, _ in inputs].index(batch), "pairs": [n for n, _ in inputs].index(pairs)}
        self.shapes = [None if g is None else tuple(map(int, g.meta["val"].shape)) for g in gradients]
        self.taps = (ctypes.c_double * max(1, len(builder.taps)))(*builder.taps)
        if len(builder.slots) > _MOST_SLOTS:
            raise Unsupported(f"{len(builder.slots)} pieces of memory")
        self._freeze(builder, [external for _, external in inputs])
        results = [(builder.known[node], along) for node, along in outputs]
        found = [(builder.known[g], CONSTANT) for g in gradients if g is not None]
        self.forward, self.backward = (self._structure(marks, which) for which in (results, found))

    def _freeze(self, builder: _Builder, externals: list[External]) -> None:
        item = {_SINGLE: builder.real.itemsize, _DOUBLE: 8, _INTEGER: 8}
        slots = builder.slots
        self._counts = {
            "values": len(builder.values),
            "slots": len(slots),
            "externals": len(externals),
            "ops": len(builder.ops),
            "sums": len(builder.sums),
            "groups": 1 + max((op.group for op in builder.ops), default=0),
        }
        self._arrays = {
            "value": _integers([n for value in builder.values for n in value.fields()]),
            "slot": _integers([n for r, c, *_ in slots for size in (r, c) for n in (size.symbol, size.plus)]),
            "slot_bytes": _integers([item[kind] for _, _, kind, _ in slots]),
            "slot_shared": _integers([int(shared) for *_, shared in slots]),
            "along": _integers([external.along for external in externals]),
            "row_bytes": _integers([external.row_bytes for external in externals]),
            "sum": _integers([value for pair in builder.sums.items() for value in pair]),
            "op": (_Op * len(builder.ops))(*builder.ops),
        }

    def _structure(self, marks: dict[str, int], results: list[tuple[int, int]]) -> _TapeStructure:
        own = {
            "result": _integers([v for v, _ in results]),
            "result_along": _integers([a for _, a in results]),
        }
        arrays = {**self._arrays, **own}
        addresses = {name: ctypes.cast(array, ctypes.c_void_p) for name, array in arrays.items()}
        structure = _TapeStructure(results=len(results), **self._counts, **marks, **addresses)
        structure.kept = own  # pyright: ignore - the addresses live as long as these
        return structure


def _phases(
    forwards: Sequence[Node], backwards: Sequence[Node], own: set[Node], builder: _Builder
) -> tuple[list[Node], list[Node], list[Node], list[Node]]:
    """Divide operations into those done once before, forward and backward of the parts, and once after.

    Args:
        forwards: Operations of forward.
        backwards: Operations of backward.
        own: Inputs of which each part has rows of its own.
        builder: Knows the sizes.
    """
    before, forward, backward, after = phases = ([], [], [], [])
    part: set[Node] = set(own)  # what differs between parts, sums over a part's molecules included
    sums: set[Node] = set()
    later = set(backwards)
    for node in (*forwards, *backwards):
        if node.target is _aten.sym_size.int:
            continue
        used = [n for n in node.all_input_nodes if isinstance(n.meta["val"], Tensor | tuple | list)]
        rows, is_backward = _has_rows(node, builder), node in later
        if not any(n in part or n in sums for n in used) and not rows:
            before.append(node)
            continue
        if is_backward and not any(n in part and n not in sums for n in used) and not rows:
            sums.add(node)
            after.append(node)
            continue
        if any(n in after for n in used):
            raise Unsupported(f"{node.target} of a part, from a sum over all")
        part.add(node)
        if not rows:
            if not is_backward:
                raise Unsupported(f"{node.target}, a sum over a part, which is not one over all")
            sums.add(node)
        (backward if is_backward else forward).append(node)
    return phases


def _has_rows(node: Node, builder: _Builder) -> bool:
    """Whether a node has rows for atoms, pairs or molecules."""
    found = node.meta["val"]
    tensors = [found] if isinstance(found, Tensor) else found
    sizes = [builder.size(extent) for tensor in tensors for extent in tensor.shape]
    return any(size.symbol in (ATOMS, PAIRS, MOLECULES) for size in sizes)


def _groups(nodes: Sequence[Node]) -> dict[Node, int]:
    """Number groups of operations that do not need each other."""
    inside, group = set(nodes), {}
    for number, node in enumerate(nodes):
        joined = {group[n] for n in node.all_input_nodes if n in inside}
        group = {n: number if g in joined else g for n, g in group.items()}
        group[node] = number
    numbers = {g: k for k, g in enumerate(dict.fromkeys(group.values()))}
    return {node: numbers[g] for node, g in group.items()}


def _root(node: Node) -> Node:
    """Find the node whose memory a view shows."""
    while node.op == "call_function" and (node.target in _VIEWS or node.target is operator.getitem):
        node = node.args[0]  # pyright: ignore
    return node


def _last_uses(
    nodes: list[Node], outputs: Sequence[Node], gradients: Sequence[Node | None], forwards: int
) -> dict[Node, int]:
    """Tell after which node the memory of each is free; results live until their run ends."""
    last: dict[Node, int] = {}
    for step, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last[_root(used)] = step
    for node in outputs:
        last[_root(node)] = max(last.get(_root(node), 0), forwards - 1)
    for node in gradients:
        if node is not None:
            last[_root(node)] = len(nodes) + 1
    return last
