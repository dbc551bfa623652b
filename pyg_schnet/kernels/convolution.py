"""The convolution with spline filters, twice differentiable: what `convolution.c` computes, for autograd."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor

from pyg_schnet.kernels.library import LIBRARY, library, pointer

# The derivatives to compute. A node of autograd cannot find out whether gradients of positions or of weights
# are needed, and each costs as much as the convolution itself.
_BY_DISTANCE, _BY_TABLE = "distance", "table"
_enabled: ContextVar[tuple[str, ...]] = ContextVar("_enabled", default=(_BY_DISTANCE, _BY_TABLE))


class _Enabled:
    """Context in which only some derivatives are computed; a class is faster than a generator."""

    def __init__(self, *enabled: str):
        self._names = enabled

    def __enter__(self) -> None:
        self._token = _enabled.set(self._names)

    def __exit__(self, *exception: object) -> None:
        _enabled.reset(self._token)


def without_weight_gradients() -> _Enabled:
    """Leave out gradients of filters, while forces are computed or nothing is trained."""
    return _Enabled(_BY_DISTANCE)


def without_position_gradients() -> _Enabled:
    """Leave out gradients of distances, while gradients of weights are computed."""
    return _Enabled(_BY_TABLE)


def weight_gradients_disabled() -> bool:
    """Return whether gradients of filters are left out."""
    return _BY_TABLE not in _enabled.get()


def position_gradients_enabled() -> bool:
    """Return whether gradients of distances are computed."""
    return _BY_DISTANCE in _enabled.get()


_WRONG = 2  # in convolution.c


class _Task(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pairs", "atoms", "knots", "channels", "threads", "checked")),
        *((name, ctypes.c_void_p) for name in ("first", "second", "distance", "table")),
        ("origin", ctypes.c_double),
        ("inverse", ctypes.c_double),
    )


_PLACE = "Tensor table, Tensor distance, Tensor first, Tensor second, SymInt start, float spacing"
LIBRARY.define(f"convolve(Tensor y, {_PLACE}) -> Tensor")
LIBRARY.define(
    f"convolve_backward(Tensor g, Tensor y, {_PLACE}, bool by_distance, bool by_table) "
    "-> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    f"convolve_double_backward(Tensor g, Tensor y, Tensor to_y, Tensor to_slope, {_PLACE}, bool by_distance) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


LIBRARY.define("correlate_rows(Tensor values, float[] weights, bool transpose) -> Tensor")


def _task(
    y: Tensor, table: Tensor, distance: Tensor, first: Tensor, second: Tensor, start: int, spacing: float
) -> _Task:
    atoms, channels = y.shape
    if table.dim() != 2 or table.size(1) != channels:
        raise ValueError(f"`table` must have {channels} channels, as `y` has, got {tuple(table.shape)}")
    if not len(first) == len(second) == len(distance):
        raise ValueError(
            "`distance`, `first` and `second` must have one entry for each pair, got "
            f"{len(distance)}, {len(first)} and {len(second)}"
        )
    if table.dtype != y.dtype or distance.dtype != y.dtype:
        raise TypeError(f"`table` and `distance` must be {y.dtype}, got {table.dtype} and {distance.dtype}")
    return _Task(
        len(distance),
        atoms,
        len(table),
        channels,
        torch.get_num_threads(),
        0,
        first.data_ptr(),
        second.data_ptr(),
        distance.data_ptr(),
        table.data_ptr(),
        start * spacing,
        1 / spacing,
    )


def _call(name: str, task: _Task, *tensors: Tensor | None) -> None:
    like = tensors[0]
    assert like is not None
    loaded = library(like.dtype)
    assert loaded is not None  # `spline_convolution` has asked
    failed = getattr(loaded, name)(ctypes.byref(task), *map(pointer, tensors))
    if failed == _WRONG:
        raise ValueError(
            f"`first` and `second` must be numbers of the {task.atoms} atoms, and `table` must have at least "
            f"6 rows, got {task.knots}"
        )
    if failed:
        raise MemoryError(f"no memory for the threads of `{name}`; use fewer: torch.set_num_threads(1)")


def convolve(y: Tensor, *place) -> Tensor:
    """Add up the filtered features of each atom's neighbors."""
    y, out = y.contiguous(), torch.empty_like(y, memory_format=torch.contiguous_format)
    _call("convolve", _task(y, *place), y, out)
    return out


