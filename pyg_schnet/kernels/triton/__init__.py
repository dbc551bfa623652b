"""Kernels in Triton for CUDA: no atomic operations, and the same bits in each run.

Triton is imported when the first kernel runs, so that installations for CPUs need none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

import pyg_schnet.kernels.activation
import pyg_schnet.kernels.convolution
import pyg_schnet.kernels.distances
import pyg_schnet.kernels.segments  # noqa: F401 - these modules define the operations
from pyg_schnet.kernels.operations import implement

_MODULES = {
    "elementwise": ("ssp", "ssp_backward", "ssp_double_backward", "correlate_rows"),
    "convolution": ("convolve", "convolve_backward", "convolve_double_backward"),
    "distances": ("distances", "distances_backward", "distances_double_backward"),
    "segments": ("segment_sum", "segment_expand", "interval_order"),
}
_SORT = 5  # launches of a radix sort of 32-bit keys
#: The most launches of each operation on a GPU, of calls whose layout is given.
LAUNCHES = {
    "ssp": 1,
    "ssp_backward": 1,
    "ssp_double_backward": 1,
    "correlate_rows": 1,
    "convolve": 1,
    "convolve_backward": 4,  # features; slope; table: parts of intervals, then rows
    "convolve_double_backward": 4,
    "distances": 1,
    "distances_backward": 1,
    "distances_double_backward": 2,
    "segment_sum": 2,  # 1 for short segments
    "segment_expand": 2,  # 1 for sorted rows
    "interval_order": 2 + _SORT,
}


@cache
def implementation(name: str) -> Callable:
    """Import the implementation of an operation, and with it Triton."""
    (module,) = (module for module, names in _MODULES.items() if name in names)
    return getattr(import_module(f"{__name__}.{module}"), name)


def _on_device_of_arguments(name: str) -> Callable:
    def call(*arguments):
        like = next(argument for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device_of(like):  # Triton launches on the current device
            return implementation(name)(*arguments)

    return call


for _name in LAUNCHES:
    implement(_name, _on_device_of_arguments(_name), "CUDA")
