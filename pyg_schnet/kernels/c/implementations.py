"""Implementations of the operations for CPUs, by the kernels in C."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

import pyg_schnet.kernels.activation
import pyg_schnet.kernels.convolution
import pyg_schnet.kernels.distances  # noqa: F401 - these modules define the operations
from pyg_schnet.kernels.c.library import library, pointer
from pyg_schnet.kernels.operations import empty_like, implement

_INVALID_SPLINE = 2  # in runtime.h


class _Convolution(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pairs", "atoms", "knots", "channels", "threads", "checked")),
        *((name, ctypes.c_void_p) for name in ("first", "second", "distance", "table")),
        ("origin", ctypes.c_double),
        ("inverse", ctypes.c_double),
    )


def _kernels(like: Tensor) -> ctypes.CDLL:
    loaded = library(like.dtype)
    assert loaded is not None  # callers check `has_kernels` first
    return loaded


def ssp(x: Tensor) -> Tensor:
    """Compute ln((1 + e^x) / 2)."""
    x, out = x.contiguous(), empty_like(x)
    _kernels(x).ssp(pointer(x), ctypes.c_int64(x.numel()), pointer(out))
    return out


def ssp_backward(g: Tensor, x: Tensor) -> Tensor:
    """Differentiate ``(g * ssp(x)).sum()`` by x."""
    g, x, out = g.contiguous(), x.contiguous(), empty_like(x)
    _kernels(x).ssp_backward(pointer(g), pointer(x), ctypes.c_int64(x.numel()), pointer(out))
    return out


def ssp_double_backward(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * ssp_backward(g, x)).sum()`` by g and x."""
    a, g, x = a.contiguous(), g.contiguous(), x.contiguous()
    to_g, to_x = empty_like(x), empty_like(x)
    inputs, count = map(pointer, (a, g, x)), ctypes.c_int64(x.numel())
    _kernels(x).ssp_double_backward(*inputs, count, pointer(to_g), pointer(to_x))
    return to_g, to_x


def _convolution(
    y: Tensor,
    table: Tensor,
    distance: Tensor,
    first: Tensor,
    second: Tensor,
    _: list[Tensor],
    start: int,
    spacing: float,
) -> _Convolution:
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
    return _Convolution(
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


def _run(name: str, task: _Convolution, *tensors: Tensor | None) -> None:
    like = tensors[0]
    assert like is not None
    failed = getattr(_kernels(like), name)(ctypes.byref(task), *map(pointer, tensors))
    if failed == _INVALID_SPLINE:
        raise ValueError(
            f"`first` and `second` must be numbers of the {task.atoms} atoms, and `table` must have at least "
            f"6 rows, got {task.knots}"
        )
    if failed:
        raise MemoryError(f"no memory for the threads of `{name}`; use fewer: torch.set_num_threads(1)")


def convolve(y: Tensor, *place) -> Tensor:
    """Sum the filtered features of each atom's neighbors."""
    y, out = y.contiguous(), empty_like(y)
    _run("convolve", _convolution(y, *place), y, out)
    return out


def convolve_backward(g: Tensor, y: Tensor, *place_and_wanted) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate ``(g * convolve(y)).sum()`` by y, distance and table."""
    *place, by_distance, by_table = place_and_wanted
    table, distance = place[0], place[1]
    g, y = g.contiguous(), y.contiguous()
    by_y = torch.empty_like(y)
    slope, to_table = empty_like(distance, by_distance), empty_like(table, by_table)
    wanted = (slope if by_distance else None, to_table if by_table else None)
    _run("convolve_backward", _convolution(y, *place), g, y, by_y, *wanted)
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
    slope = empty_like(distance, by_distance)
    inputs = (g, y, to_y, to_slope)
    _run(
        "convolve_double_backward",
        _convolution(y, *place),
        *inputs,
        by_y,
        by_g,
        by_table,
        slope if by_distance else None,
    )
    return by_y, by_g, by_table, slope


def correlate_rows(values: Tensor, weights: list[float], transpose: bool) -> Tensor:
    """Sum neighboring rows with fixed weights, or apply the transpose of that."""
    values = values.contiguous()
    more = len(weights) - 1
    inner = values if transpose else values[: len(values) - more]
    out = values.new_empty(len(inner) + (more if transpose else 0), values.size(1))
    array = (ctypes.c_float if values.dtype == torch.float32 else ctypes.c_double) * len(weights)
    sizes = (len(weights), max(len(values), len(out)), values.size(1))
    counts = map(ctypes.c_int64, sizes)
    numbers = (pointer(values), array(*weights), *counts, ctypes.c_int(transpose))
    _kernels(values).correlate_rows(*numbers, pointer(out))
    return out


def distances(pos: Tensor, first: Tensor, second: Tensor, _: list[Tensor]) -> Tensor:
    """Compute distances of pairs."""
    out = pos.new_empty(len(first))
    pairs = ctypes.c_int64(len(first))
    _kernels(pos).distances(pointer(pos), pointer(first), pointer(second), pairs, pointer(out))
    return out


def distances_backward(g: Tensor, pos: Tensor, first: Tensor, second: Tensor, _: list[Tensor]) -> Tensor:
    """Differentiate ``(g * distances).sum()`` by positions."""
    g, out = g.contiguous(), torch.empty_like(pos)
    sizes = ctypes.c_int64(len(first)), ctypes.c_int64(len(pos))
    inputs = map(pointer, (g, pos, first, second))
    _kernels(pos).distances_backward(*inputs, *sizes, pointer(out))
    return out


def distances_double_backward(
    a: Tensor, g: Tensor, pos: Tensor, first: Tensor, second: Tensor, _: list[Tensor], by_pos: bool
) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * distances_backward).sum()`` by g and positions."""
    a, g, to_g = a.contiguous(), g.contiguous(), torch.empty_like(g, memory_format=torch.contiguous_format)
    to_pos = torch.empty_like(pos) if by_pos else pos.new_empty(0)
    sizes = ctypes.c_int64(len(first)), ctypes.c_int64(len(pos))
    inputs = map(pointer, (a, g, pos, first, second))
    outputs = pointer(to_g), pointer(to_pos if by_pos else None)
    _kernels(pos).distances_double_backward(*inputs, *sizes, *outputs)
    return to_g, to_pos


for _function in (
    *(ssp, ssp_backward, ssp_double_backward),
    *(convolve, convolve_backward, convolve_double_backward, correlate_rows),
    *(distances, distances_backward, distances_double_backward),
):
    implement(_function.__name__, _function)
