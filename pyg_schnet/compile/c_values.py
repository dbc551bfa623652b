"""Values of a generated C program: matrices in buffers and tensors, their extents and strides."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.passes import VIEWS
from pyg_schnet.compile.trace import Unsupported

_aten = torch.ops.aten
Extent = Any  # int or sympy expression of the sizes in runtime.h


@dataclass(frozen=True)
class Value:
    """A matrix; a vector of constant length is a row, any other a column.

    Attributes:
        name: C variable that points to its first element.
        type: Type of the elements: ``real``, ``double`` or ``int64_t``.
        rows: Number of rows.
        columns: Number of columns.
        row_stride: Distance of rows, in elements.
        column_stride: Distance of columns, in elements.
        is_shared: Whether it is the same for all parts of a batch.
        argument: Position of the argument whose memory it is, if any.
    """

    name: str
    type: str
    rows: Extent
    columns: Extent
    row_stride: Extent
    column_stride: Extent = 1
    is_shared: bool = False
    argument: int | None = None

    @property
    def count(self) -> Extent:
        """Number of elements."""
        return self.rows * self.columns

    @property
    def is_contiguous(self) -> bool:
        """Return whether the elements follow each other, row by row."""
        by_rows = self.column_stride == 1 and self.row_stride == self.columns
        return by_rows or 1 in (self.rows, self.columns)

    @property
    def bytes(self) -> str:
        """Distance from its first element to the end of its last, in bytes, in C."""
        last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride
        return c_text(
            sympy.expand(last + 1) if not self.is_contiguous else self.count, f"sizeof({self.type})"
        )

    @property
    def comment(self) -> str:
        """Its shape."""
        return f"({c_text(self.rows)}, {c_text(self.columns)})"


def c_text(extent: Extent, factor: str | None = None) -> str:
    """Write an extent, times a factor if there is one, in C."""
    text = str(extent)
    if factor is None:
        return text
    plain = isinstance(extent, int) or sympy.sympify(extent).is_Atom or sympy.sympify(extent).is_Mul
    return f"{text} * {factor}" if plain else f"({text}) * {factor}"


class Types:
    """C types and extents of a trace's tensors.

    Args:
        real: Type of the network.
        sizes: Names of the trace's symbols.
    """

    def __init__(self, real: torch.dtype, sizes: dict[sympy.Symbol, sympy.Symbol]):
        self._types = {torch.float64: "double", torch.int64: "int64_t", real: "real"}
        self._sizes = sizes

    def type(self, tensor: Tensor) -> str:
        if tensor.dtype not in self._types:
            raise Unsupported(f"{tensor.dtype}")
        return self._types[tensor.dtype]

    def extent(self, extent: int | torch.SymInt) -> Extent:
        if not isinstance(extent, torch.SymInt):
            return int(extent)
        expression = extent.node.expr.xreplace(self._sizes)
        if not expression.is_polynomial() or not expression.free_symbols <= set(self._sizes.values()):
            raise Unsupported(f"the size {expression}")
        return int(expression) if expression.is_Integer else expression

    def shape(self, tensor: Tensor) -> tuple[Extent, Extent]:
        """Return rows and columns."""
        extents = [self.extent(extent) for extent in tensor.shape]
        if len(extents) > 2:
            raise Unsupported(f"{len(extents)} dimensions")
        if len(extents) == 2:
            return extents[0], extents[1]
        if not extents:
            return 1, 1
        return (1, extents[0]) if isinstance(extents[0], int) else (extents[0], 1)

    def symbols(self, node: Node) -> set[str]:
        """Return the names of the sizes in the shapes of a node's tensors."""
        found = node.meta["val"]
        tensors = [found] if isinstance(found, Tensor) else [t for t in found if isinstance(t, Tensor)]
        extents = [self.extent(extent) for tensor in tensors for extent in tensor.shape]
        return {str(s) for extent in extents if not isinstance(extent, int) for s in extent.free_symbols}

    def view(self, node: Node, old: Value) -> tuple[Value, Extent]:
        """Return the value that a view shows, and the distance of its first element from the old one's."""
        rows, columns = self.shape(node.meta["val"])
        target: Any = node.target
        if target is _aten.t.default:
            transposed = replace(
                old,
                rows=old.columns,
                columns=old.rows,
                row_stride=old.column_stride,
                column_stride=old.row_stride,
            )
            return transposed, 0
        if target is _aten.select.int and node.args[1] == 0:
            if old.row_stride != old.columns:
                raise Unsupported("a row of a view")
            row = replace(old, rows=rows, columns=columns, row_stride=columns, column_stride=1)
            return row, int(node.args[2]) * old.row_stride  # pyright: ignore
        if target is _aten.slice.Tensor and node.args[1:3] == (0, 0):
            return replace(old, rows=rows, columns=columns), 0
        if target in VIEWS - {_aten.t.default, _aten.select.int, _aten.slice.Tensor}:
            if not old.is_contiguous:
                raise Unsupported("another shape of a view")
            if {old.rows, old.columns} != {rows, columns}:
                raise Unsupported(f"{target} that copies")
            return replace(old, rows=rows, columns=columns, row_stride=columns, column_stride=1), 0
        raise Unsupported(f"{target}{node.args[1:]}")


def is_view(node: Node) -> bool:
    """Return whether a node is another view of a value, or one of several results."""
    return node.target is operator.getitem or node.target in VIEWS
