"""Sums over segments of rows in a fixed order, without atomic operations, and the orders that they need."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.kernels.operations import call, define, differentiate, full_precision, implement


def _fake_interval_order(distance, start, spacing, intervals):
    index = distance.new_empty(distance.size(0), dtype=torch.int32)
    return index, distance.new_empty(intervals + 1, dtype=torch.int32)


define(
    "interval_order(Tensor distance, SymInt start, float spacing, SymInt intervals) -> (Tensor, Tensor)",
    _fake_interval_order,
)


def interval_order(distance: Tensor, start: int, spacing: float, intervals: int) -> tuple[Tensor, Tensor]:
    """Sort pairs by the interval of the spline in which their distances are.

    Args:
        distance: Distances in Å, ``(pairs,)``.
        start: Index of the first interval, which begins at ``start * spacing``.
        spacing: Distance of the knots in Å.
        intervals: Number of intervals.

    Returns:
        The pairs in order, ``(pairs,)``, and where each interval begins among them, ``(intervals + 1,)``;
        both int32. Pairs outside of the spline precede the first interval or follow the last.
    """
    return torch.ops.pyg_schnet.interval_order(distance.detach(), start, spacing, intervals)


def compress_pairs(first: Tensor, second: Tensor, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort both directions of pairs by atom; entries of an atom are in the order of the pairs.

    Args:
        first: One atom of each pair, ``(pairs,)``.
        second: The other atom, ``(pairs,)``.
        atoms: Number of atoms.

    Returns:
        ``rowptr``, ``col`` and ``pair`` of :class:`~pyg_schnet.graph.csr.Csr`, int32.
    """
    atom, order = torch.cat([first, second]).sort(stable=True)
    rowptr = torch.searchsorted(atom, torch.arange(atoms + 1, device=atom.device), out_int32=True)
    col = torch.cat([second, first]).index_select(0, order)
    return rowptr, col.int(), (order % max(first.size(0), 1)).int()


define(
    "segment_sum(Tensor values, Tensor rowptr, Tensor[] order) -> Tensor",
    lambda values, rowptr, order: values.new_empty(rowptr.size(0) - 1, *values.shape[1:]),
)
define(
    "segment_expand(Tensor values, Tensor rowptr, Tensor[] order, SymInt rows) -> Tensor",
    lambda values, rowptr, order, rows: values.new_empty(rows, *values.shape[1:]),
)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rowptr, order):
        ctx.save_for_backward(rowptr)
        ctx.order, ctx.rows = order, values.size(0)
        return call(torch.ops.pyg_schnet.segment_sum.default, values, rowptr, order)

    @staticmethod
    def backward(ctx, g):
        return _SegmentExpand.apply(g, *ctx.saved_tensors, ctx.order, ctx.rows), None, None


class _SegmentExpand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rowptr, order, rows):
        ctx.save_for_backward(rowptr)
        ctx.order = order
        return call(torch.ops.pyg_schnet.segment_expand.default, values, rowptr, order, rows)

    @staticmethod
    def backward(ctx, g):
        return _SegmentSum.apply(g, *ctx.saved_tensors, ctx.order), None, None, None


differentiate("segment_sum", _SegmentSum)
differentiate("segment_expand", _SegmentExpand)


def segment_sum(values: Tensor, rowptr: Tensor, order: Tensor | None = None) -> Tensor:
    """Sum rows by segment, differentiable any number of times; segments without rows get zero.

    Args:
        values: ``(rows, *features)``.
        rowptr: Where each segment begins, ``(segments + 1,)``, int32; other rows are left out.
        order: Row of each position, ``(rows,)``, int32, where rows are not sorted by segment.

    Returns:
        ``(segments, *features)``.
    """
    return _SegmentSum.apply(full_precision(values), rowptr, [] if order is None else [order])  # pyright: ignore[reportReturnType]


def _segment_of(rowptr: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Return the segment of each position, and whether it is in one; sizes do not depend on values."""
    position = torch.arange(positions, device=rowptr.device, dtype=rowptr.dtype)
    segment = torch.searchsorted(rowptr, position, right=True) - 1
    inside = (segment >= 0) & (segment < rowptr.size(0) - 1)
    return segment.clamp(0, max(rowptr.size(0) - 2, 0)), inside


def _segment_sum(values: Tensor, rowptr: Tensor, order: list[Tensor]) -> Tensor:
    taken = values.index_select(0, order[0]) if order else values
    segments = rowptr.size(0) - 1
    out = values.new_zeros(segments, *values.shape[1:])
    if segments:
        segment, inside = _segment_of(rowptr, taken.size(0))
        out.index_add_(0, segment, torch.where(inside.view(-1, *[1] * (values.dim() - 1)), taken, 0))
    return out


def _segment_expand(values: Tensor, rowptr: Tensor, order: list[Tensor], rows: int) -> Tensor:
    out = values.new_zeros(rows, *values.shape[1:])
    positions = order[0].size(0) if order else rows
    if values.size(0) and positions:
        segment, inside = _segment_of(rowptr, positions)
        found = values.index_select(0, segment)
        found = torch.where(inside.view(-1, *[1] * (values.dim() - 1)), found, 0)
        out.index_copy_(0, order[0].long(), found) if order else out.copy_(found)
    return out


def _interval_order(distance: Tensor, start: int, spacing: float, intervals: int) -> tuple[Tensor, Tensor]:
    u = (distance.double() - start * spacing) * (1 / spacing)  # as kernels find the place in a table
    interval = u.floor().nan_to_num(-1.0).clamp(-1, intervals).int()
    interval, order = interval.sort(stable=True)
    rowptr = torch.searchsorted(
        interval, torch.arange(intervals + 1, device=distance.device, dtype=torch.int32), out_int32=True
    )
    return order.int(), rowptr


for _function in (_segment_sum, _segment_expand, _interval_order):
    for _device in ("CPU", "CompositeExplicitAutograd"):  # the latter for devices that have no kernels
        implement(_function.__name__[1:], _function, _device)
