"""Energies, forces and gradients of weights as straight programs, without autograd's work in each call."""

from pyg_schnet.compilation.compiled import CompiledPotential
from pyg_schnet.compilation.inputs import Inputs

__all__ = ["CompiledPotential", "Inputs"]
