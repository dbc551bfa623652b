"""Kernels in C for CPUs, as differentiable operations; all of them have a plain form in torch elsewhere."""

from pyg_schnet.kernels.activation import shifted_softplus, silu
from pyg_schnet.kernels.convolution import (
    combine_rows,
    spline_convolution,
    weight_gradients_disabled,
    without_position_gradients,
    without_weight_gradients,
)
from pyg_schnet.kernels.library import Watch, has_kernels, library, program_library, why_not
from pyg_schnet.kernels.operations import DIRECT
from pyg_schnet.kernels.pairs import find_pairs, pair_distances

__all__ = [
    "DIRECT",
    "Watch",
    "combine_rows",
    "find_pairs",
    "has_kernels",
    "library",
    "pair_distances",
    "program_library",
    "shifted_softplus",
    "silu",
    "spline_convolution",
    "weight_gradients_disabled",
    "why_not",
    "without_position_gradients",
    "without_weight_gradients",
]
