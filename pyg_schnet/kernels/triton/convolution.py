r"""Kernels of continuous-filter convolutions with filters from a spline, and of their derivatives.

All are derivatives of one number,

.. math::
    S = \sum_p \sum_c w_c(d_p)\, (g_{ic}\, y_{jc} + g_{jc}\, y_{ic}),

over pairs :math:`p` of atoms :math:`i, j` at distances :math:`d_p`:

.. math::
    v_{ic} = \frac{\partial S}{\partial g_{ic}} = \sum_{p \ni i} w_c(d_p)\, y_{jc}, \qquad
    \frac{\partial S}{\partial d_p} = \sum_c w_c'(d_p)\, (g_{ic}\, y_{jc} + g_{jc}\, y_{ic}),

the derivative by :math:`y` is the convolution of :math:`g`, that by the table is in ``table_gradient.py``.
The double backward differentiates :math:`\langle a, \partial S/\partial y\rangle + \langle s, \partial
S/\partial d\rangle`.

Results of atoms: one program computes a block of channels of one atom and walks along the atom's row of
neighbors. Results of pairs: one program sums over all channels of a block of pairs. Each result is written by
one program, which sums in a fixed order: no atomic operations, and the same bits in each run.
"""

import triton
import triton.language as tl
from torch import Tensor

from pyg_schnet.kernels.operations import empty_like
from pyg_schnet.kernels.triton.launch import (
    blocks,
    channel_block,
    contiguous,
    launch,
    pairs_per_program,
    rows_of_pairs,
    warps_for,
)
from pyg_schnet.kernels.triton.spline import (
    combine,
    curvatures,
    find_place,
    load_rows,
    scalar,
    slopes,
    splines,
)
from pyg_schnet.kernels.triton.table_gradient import table_gradient


@triton.jit(do_not_specialize=["knots"])
def convolve_kernel(
    y,
    table,
    distance,
    rowptr,
    col,
    pair,
    out,
    channels,
    knots,
    origin: "fp64",
    inverse: "fp64",
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum filtered features of the neighbors of one atom, in a block of channels."""
    dtype = y.dtype.element_ty
    atom = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    end = tl.load(rowptr + atom + 1)
    total = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    for start in range(tl.load(rowptr + atom), end, BLOCK_P):
        e = start + tl.arange(0, BLOCK_P)
        in_row = e < end
        mask = in_row[:, None] & (c < channels)[None, :]
        d = tl.load(distance + tl.load(pair + e, mask=in_row, other=0), mask=in_row, other=0.0)
        row, t = find_place(d, in_row, origin, inverse, knots, dtype)
        b0, b1, b2, b3, b4, b5 = splines(t)
        at = table + (row * channels)[:, None] + c[None, :]
        r0, r1, r2, r3, r4, r5 = load_rows(at, channels, mask)
        w = combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5)
        other = tl.load(col + e, mask=in_row, other=0).to(tl.int64)
        total += w * tl.load(y + (other * channels)[:, None] + c[None, :], mask=mask, other=0.0)
    tl.store(out + atom * channels + c, tl.sum(total, 0) * (1.0 / 120.0), mask=c < channels)


@triton.jit(do_not_specialize=["knots"])
def second_atoms_kernel(
    g,
    y,
    to_y,
    to_slope,
    table,
    distance,
    rowptr,
    col,
    pair,
    by_y,
    by_g,
    channels,
    knots,
    origin: "fp64",
    inverse: "fp64",
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum s w' g_j, the derivative by y_i, and w a_j + s w' y_j, that by g_i, of one atom."""
    dtype = y.dtype.element_ty
    atom = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    end = tl.load(rowptr + atom + 1)
    sum_y = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    sum_g = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    for start in range(tl.load(rowptr + atom), end, BLOCK_P):
        e = start + tl.arange(0, BLOCK_P)
        in_row = e < end
        mask = in_row[:, None] & (c < channels)[None, :]
        p = tl.load(pair + e, mask=in_row, other=0)
        d = tl.load(distance + p, mask=in_row, other=0.0)
        s = tl.load(to_slope + p, mask=in_row, other=0.0) * scalar(inverse * 5, dtype)
        row, t = find_place(d, in_row, origin, inverse, knots, dtype)
        at = table + (row * channels)[:, None] + c[None, :]
        r0, r1, r2, r3, r4, r5 = load_rows(at, channels, mask)
        b0, b1, b2, b3, b4, b5 = splines(t)
        w = combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5)
        b0, b1, b2, b3, b4, b5 = slopes(t)
        w1 = combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5) * s[:, None]
        other = tl.load(col + e, mask=in_row, other=0).to(tl.int64)
        at = (other * channels)[:, None] + c[None, :]
        sum_y += w1 * tl.load(g + at, mask=mask, other=0.0)
        a = tl.load(to_y + at, mask=mask, other=0.0)
        sum_g += w * a + w1 * tl.load(y + at, mask=mask, other=0.0)
    at = atom * channels + c
    tl.store(by_y + at, tl.sum(sum_y, 0) * (1.0 / 120.0), mask=c < channels)
    tl.store(by_g + at, tl.sum(sum_g, 0) * (1.0 / 120.0), mask=c < channels)


