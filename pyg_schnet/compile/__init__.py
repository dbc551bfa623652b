"""Energies, forces and gradients of weights as straight programs, without autograd's work in each call."""

from pyg_schnet.compile.compiled import CompiledPotential
from pyg_schnet.compile.inputs import Inputs

__all__ = ["CompiledPotential", "Inputs"]