def convolve_backward(g: Tensor, y: Tensor, *place_and_wanted) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate ``(g * convolve(y)).sum()`` by y, distance and table."""
    *place, by_distance, by_table = place_and_wanted
    table, distance = place[0], place[1]
    g, y = g.contiguous(), y.contiguous()
    by_y = torch.empty_like(y)
    slope = torch.empty_like(distance) if by_distance else distance.new_empty(0)
    to_table = torch.empty_like(table) if by_table else table.new_empty(0)
    wanted = (slope if by_distance else None, to_table if by_table else None)
    _call("convolve_backward", _task(y, *place), g, y, by_y, *wanted)
    return by_y, slope, to_table


def convolve_double_backward(
    g: Tensor, y: Tensor, to_y: Tensor, to_slope: Tensor, *place_and_wanted
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Differentiate ``(to_y * by_y).sum() + (to_slope * slope).sum()`` of :func:`convolve_backward`.

    Returns:
        The derivatives by y, g, table and distance.
    """
    *place, by_distance = place_and_wanted
    table, distance = place[0], place[1]
    g, y, to_y, to_slope = (tensor.contiguous() for tensor in (g, y, to_y, to_slope))
    by_y, by_g, by_table = torch.empty_like(y), torch.empty_like(y), torch.empty_like(table)
    slope = torch.empty_like(distance) if by_distance else distance.new_empty(0)
    inputs = (g, y, to_y, to_slope)
    _call(
        "convolve_double_backward",
        _task(y, *place),
        *inputs,
        by_y,
        by_g,
        by_table,
        slope if by_distance else None,
    )
    return by_y, by_g, by_table, slope


def correlate_rows(values: Tensor, weights: list[float], transpose: bool) -> Tensor:
    """Add up neighboring rows with fixed weights, or do its transpose."""
    values = values.contiguous()
    more = len(weights) - 1
    inner = values if transpose else values[: len(values) - more]
    out = values.new_empty(len(inner) + (more if transpose else 0), values.size(1))
    loaded = library(values.dtype)
    assert loaded is not None
    array = (ctypes.c_float if values.dtype == torch.float32 else ctypes.c_double) * len(weights)
    sizes = (len(weights), max(len(values), len(out)), values.size(1))
    counts = map(ctypes.c_int64, sizes)
    loaded.correlate_rows(pointer(values), array(*weights), *counts, ctypes.c_int(transpose), pointer(out))
    return out


def _like(tensor: Tensor, wanted: bool = True) -> Tensor:
    return torch.empty_like(tensor) if wanted else tensor.new_empty(0)


for _kernel in (convolve, convolve_backward, convolve_double_backward, correlate_rows):
    LIBRARY.impl(_kernel.__name__, _kernel, "CPU")


@torch.library.register_fake("pyg_schnet::convolve", lib=LIBRARY)
def _(y, *place):
    return torch.empty_like(y)


@torch.library.register_fake("pyg_schnet::convolve_backward", lib=LIBRARY)
def _(g, y, table, distance, first, second, start, spacing, by_distance, by_table):
    return torch.empty_like(y), _like(distance, by_distance), _like(table, by_table)


@torch.library.register_fake("pyg_schnet::convolve_double_backward", lib=LIBRARY)
def _(g, y, to_y, to_slope, table, distance, first, second, start, spacing, by_distance):
    return torch.empty_like(y), torch.empty_like(y), torch.empty_like(table), _like(distance, by_distance)


