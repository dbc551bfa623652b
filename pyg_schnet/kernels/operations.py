"""The operations as plain functions, for programs that call them without torch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyg_schnet.kernels import activation, convolution, pairs

_KERNELS = (
    *(activation.ssp, activation.ssp_adjoint, activation.ssp_adjoint_adjoint),
    *(convolution.convolve, convolution.adjoint, convolution.adjoint_adjoint, convolution.taps),
    *(pairs.distances, pairs.distances_adjoint, pairs.distances_adjoint_adjoint),
)
DIRECT: dict[object, Callable] = {getattr(torch.ops.pyg_schnet, f.__name__).default: f for f in _KERNELS}
