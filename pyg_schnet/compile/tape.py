"""Tapes: the operations of a traced graph for `tape.c`, which runs them without leaving C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from pyg_schnet.compile.assembly import CONSTANT, DOUBLE, INTEGER, SINGLE, Assembler, Op, Size
from pyg_schnet.compile.operation import Unsupported, root
from pyg_schnet.compile.phases import groups_of, last_uses, phases_of

_MOST_SLOTS = 1024  # in tape.c


@dataclass(frozen=True)
class External:
    """A tensor from outside: whether a part of a batch has rows of its own in it, and their bytes."""

    along: int
    row_bytes: int


class _TapeStructure(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("values", "slots", "externals", "ops", "results")),
        *((name, ctypes.c_int64) for name in ("sums", "groups")),
        *((name, ctypes.c_void_p) for name in ("value", "slot", "slot_bytes", "slot_shared", "along")),
        *((name, ctypes.c_void_p) for name in ("row_bytes", "result", "result_along", "sum")),
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "pairs", "places", "site", "before", "until", "after")
        ),
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
        places: Which ones hold their sites, and the atom of each site, in periodic systems.
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
        places: tuple[Node, Node] | None,
        real: torch.dtype,
    ):
        builder = Assembler({number: Size(*size) for number, size in sizes.items()}, real)
        for index, (node, _) in enumerate(inputs):
            builder.external(node, index)
        own = {node for node, external in inputs if external.along} | {pairs, *(places or ())}
        phases = phases_of(forwards, backwards, own, builder.has_rows)
        nodes = [node for phase in phases for node in phase]
        last = last_uses(nodes, [n for n, _ in outputs], gradients, len(phases[0]) + len(phases[1]))
        held: dict[int, list[int]] = {}
        step, ends, groups = 0, [], {}
        for number, phase in enumerate(phases):
            builder.shared = number in (0, 3)
            groups = groups_of(phase) if builder.shared else {}
            for node in phase:
                before, done = len(builder.values), len(builder.ops)
                builder.add(node)
                for op in builder.ops[done:]:
                    op.group = groups.get(node, 0)
                if not builder.shared and root(node) is node:
                    held.setdefault(last.get(node, step), []).extend(range(before, len(builder.values)))
                for value in held.pop(step, []):
                    builder.release(value)
                step += 1
            ends.append(len(builder.ops))
        marks = dict(zip(("before", "until", "after"), ends, strict=False))
        order = [node for node, _ in inputs]
        marks |= {"batch": order.index(batch), "pairs": order.index(pairs), "places": -1, "site": -1}
        if places is not None:
            marks |= {"places": order.index(places[0]), "site": order.index(places[1])}
        self.shapes = [None if g is None else tuple(map(int, g.meta["val"].shape)) for g in gradients]
        self.taps = (ctypes.c_double * max(1, len(builder.taps)))(*builder.taps)
        if len(builder.slots) > _MOST_SLOTS:
            raise Unsupported(f"{len(builder.slots)} pieces of memory")
        self._freeze(builder, [external for _, external in inputs])
        results = [(builder.known[node], along) for node, along in outputs]
        found = [(builder.known[g], CONSTANT) for g in gradients if g is not None]
        self.forward, self.backward = (self._structure(marks, which) for which in (results, found))

    def _freeze(self, builder: Assembler, externals: list[External]) -> None:
        item = {SINGLE: builder.real.itemsize, DOUBLE: 8, INTEGER: 8}
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
            "op": (Op * len(builder.ops))(*builder.ops),
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
