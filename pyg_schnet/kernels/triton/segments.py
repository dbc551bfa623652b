"""Kernels of sums over segments of rows, of their adjoint, and of the order of pairs by interval.

A segment of up to ``_PART`` rows is summed by one program for a block of features; long ones, such as the
energies of all atoms of a large box, by one program for each part, whose sums one program adds up.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyg_schnet.kernels.triton.launch import blocks, channel_block, contiguous, launch
from pyg_schnet.kernels.triton.parts import find_rows, first_part, parts_of

_PART = 2048  # rows of one program
_MEAN = 128  # rows of a segment: where there are fewer in the mean, segments are not cut
_POSITIONS = 256  # of one program


@triton.jit
def _sum_rows(
    values,
    order,
    begin,
    end,
    f,
    features,
    ORDERED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    total = tl.zeros((BLOCK_R, BLOCK_F), values.dtype.element_ty)
    for start in range(begin, end, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        inside = r < end
        row = tl.load(order + r, mask=inside, other=0) if ORDERED else r
        at = (row.to(tl.int64) * features)[:, None] + f[None, :]
        total += tl.load(values + at, mask=inside[:, None] & (f < features)[None, :], other=0.0)
    return tl.sum(total, 0)


@triton.jit
def segments_kernel(
    values,
    order,
    rowptr,
    out,
    features,
    ORDERED: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """Sum the rows of one segment: each part, then the parts in order."""
    segment = tl.program_id(0)
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    end = tl.load(rowptr + segment + 1)
    total = tl.zeros((BLOCK_F,), values.dtype.element_ty)
    for begin in range(tl.load(rowptr + segment), end, PART):
        until = tl.minimum(begin + PART, end)
        total += _sum_rows(values, order, begin, until, f, features, ORDERED, BLOCK_R, BLOCK_F)
    tl.store(out + segment.to(tl.int64) * features + f, total, mask=f < features)


@triton.jit(do_not_specialize=["segments"])
def parts_kernel(
    values,
    order,
    rowptr,
    parts,
    features,
    segments,
    ORDERED: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """Sum the rows of one part of a segment."""
    place = tl.program_id(0)
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    begin, end = find_rows(rowptr, place, segments, PART)
    total = _sum_rows(values, order, begin, end, f, features, ORDERED, BLOCK_R, BLOCK_F)
    written = tl.where(begin < end, features, 0)
    tl.store(parts + place.to(tl.int64) * features + f, total, mask=f < written)


@triton.jit
def add_parts_kernel(parts, rowptr, out, features, PART: tl.constexpr, BLOCK_F: tl.constexpr):
    """Add up the parts of one segment, in order."""
    segment = tl.program_id(0)
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    rows = tl.load(rowptr + segment + 1) - tl.load(rowptr + segment)
    base = first_part(rowptr, segment, PART).to(tl.int64)
    total = tl.zeros((BLOCK_F,), parts.dtype.element_ty)
    for n in range(0, (rows + PART - 1) // PART):
        total += tl.load(parts + (base + n) * features + f, mask=f < features, other=0.0)
    tl.store(out + segment.to(tl.int64) * features + f, total, mask=f < features)


def segment_sum(values: Tensor, rowptr: Tensor, order: list[Tensor]) -> Tensor:
    """Sum rows by segment."""
    values, rowptr = contiguous(values, rowptr)
    rows, segments = values.size(0), rowptr.size(0) - 1
    out = values.new_empty(segments, *values.shape[1:])
    features = out[:1].numel() if segments else 0
    if not features:
        return out
    block = channel_block(features)
    columns = blocks(features, block)
    constants = {"ORDERED": bool(order), "PART": _PART, "BLOCK_R": max(8, 512 // block), "BLOCK_F": block}
    inputs = (values, order[0] if order else None, rowptr)
    if rows <= max(_PART, _MEAN * segments):
        launch(segments_kernel, (segments, columns), *inputs, out, features, **constants, warps=2)
        return out
    places = parts_of(rows, segments, _PART)
    parts = values.new_empty(places, features)
    launch(parts_kernel, (places, columns), *inputs, parts, features, segments, **constants, warps=4)
    launch(
        add_parts_kernel,
        (segments, columns),
        *(parts, rowptr, out, features),
        PART=_PART,
        BLOCK_F=block,
        warps=1,
    )
    return out


@triton.jit
def _find_segments(rowptr, position, segments, steps):
    """Return the last segment that begins at or before each position; -1 or ``segments`` outside of all."""
    low = position * 0 - 1
    high = low + segments + 2
    for _ in range(steps):
        middle = (low + high) // 2
        open = high - low > 1
        begin = tl.load(rowptr + middle, mask=open, other=0)
        low = tl.where(open & (begin <= position), middle, low)
        high = tl.where(open & (begin > position), middle, high)
    return low


@triton.jit(do_not_specialize=["positions", "segments", "steps"])
def expand_kernel(
    values,
    order,
    rowptr,
    out,
    positions,
    features,
    segments,
    steps,
    ORDERED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """Copy the values of segments to a block of their rows; 0 to rows outside of all."""
    position = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    segment = _find_segments(rowptr, position, segments, steps)
    exists = position < positions
    inside = exists & (segment >= 0) & (segment < segments)
    at = (segment.to(tl.int64) * features)[:, None] + f[None, :]
    found = tl.load(values + at, mask=inside[:, None] & (f < features)[None, :], other=0.0)
    row = tl.load(order + position, mask=exists, other=0) if ORDERED else position
    at = (row.to(tl.int64) * features)[:, None] + f[None, :]
    tl.store(out + at, found, mask=(inside if ORDERED else exists)[:, None] & (f < features)[None, :])


def segment_expand(values: Tensor, rowptr: Tensor, order: list[Tensor], rows: int) -> Tensor:
    """Copy the value of each segment to its rows; other rows are zero."""
    values, rowptr = contiguous(values, rowptr)
    shape, segments = (rows, *values.shape[1:]), values.size(0)
    out = values.new_zeros(shape) if order else values.new_empty(shape)
    features = out[:1].numel() if rows else 0
    if not features:
        return out
    positions, block = (order[0].size(0) if order else rows), channel_block(features)
    at_once = max(8, _POSITIONS // block)
    launch(
        expand_kernel,
        (blocks(positions, at_once), blocks(features, block)),
        *(values, order[0] if order else None, rowptr, out),
        *(positions, features, segments, (segments + 1).bit_length()),
        ORDERED=bool(order),
        BLOCK_R=at_once,
        BLOCK_F=block,
        warps=2,
    )
    return out


@triton.jit(do_not_specialize=["pairs", "intervals"])
def find_intervals_kernel(
    distance, out, pairs, intervals, origin: "fp64", inverse: "fp64", BLOCK: tl.constexpr
):
    """Find the interval of the spline in which each distance is; -1 or ``intervals`` outside of it."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    u = (tl.load(distance + p, mask=p < pairs, other=0.0).to(tl.float64) - origin) * inverse
    k = tl.where(u >= 0, tl.where(u < intervals, tl.floor(u), intervals), -1.0)
    tl.store(out + p, k.to(tl.int32), mask=p < pairs)


