"""The shifted softplus, twice differentiable in one pass each: what `activation.c` computes, for autograd."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from pyg_schnet.kernels.library import LIBRARY, library, pointer

LIBRARY.define("ssp(Tensor x) -> Tensor")
LIBRARY.define("ssp_backward(Tensor g, Tensor x) -> Tensor")
LIBRARY.define("ssp_double_backward(Tensor a, Tensor g, Tensor x) -> (Tensor, Tensor)")


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _call(name: str, *tensors: Tensor) -> None:
    inputs = tensors[:-1] if name != "ssp_double_backward" else tensors[:-2]
    loaded = library(tensors[0].dtype)
    assert loaded is not None
    count = ctypes.c_int64(tensors[0].numel())
    getattr(loaded, name)(*map(pointer, inputs), count, *map(pointer, tensors[len(inputs) :]))


def ssp(x: Tensor) -> Tensor:
    """Compute ln((1 + e^x) / 2)."""
    x, out = x.contiguous(), _like(x)
    _call("ssp", x, out)
    return out


def ssp_backward(g: Tensor, x: Tensor) -> Tensor:
    """Differentiate ``(g * ssp(x)).sum()`` by x."""
    out = _like(x)
    _call("ssp_backward", g.contiguous(), x.contiguous(), out)
    return out


def ssp_double_backward(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * ssp_backward(g, x)).sum()`` by g and x."""
    to_g, to_x = _like(x), _like(x)
    _call("ssp_double_backward", a.contiguous(), g.contiguous(), x.contiguous(), to_g, to_x)
    return to_g, to_x


for _kernel in (ssp, ssp_backward, ssp_double_backward):
    LIBRARY.impl(_kernel.__name__, _kernel, "CPU")


@torch.library.register_fake("pyg_schnet::ssp", lib=LIBRARY)
def _(x):
    return _like(x)


@torch.library.register_fake("pyg_schnet::ssp_backward", lib=LIBRARY)
def _(g, x):
    return _like(x)


@torch.library.register_fake("pyg_schnet::ssp_double_backward", lib=LIBRARY)
def _(a, g, x):
    return _like(x), _like(x)


class _ShiftedSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.ops.pyg_schnet.ssp(x)

    @staticmethod
    def backward(ctx, g):
        return _Backward.apply(g, *ctx.saved_tensors)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, x):
        ctx.save_for_backward(g, x)
        return torch.ops.pyg_schnet.ssp_backward(g, x)

    @staticmethod
    def backward(ctx, a):
        g, x = ctx.saved_tensors
        if torch.is_grad_enabled() and (a.requires_grad or g.requires_grad or x.requires_grad):
            slope = torch.sigmoid(x)  # plain, for whoever differentiates a third time
            return a * slope, a * g * slope * (1 - slope)
        return torch.ops.pyg_schnet.ssp_double_backward(a, g, x)


def shifted_softplus(x: Tensor) -> Tensor:
    """Compute ln((1 + e^x) / 2), differentiable as often as one likes."""
    return _ShiftedSoftplus.apply(x)  # pyright: ignore[reportReturnType]


def silu(x: Tensor) -> Tensor:
    """Compute x σ(x), which is x times the slope of the shifted softplus."""
    return _Backward.apply(x, x)  # pyright: ignore[reportReturnType]
