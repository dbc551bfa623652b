"""Convolution with spline filters, twice differentiable: operations and their derivatives for autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import reduce

import torch
from torch import Tensor

from pyg_schnet.kernels.availability import has_kernels
from pyg_schnet.kernels.operations import call, define, differentiate, empty_like, full_precision

# The derivatives that will be read. In a node of autograd it is unknown whether gradients of positions or of
# weights are wanted, and each costs as much as the convolution itself.
_DISTANCE, _TABLE = "distance", "table"
_needed: ContextVar[tuple[str, ...]] = ContextVar("_needed", default=(_DISTANCE, _TABLE))


class _GradientsOf:
    """A context in which only some derivatives are computed; a class, which is fast to enter and leave.

    For CUDA tensors, autograd's own threads run backward, in which the context would not hold: with CUDA in
    use, the thread of the caller runs backward instead.
    """

    def __init__(self, *needed: str):
        self._needed_here = needed

    def __enter__(self) -> None:
        self._token = _needed.set(self._needed_here)
        self._one_thread = None
        if torch.cuda.is_initialized():
            self._one_thread = torch.autograd.grad_mode.set_multithreading_enabled(False)

    def __exit__(self, *exception: object) -> None:
        if self._one_thread is not None:
            self._one_thread.__exit__(*exception)
        _needed.reset(self._token)


def without_weight_gradients() -> _GradientsOf:
    """Skip gradients of filters: while forces are computed, and where nothing is trained."""
    return _GradientsOf(_DISTANCE)


def without_position_gradients() -> _GradientsOf:
    """Skip gradients of distances, while gradients of weights are computed."""
    return _GradientsOf(_TABLE)


def weight_gradients_disabled() -> bool:
    """Return whether gradients of weights are skipped."""
    return _TABLE not in _needed.get()


def position_gradients_enabled() -> bool:
    """Return whether gradients of distances are computed."""
    return _DISTANCE in _needed.get()


def _fake_backward(g, y, table, distance, first, second, layout, start, spacing, by_distance, by_table):
    return empty_like(y), empty_like(distance, by_distance), empty_like(table, by_table)


def _fake_double_backward(
    g, y, to_y, to_slope, table, distance, first, second, layout, start, spacing, by_distance
):
    return empty_like(y), empty_like(y), empty_like(table), empty_like(distance, by_distance)


def _fake_rows(values, weights, transpose):
    more = (len(weights) - 1) * (1 if transpose else -1)
    return values.new_empty(values.size(0) + more, values.size(1))


_SPLINE = (
    "Tensor table, Tensor distance, Tensor first, Tensor second, Tensor[] layout, SymInt start, float spacing"
)
define(f"convolve(Tensor y, {_SPLINE}) -> Tensor", lambda y, *spline: empty_like(y))
define(
    f"convolve_backward(Tensor g, Tensor y, {_SPLINE}, bool by_distance, bool by_table) "
    "-> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
define(
    f"convolve_double_backward(Tensor g, Tensor y, Tensor to_y, Tensor to_slope, {_SPLINE}, "
    "bool by_distance) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_double_backward,
)
define("correlate_rows(Tensor values, float[] weights, bool transpose) -> Tensor", _fake_rows)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, table, distance, first, second, layout, start, spacing, plain):
        ctx.save_for_backward(y, table, distance, first, second)
        ctx.grid, ctx.plain = (layout, start, spacing), plain
        arguments = (y, table, distance, first, second, *ctx.grid)
        return call(torch.ops.pyg_schnet.convolve.default, *arguments)

    @staticmethod
    def backward(ctx, g):
        y, *place = ctx.saved_tensors
        _, needs_table, needs_distance, *_ = ctx.needs_input_grad
        by_distance = needs_distance and position_gradients_enabled()
        by_table = needs_table and not weight_gradients_disabled()
        by_y, slope, to_table = _Backward.apply(g, y, *place, *ctx.grid, by_distance, by_table, ctx.plain)
        optional = (to_table if by_table else None, slope if by_distance else None)
        return by_y, *optional, None, None, None, None, None, None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, g, y, table, distance, first, second, layout, start, spacing, by_distance, by_table, plain
    ):
        ctx.save_for_backward(g, y, table, distance, first, second)
        ctx.grid, ctx.by_distance, ctx.by_table = (layout, start, spacing), by_distance, by_table
        ctx.plain = plain
        ctx.set_materialize_grads(False)
        arguments = (g, y, table, distance, first, second, *ctx.grid, by_distance, by_table)
        return call(torch.ops.pyg_schnet.convolve_backward.default, *arguments)

    @staticmethod
    def backward(ctx, to_y, to_slope, to_table):
        g, y, *place = ctx.saved_tensors
        to_slope, to_table = (to_slope if ctx.by_distance else None), (to_table if ctx.by_table else None)
        if to_table is not None or torch.is_grad_enabled():  # a third derivative may follow
            found = _plain_backward(ctx.plain, (g, y, *place[:2]), (to_y, to_slope, to_table))
            return *found, *[None] * 8
        to_y = torch.zeros_like(y) if to_y is None else to_y
        to_slope = torch.zeros_like(place[1]) if to_slope is None else to_slope
        by_distance = ctx.needs_input_grad[3] and position_gradients_enabled()
        by_y, by_g, by_table, slope = torch.ops.pyg_schnet.convolve_double_backward(
            g, y, to_y, to_slope, *place, *ctx.grid, by_distance
        )
        return by_g, by_y, by_table, slope if by_distance else None, *[None] * 8


differentiate("convolve", _Convolve, None)
differentiate("convolve_backward", _Backward, None)


def spline_convolution(
    y: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    start: int,
    spacing: float,
    plain: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    layout: Sequence[Tensor] = (),
) -> Tensor:
    """Convolve with filters from a spline, in both directions of each pair.

    Differentiable by ``y``, ``table`` and ``distance``: twice by kernels, and further by plain operations.

    Args:
        y: Features, ``(atoms, channels)``.
        table: Coefficients of the filters, ``(knots, channels)``.
        distance: Distances in Å, ``(pairs,)``.
        first: One atom of each pair, ``(pairs,)``.
        second: The other atom, ``(pairs,)``.
        start: Number of the first interval of the spline.
        spacing: Distance of the knots in Å.
        plain: Function of ``y``, ``table`` and ``distance`` that computes the same by plain operations and
            has the same shape, for third derivatives.
        layout: Order of the sums on GPUs, which need no atomic operations with it: ``rowptr``, ``col`` and
            ``pair`` of :class:`~pyg_schnet.graph.csr.Csr` and, where gradients of the table are wanted, the
            results of :func:`interval_order`. CPUs need none.

    Returns:
        Sums over the neighbors of each atom, ``(atoms, channels)``.

    Raises:
        NotImplementedError: On a derivative that may need a third one, without ``plain``.
    """
    y, table, distance = (full_precision(tensor) for tensor in (y, table, distance))
    place = (tensor.contiguous() for tensor in (table, distance, first, second))
    return _Convolve.apply(y, *place, list(layout), start, spacing, plain)  # pyright: ignore[reportReturnType]


def differentiable(tensor: Tensor) -> Tensor:
    """Return an alias to differentiate by, which leaves out what the tensor itself was computed from."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _plain_backward(
    plain: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
    inputs: tuple[Tensor, ...],
    cotangents: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """Differentiate the results of :func:`convolve_backward` by its inputs, by plain operations."""
    if plain is None:
        raise NotImplementedError("`plain` must be given for third derivatives, got None")
    with torch.enable_grad():
        g, *rest = map(differentiable, inputs)
        y, table, distance = rest
        results = torch.autograd.grad(plain(y, table, distance), (y, distance, table), g, create_graph=True)
        asked = [(r, c) for r, c in zip(results, cotangents, strict=True) if c is not None]
        if not asked:
            return (None,) * 4
        outputs, given = zip(*asked, strict=True)
        return torch.autograd.grad(outputs, (g, *rest), given, create_graph=True, allow_unused=True)


class _CorrelateRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weights, transpose):
        ctx.weights, ctx.transpose = weights, transpose
        return call(torch.ops.pyg_schnet.correlate_rows.default, values, weights, transpose)

    @staticmethod
    def backward(ctx, g):
        return _CorrelateRows.apply(g, ctx.weights, not ctx.transpose), None, None


differentiate("correlate_rows", _CorrelateRows)


def correlate_rows(values: Tensor, weights: list[float]) -> Tensor:
    """Sum neighboring rows with fixed weights, which leaves ``len(weights) - 1`` fewer.

    Differentiable any number of times; by plain operations without kernels.

    Args:
        values: ``(rows, *features)``.
        weights: Weight of each of the neighboring rows.

    Returns:
        ``(rows - len(weights) + 1, *features)``.
    """
    values = full_precision(values)
    if not has_kernels(values):
        rows = values.size(0) - len(weights) + 1
        return reduce(torch.add, (weight * values[k : k + rows] for k, weight in enumerate(weights)))
    return _CorrelateRows.apply(values, weights, False)  # pyright: ignore[reportReturnType]
