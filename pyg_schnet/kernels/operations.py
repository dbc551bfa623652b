"""The operations as plain functions, for programs that call them without torch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyg_schnet.kernels import activation, convolution, pairs

_KERNELS = (
    *(activation.ssp, activation.ssp_backward, activation.ssp_double_backward),
    *(
        convolution.convolve,
        convolution.convolve_backward,
        convolution.convolve_double_backward,
        convolution.correlate_rows,
    ),
    *(pairs.distances, pairs.distances_backward, pairs.distances_double_backward),
)
DIRECT: dict[object, Callable] = {getattr(torch.ops.pyg_schnet, f.__name__).default: f for f in _KERNELS}
