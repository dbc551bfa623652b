"""Operations with kernels in C for CPUs and in Triton for CUDA; elsewhere, plain PyTorch computes."""

from pyg_schnet.kernels.activation import shifted_softplus, silu
from pyg_schnet.kernels.availability import has_kernels, unavailable_reason
from pyg_schnet.kernels.c import implementations as _implementations  # noqa: F401 - registers them
from pyg_schnet.kernels.c.library import library, program_library
from pyg_schnet.kernels.c.pairs import find_pairs
from pyg_schnet.kernels.c.weights_version import WeightsVersion
from pyg_schnet.kernels.convolution import (
    correlate_rows,
    spline_convolution,
    weight_gradients_disabled,
    without_position_gradients,
    without_weight_gradients,
)
from pyg_schnet.kernels.distances import pair_distances
from pyg_schnet.kernels.operations import IMPLEMENTATIONS, on_accelerator
from pyg_schnet.kernels.segments import compress_pairs, interval_order, segment_sum
from pyg_schnet.kernels.triton import LAUNCHES

__all__ = [
    "IMPLEMENTATIONS",
    "LAUNCHES",
    "WeightsVersion",
    "compress_pairs",
    "correlate_rows",
    "find_pairs",
    "has_kernels",
    "interval_order",
    "library",
    "on_accelerator",
    "pair_distances",
    "program_library",
    "segment_sum",
    "shifted_softplus",
    "silu",
    "spline_convolution",
    "unavailable_reason",
    "weight_gradients_disabled",
    "without_position_gradients",
    "without_weight_gradients",
]