@torch.library.register_fake("pyg_schnet::correlate_rows", lib=LIBRARY)
def _(values, weights, transpose):
    more = (len(weights) - 1) * (1 if transpose else -1)
    return values.new_empty(values.size(0) + more, values.size(1))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, table, distance, first, second, start, spacing, plain):
        ctx.save_for_backward(y, table, distance, first, second)
        ctx.grid, ctx.plain = (start, spacing), plain
        return torch.ops.pyg_schnet.convolve(y, table, distance, first, second, start, spacing)

    @staticmethod
    def backward(ctx, g):
        y, *place = ctx.saved_tensors
        _, needs_table, needs_distance, *_ = ctx.needs_input_grad
        by_distance = needs_distance and position_gradients_enabled()
        by_table = needs_table and _BY_TABLE in _enabled.get()
        by_y, slope, to_table = _Backward.apply(g, y, *place, *ctx.grid, by_distance, by_table, ctx.plain)
        optional = (to_table if by_table else None, slope if by_distance else None)
        return by_y, *optional, None, None, None, None, None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, y, table, distance, first, second, start, spacing, by_distance, by_table, plain):
        ctx.save_for_backward(g, y, table, distance, first, second)
        ctx.grid, ctx.by_distance, ctx.by_table = (start, spacing), by_distance, by_table
        ctx.plain = plain
        ctx.set_materialize_grads(False)
        return torch.ops.pyg_schnet.convolve_backward(
            g, y, table, distance, first, second, start, spacing, by_distance, by_table
        )

    @staticmethod
    def backward(ctx, to_y, to_slope, to_table):
        g, y, *place = ctx.saved_tensors
        to_slope, to_table = (to_slope if ctx.by_distance else None), (to_table if ctx.by_table else None)
        if to_table is not None or torch.is_grad_enabled():  # somebody may differentiate a third time
            found = _plain_backward(ctx.plain, (g, y, *place[:2]), (to_y, to_slope, to_table))
            return *found, *[None] * 7
        to_y = torch.zeros_like(y) if to_y is None else to_y
        to_slope = torch.zeros_like(place[1]) if to_slope is None else to_slope
        by_distance = ctx.needs_input_grad[3] and position_gradients_enabled()
        by_y, by_g, by_table, slope = torch.ops.pyg_schnet.convolve_double_backward(
            g, y, to_y, to_slope, *place, *ctx.grid, by_distance
        )
        return by_g, by_y, by_table, slope if by_distance else None, *[None] * 7


def spline_convolution(
    y: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    start: int,
    spacing: float,
    plain: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Convolve with filters from a spline, both ways over each pair.

    Differentiable by ``y``, ``table`` and ``distance``: twice by kernels, see ``convolution.c``, and more
    often by plain operations.

    Args:
        y: Features, ``(atoms, channels)``.
        table: Coefficients of the filters, ``(knots, channels)``.
        distance: In Å, ``(pairs,)``.
        first: One atom of each pair.
        second: The other.
        start: Number of the first interval of the spline.
        spacing: Of the knots, in Å.
        plain: The same function of y, table and distance by plain operations, for third derivatives.

    Raises:
        NotImplementedError: On a derivative that may need a third one, without ``plain``.
    """
    place = (tensor.contiguous() for tensor in (table, distance, first, second))
    return _Convolve.apply(y, *place, start, spacing, plain)  # pyright: ignore[reportReturnType]


def differentiable(tensor: Tensor) -> Tensor:
    """Give an alias to differentiate by: what the tensor itself came from stays out of the derivative."""
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
        return torch.ops.pyg_schnet.correlate_rows(values, weights, transpose)

    @staticmethod
    def backward(ctx, g):
        return _CorrelateRows.apply(g, ctx.weights, not ctx.transpose), None, None


def combine_rows(values: Tensor, weights: list[float]) -> Tensor:
    """Add up neighboring rows with fixed weights; there are ``len(weights) - 1`` fewer then."""
    return _CorrelateRows.apply(values, weights, False)  # pyright: ignore[reportReturnType]
