"""The shifted softplus, twice differentiable: operations and their derivatives for autograd."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyg_schnet.kernels.availability import has_kernels
from pyg_schnet.kernels.operations import call, define, differentiate, empty_like, full_precision

define("ssp(Tensor x) -> Tensor", empty_like)
define("ssp_backward(Tensor g, Tensor x) -> Tensor", lambda g, x: empty_like(x))
define(
    "ssp_double_backward(Tensor a, Tensor g, Tensor x) -> (Tensor, Tensor)",
    lambda a, g, x: (empty_like(x), empty_like(x)),
)


class _ShiftedSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return call(torch.ops.pyg_schnet.ssp.default, x)

    @staticmethod
    def backward(ctx, g):
        return _Backward.apply(g, *ctx.saved_tensors)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, x):
        ctx.save_for_backward(g, x)
        return call(torch.ops.pyg_schnet.ssp_backward.default, g, x)

    @staticmethod
    def backward(ctx, a):
        g, x = ctx.saved_tensors
        if torch.is_grad_enabled() and (a.requires_grad or g.requires_grad or x.requires_grad):
            slope = torch.sigmoid(x)  # plain operations, for a third derivative
            return a * slope, a * g * slope * (1 - slope)
        return torch.ops.pyg_schnet.ssp_double_backward(a, g, x)


differentiate("ssp", _ShiftedSoftplus)
differentiate("ssp_backward", _Backward)


def shifted_softplus(x: Tensor) -> Tensor:
    """Compute ln((1 + e^x) / 2), differentiable any number of times; by plain operations without kernels.

    PyTorch's softplus is linear from 20 on, where its second derivative jumps by 2e-9; here it is from 80 on,
    where the second derivative is zero in float64.

    Args:
        x: Input, of any shape.

    Returns:
        Output, of the same shape.
    """
    x = full_precision(x)
    if not has_kernels(x):
        return nn.functional.softplus(x, threshold=80.0) - math.log(2.0)
    return _ShiftedSoftplus.apply(x)  # pyright: ignore[reportReturnType]


def silu(x: Tensor) -> Tensor:
    """Compute x σ(x), which is x times the slope of the shifted softplus.

    Args:
        x: Input, of any shape.

    Returns:
        Output, of the same shape.
    """
    x = full_precision(x)
    if not has_kernels(x):
        return nn.functional.silu(x)
    return _Backward.apply(x, x)  # pyright: ignore[reportReturnType]
