"""Compilation of potentials: energies, forces and gradients of weights without autograd in each call.

First `trace` records all operations as a graph whose sizes are symbols, `passes` simplify it, and `program`
selects a backend: `c_backend` generates C from the graph, `inductor_backend` fuses it for GPUs, and
`python_backend` executes it by torch.
"""

from pyg_schnet.compile.compiled import CompiledPotential
from pyg_schnet.compile.inputs import Inputs

__all__ = ["CompiledPotential", "Inputs"]
