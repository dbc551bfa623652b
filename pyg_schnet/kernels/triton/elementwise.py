r"""Kernels of single elements and neighboring rows: the shifted softplus, its derivatives, sums of rows.

.. math::
    \ln \frac{1 + e^x}{2} = \max(x, 0) + \ln(1 + e^{-|x|}) - \ln 2, \qquad
    \ln(1 + e) = 2 \operatorname{artanh} \frac{e}{2 + e}

The series of the last converges for all :math:`0 \le e \le 1`, as its argument is at most a third; the
hardware's logarithm loses digits near 1.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from pyg_schnet.kernels.operations import empty_like
from pyg_schnet.kernels.triton.launch import blocks, channel_block, contiguous, launch

_BLOCK = 512  # elements of one program
_ROWS = 8  # of one program
_LN2 = tl.constexpr(math.log(2))


@triton.jit
def _decay(x):
    return tl.exp(tl.where(x < 0, x, -x))


@triton.jit
def _sigmoid(x):
    e = _decay(x)
    return tl.where(x < 0, e, 1.0) / (1 + e)


@triton.jit
def ssp_kernel(x, out, count, TERMS: tl.constexpr, BLOCK: tl.constexpr):
    """Compute ln((1 + e^x) / 2)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < count, other=0.0)
    e = _decay(v)
    s = e / (2 + e)
    square = s * s
    series = square * 0
    for k in tl.static_range(TERMS):
        series = 1.0 / (2 * (TERMS - k) - 1) + square * series
    tl.store(out + at, tl.where(v > 0, v, 0.0) + (2 * s * series - _LN2), mask=at < count)


@triton.jit
def ssp_backward_kernel(g, x, out, count, BLOCK: tl.constexpr):
    """Compute g σ(x)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slope = _sigmoid(tl.load(x + at, mask=at < count, other=0.0))
    tl.store(out + at, tl.load(g + at, mask=at < count, other=0.0) * slope, mask=at < count)


@triton.jit
def ssp_double_backward_kernel(a, g, x, to_g, to_x, count, BLOCK: tl.constexpr):
    """Compute a σ(x) and a g σ(x) (1 - σ(x))."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slope = _sigmoid(tl.load(x + at, mask=at < count, other=0.0))
    by_g = tl.load(a + at, mask=at < count, other=0.0) * slope
    tl.store(to_g + at, by_g, mask=at < count)
    tl.store(to_x + at, by_g * tl.load(g + at, mask=at < count, other=0.0) * (1 - slope), mask=at < count)


@triton.jit(do_not_specialize=["rows", "out_rows"])
def correlate_rows_kernel(
    values,
    out,
    rows,
    out_rows,
    channels,
    WEIGHTS: tl.constexpr,
    TRANSPOSE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum neighboring rows, each times its weight, for a block of rows and channels."""
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_R, BLOCK_C), values.dtype.element_ty)
    for m in tl.static_range(len(WEIGHTS)):
        row = r - m if TRANSPOSE else r + m
        mask = ((row >= 0) & (row < rows))[:, None] & (c < channels)[None, :]
        total += WEIGHTS[m] * tl.load(values + (row * channels)[:, None] + c[None, :], mask=mask, other=0.0)
    mask = (r < out_rows)[:, None] & (c < channels)[None, :]
    tl.store(out + (r * channels)[:, None] + c[None, :], total, mask=mask)


def ssp(x: Tensor) -> Tensor:
    """Compute ln((1 + e^x) / 2)."""
    x, out, count = x.contiguous(), empty_like(x), x.numel()
    terms = 8 if x.element_size() == 4 else 17  # beyond, they are below the rounding of 1
    launch(ssp_kernel, (blocks(count, _BLOCK),), x, out, count, TERMS=terms, BLOCK=_BLOCK)
    return out


def ssp_backward(g: Tensor, x: Tensor) -> Tensor:
    """Differentiate ``(g * ssp(x)).sum()`` by x."""
    g, x = contiguous(g, x)
    out, count = empty_like(x), x.numel()
    launch(ssp_backward_kernel, (blocks(count, _BLOCK),), g, x, out, count, BLOCK=_BLOCK)
    return out


def ssp_double_backward(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * ssp_backward(g, x)).sum()`` by g and x."""
    a, g, x = contiguous(a, g, x)
    to_g, to_x, count = empty_like(x), empty_like(x), x.numel()
    launch(ssp_double_backward_kernel, (blocks(count, _BLOCK),), a, g, x, to_g, to_x, count, BLOCK=_BLOCK)
    return to_g, to_x


def correlate_rows(values: Tensor, weights: list[float], transpose: bool) -> Tensor:
    """Sum neighboring rows with fixed weights, or apply the transpose of that."""
    values = values.contiguous()
    rows, channels = values.shape
    out_rows = rows + (len(weights) - 1) * (1 if transpose else -1)
    out, block = values.new_empty(out_rows, channels), channel_block(channels)
    launch(
        correlate_rows_kernel,
        (blocks(out_rows, _ROWS), blocks(channels, block)),
        *(values, out, rows, out_rows, channels),
        WEIGHTS=tuple(weights),
        TRANSPOSE=transpose,
        BLOCK_R=_ROWS,
        BLOCK_C=block,
    )
    return out
