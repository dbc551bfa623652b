r"""The derivative of convolutions by the table of their filters, without atomic operations.

With the pairs sorted by the interval of the spline in which their distances are,

.. math::
    \frac{\partial S}{\partial T_{kc}} = \sum_{m=0}^5\; \sum_{p \text{ in interval } k - m}
    b_m(t_p)\, (g_{ic}\, y_{jc} + g_{jc}\, y_{ic}),

and in the double backward :math:`b_m (a_{ic} g_{jc} + a_{jc} g_{ic}) + s\, b_m' (g_{ic} y_{jc} + g_{jc}
y_{ic})` in place of the summand. One program sums over some pairs of one interval for its six rows; then one
sums what belongs to one row, in the order of m and of the pairs.
"""

import triton
import triton.language as tl
from torch import Tensor

from pyg_schnet.kernels.operations import empty_like
from pyg_schnet.kernels.triton.launch import blocks, channel_block, contiguous, launch
from pyg_schnet.kernels.triton.parts import find_rows, first_part, parts_of
from pyg_schnet.kernels.triton.segments import interval_order
from pyg_schnet.kernels.triton.spline import scalar, slopes, splines

_PART = 128  # pairs of one program
_PAIRS = 8  # of them at once


@triton.jit(do_not_specialize=["first", "second", "intervals"])
def intervals_kernel(
    g,
    y,
    to_y,
    to_slope,
    distance,
    first,
    second,
    order,
    rowptr,
    out,
    channels,
    intervals,
    origin: "fp64",
    inverse: "fp64",
    SECOND: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum over one part of the pairs of an interval what they add to each of six rows."""
    dtype = y.dtype.element_ty
    place = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    begin, end = find_rows(rowptr, place, intervals, PART)
    a0 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    a1 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    a2 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    a3 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    a4 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    a5 = tl.zeros((BLOCK_P, BLOCK_C), dtype)
    for start in range(begin, end, BLOCK_P):
        e = start + tl.arange(0, BLOCK_P)
        in_part = e < end
        mask = in_part[:, None] & (c < channels)[None, :]
        p = tl.load(order + e, mask=in_part, other=0)
        u = (tl.load(distance + p, mask=in_part, other=0.0).to(tl.float64) - origin) * inverse
        t = tl.where(in_part, u - tl.floor(u), 0.0).to(dtype)
        at_i = (tl.load(first + p, mask=in_part, other=0).to(tl.int64) * channels)[:, None] + c[None, :]
        at_j = (tl.load(second + p, mask=in_part, other=0).to(tl.int64) * channels)[:, None] + c[None, :]
        g_i = tl.load(g + at_i, mask=mask, other=0.0)
        g_j = tl.load(g + at_j, mask=mask, other=0.0)
        q = g_i * tl.load(y + at_j, mask=mask, other=0.0) + g_j * tl.load(y + at_i, mask=mask, other=0.0)
        if SECOND:
            s = tl.load(to_slope + p, mask=in_part, other=0.0) * scalar(inverse * 5, dtype)
            q1 = s[:, None] * q
            q = g_j * tl.load(to_y + at_i, mask=mask, other=0.0)
            q += g_i * tl.load(to_y + at_j, mask=mask, other=0.0)
            b0, b1, b2, b3, b4, b5 = slopes(t)
            a0 += b0[:, None] * q1
            a1 += b1[:, None] * q1
            a2 += b2[:, None] * q1
            a3 += b3[:, None] * q1
            a4 += b4[:, None] * q1
            a5 += b5[:, None] * q1
        b0, b1, b2, b3, b4, b5 = splines(t)
        a0 += b0[:, None] * q
        a1 += b1[:, None] * q
        a2 += b2[:, None] * q
        a3 += b3[:, None] * q
        a4 += b4[:, None] * q
        a5 += b5[:, None] * q
    at = out + place.to(tl.int64) * 6 * channels + c
    mask = c < tl.where(begin < end, channels, 0)  # places without pairs are not written
    tl.store(at, tl.sum(a0, 0) * (1.0 / 120.0), mask=mask)
    tl.store(at + channels, tl.sum(a1, 0) * (1.0 / 120.0), mask=mask)
    tl.store(at + 2 * channels, tl.sum(a2, 0) * (1.0 / 120.0), mask=mask)
    tl.store(at + 3 * channels, tl.sum(a3, 0) * (1.0 / 120.0), mask=mask)
    tl.store(at + 4 * channels, tl.sum(a4, 0) * (1.0 / 120.0), mask=mask)
    tl.store(at + 5 * channels, tl.sum(a5, 0) * (1.0 / 120.0), mask=mask)


@triton.jit(do_not_specialize=["intervals"])
def rows_kernel(
    parts, rowptr, out, channels, intervals, PART: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Sum what the parts of six intervals add to one row of the table."""
    row = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_P, BLOCK_C), out.dtype.element_ty)
    for m in range(6):
        interval = row - m
        k = tl.minimum(tl.maximum(interval, 0), intervals - 1)
        pairs = tl.load(rowptr + k + 1) - tl.load(rowptr + k)
        count = tl.where(interval == k, (pairs + PART - 1) // PART, 0)
        base = first_part(rowptr, k, PART).to(tl.int64)
        for start in range(0, count, BLOCK_P):
            n = start + tl.arange(0, BLOCK_P)
            at = ((base + n) * 6 + m)[:, None] * channels + c[None, :]
            mask = (n < count)[:, None] & (c < channels)[None, :]
            total += tl.load(parts + at, mask=mask, other=0.0)
    tl.store(out + row.to(tl.int64) * channels + c, tl.sum(total, 0), mask=c < channels)


def table_gradient(
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    layout: list[Tensor],
    start: int,
    spacing: float,
) -> Tensor:
    """Differentiate by the table.

    Args:
        tensors: ``g`` and ``y``, and of a double backward ``to_y`` and ``to_slope``, row by row.
        table: The table, ``(knots, channels)``.
        distance: Distances in Å, ``(pairs,)``.
        first: One atom of each pair, ``(pairs,)``.
        second: The other atom, ``(pairs,)``.
        layout: Ends with the order of the pairs by interval, which is computed where it is missing.
        start: Number of the first interval.
        spacing: Distance of the knots in Å.
    """
    knots, channels = table.shape
    intervals, pairs = knots - 5, distance.size(0)
    order, rowptr = layout[3:] or interval_order(distance, start, spacing, intervals)
    if rowptr.size(0) != intervals + 1:
        raise ValueError(
            f"`layout` must sort pairs into the table's {intervals} intervals, got {rowptr.size(0) - 1}"
        )
    block = channel_block(channels)
    places, columns = parts_of(pairs, intervals, _PART), blocks(channels, block)
    parts, out = table.new_empty(places, 6, channels), empty_like(table)
    launch(
        intervals_kernel,
        (places, columns),
        *tensors,
        *(distance, *contiguous(first, second), order, rowptr, parts, channels, intervals),
        *(float(start * spacing), 1.0 / spacing),
        SECOND=tensors[2] is not None,
        PART=_PART,
        BLOCK_P=_PAIRS,
        BLOCK_C=block,
        warps=4,
    )
    launch(
        rows_kernel,
        (knots, columns),
        *(parts, rowptr, out, channels, intervals),
        PART=_PART,
        BLOCK_P=_PAIRS,
        BLOCK_C=block,
        warps=2,
    )
    return out