@triton.jit(do_not_specialize=["first", "second", "pairs", "knots"])
def slope_kernel(
    g,
    y,
    to_y,
    to_slope,
    table,
    distance,
    first,
    second,
    slope,
    pairs,
    channels,
    knots,
    origin: "fp64",
    inverse: "fp64",
    SECOND: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum q w' over channels, with q = g_i y_j + g_j y_i; with SECOND, (a_i g_j + a_j g_i) w' + q s w''."""
    dtype = y.dtype.element_ty
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    in_pairs = p < pairs
    i = tl.load(first + p, mask=in_pairs, other=0).to(tl.int64) * channels
    j = tl.load(second + p, mask=in_pairs, other=0).to(tl.int64) * channels
    d = tl.load(distance + p, mask=in_pairs, other=0.0)
    row, t = find_place(d, in_pairs, origin, inverse, knots, dtype)
    factor = scalar(inverse, dtype) * (1.0 / 24.0)
    total = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    for low in range(0, channels, BLOCK_C):
        c = low + tl.arange(0, BLOCK_C)
        mask = in_pairs[:, None] & (c < channels)[None, :]
        at_i, at_j = i[:, None] + c[None, :], j[:, None] + c[None, :]
        r0, r1, r2, r3, r4, r5 = load_rows(table + (row * channels)[:, None] + c[None, :], channels, mask)
        b0, b1, b2, b3, b4, b5 = slopes(t)
        w1 = combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5)
        g_i = tl.load(g + at_i, mask=mask, other=0.0)
        g_j = tl.load(g + at_j, mask=mask, other=0.0)
        q1 = g_i * tl.load(y + at_j, mask=mask, other=0.0) + g_j * tl.load(y + at_i, mask=mask, other=0.0)
        if SECOND:
            b0, b1, b2, b3, b4, b5 = curvatures(t)
            w2 = combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5)
            s = tl.load(to_slope + p, mask=in_pairs, other=0.0) * (4 * scalar(inverse, dtype))
            q = g_j * tl.load(to_y + at_i, mask=mask, other=0.0)
            q += g_i * tl.load(to_y + at_j, mask=mask, other=0.0)
            total += w1 * q + w2 * (s[:, None] * q1)
        else:
            total += w1 * q1
    tl.store(slope + p, tl.sum(total, 1) * factor, mask=in_pairs)


class _Grid:
    """The arguments that kernels share: sizes, the spline's knots, and the block of channels of a program."""

    def __init__(self, y: Tensor, table: Tensor, distance: Tensor, start: int, spacing: float):
        atoms, self.channels = y.shape
        if table.dim() != 2 or table.size(1) != self.channels or table.size(0) < 6:
            raise ValueError(
                f"`table` must have {self.channels} channels, as `y` has, and at least 6 rows, got "
                f"{tuple(table.shape)}"
            )
        if table.dtype != y.dtype or distance.dtype != y.dtype:
            raise TypeError(
                f"`table` and `distance` must be {y.dtype}, got {table.dtype} and {distance.dtype}"
            )
        self.block = channel_block(self.channels)
        self.atoms = (atoms, blocks(self.channels, self.block))
        self.spline = (self.channels, table.size(0), float(start * spacing), 1.0 / spacing)
        self.pairs = pairs_per_program(self.channels)
        self.warps = warps_for(self.pairs * self.block)


def convolve(
    y: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    layout: list[Tensor],
    start: int,
    spacing: float,
) -> Tensor:
    """Sum the filtered features of each atom's neighbors."""
    y, table, distance = contiguous(y, table, distance)
    grid, out = _Grid(y, table, distance, start, spacing), empty_like(y)
    rows = rows_of_pairs(first, second, y.size(0), layout)
    launch(
        convolve_kernel,
        grid.atoms,
        *(y, table, distance, *rows, out, *grid.spline),
        BLOCK_P=grid.pairs,
        BLOCK_C=grid.block,
        warps=grid.warps,
    )
    return out


def _slope(
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    grid: _Grid,
) -> Tensor:
    """Differentiate S by distances, or the double backward, if ``to_y`` and ``to_slope`` are given."""
    slope, pairs = empty_like(distance), distance.size(0)
    is_second = tensors[2] is not None
    launch(
        slope_kernel,
        (blocks(pairs, grid.pairs),),
        *tensors,
        *(table, distance, *contiguous(first, second), slope, pairs, *grid.spline),
        SECOND=is_second,
        BLOCK_P=grid.pairs,
        BLOCK_C=grid.block,
        warps=grid.warps,
    )
    return slope


def convolve_backward(
    g: Tensor,
    y: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    layout: list[Tensor],
    start: int,
    spacing: float,
    by_distance: bool,
    by_table: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate ``(g * convolve(y)).sum()`` by y, distance and table."""
    g, y, table, distance = contiguous(g, y, table, distance)
    place = (table, distance, first, second)
    by_y = convolve(g, *place, layout, start, spacing)
    slope, to_table = distance.new_empty(0), table.new_empty(0)
    if by_distance:
        slope = _slope((g, y, None, None), *place, _Grid(y, table, distance, start, spacing))
    if by_table:
        to_table = table_gradient((g, y, None, None), *place, layout, start, spacing)
    return by_y, slope, to_table


def convolve_double_backward(
    g: Tensor,
    y: Tensor,
    to_y: Tensor,
    to_slope: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    layout: list[Tensor],
    start: int,
    spacing: float,
    by_distance: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Differentiate ``(to_y * by_y).sum() + (to_slope * slope).sum()`` of :func:`convolve_backward`.

    Returns:
        The derivatives by y, g, table and distance.
    """
    g, y, to_y, to_slope, table, distance = contiguous(g, y, to_y, to_slope, table, distance)
    grid, by_y, by_g = _Grid(y, table, distance, start, spacing), empty_like(y), empty_like(y)
    rows = rows_of_pairs(first, second, y.size(0), layout)
    launch(
        second_atoms_kernel,
        grid.atoms,
        *(g, y, to_y, to_slope, table, distance, *rows, by_y, by_g, *grid.spline),
        BLOCK_P=grid.pairs,
        BLOCK_C=grid.block,
        warps=max(1, grid.warps // 2),  # more of them leave too few registers to each
    )
    tensors, place = (g, y, to_y, to_slope), (table, distance, first, second)
    by_table = table_gradient(tensors, *place, layout, start, spacing)
    slope = _slope(tensors, *place, grid) if by_distance else distance.new_empty(0)
    return by_y, by_g, by_table, slope