@triton.jit(do_not_specialize=["pairs", "intervals", "steps"])
def starts_kernel(interval, index, order, rowptr, pairs, intervals, steps, BLOCK: tl.constexpr):
    """Find where each interval begins among sorted pairs, and convert the pairs' indices to int32."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(order + p, tl.load(index + p, mask=p < pairs, other=0).to(tl.int32), mask=p < pairs)
    low = p * 0 - 1  # pairs up to it are in intervals before p
    high = low + 1 + pairs
    for _ in range(steps):
        middle = (low + high) // 2
        open = (high - low > 1) & (p <= intervals)
        before = tl.load(interval + middle, mask=open, other=0) < p
        low = tl.where(open & before, middle, low)
        high = tl.where(open & (before == 0), middle, high)
    tl.store(rowptr + p, high.to(tl.int32), mask=p <= intervals)


def interval_order(distance: Tensor, start: int, spacing: float, intervals: int) -> tuple[Tensor, Tensor]:
    """Sort pairs by the interval of the spline in which their distances are."""
    distance, pairs = distance.contiguous(), distance.size(0)
    interval = distance.new_empty(pairs, dtype=torch.int32)
    launch(
        find_intervals_kernel,
        (blocks(pairs, _POSITIONS),),
        *(distance, interval, pairs, intervals, float(start * spacing), 1.0 / spacing),
        BLOCK=_POSITIONS,
    )
    interval, index = interval.sort(stable=True)
    order, rowptr = torch.empty_like(interval), interval.new_empty(intervals + 1)
    launch(
        starts_kernel,
        (blocks(max(pairs, intervals + 1), _POSITIONS),),
        *(interval, index, order, rowptr, pairs, intervals, pairs.bit_length()),
        BLOCK=_POSITIONS,
    )
    return order, rowptr
