"""Compilation of one kind of call: trace, simplify, then a backend that has its operations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from pyg_schnet.compile.c_backend import CProgram
from pyg_schnet.compile.inputs import Inputs
from pyg_schnet.compile.ordered_sums import order_sums
from pyg_schnet.compile.passes import simplify, split
from pyg_schnet.compile.python_backend import PythonProgram
from pyg_schnet.compile.trace import Unsupported, trace

if TYPE_CHECKING:
    from pyg_schnet.potentials.potential import Potential

_log = logging.getLogger(__name__)
# Python is not much slower than C (benchmarks/LOG.md); a failure of Inductor, chosen for speed, is a warning.
_FALLBACK_LEVEL = {"c": logging.INFO, "inductor": logging.WARNING}


class Program(Protocol):
    """Compiled form of a trace, without weights."""

    def bind(self, weights: list[Tensor]) -> Any:
        """Prepare weights, and tables if there are any, for several calls of forward."""
        ...

    def forward(self, bound: Any, inputs: Inputs, keep: bool) -> tuple[list[Tensor], list[Tensor], Any]:
        """Compute energy and forces.

        Args:
            bound: Result of :meth:`bind`.
            inputs: A batch.
            keep: Whether :meth:`backward` follows.

        Returns:
            The results, the tensors saved for backward, and the other state that it needs.
        """
        ...

    def backward(self, state: Any, saved: list[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute the gradients of the weights from those of the results."""
        ...


def compile_program(
    potential: Potential, inputs: Inputs, forces: bool, trained: bool, backend: str
) -> Program:
    """Compile a potential for one kind of call.

    Args:
        potential: The potential, which must not be used otherwise meanwhile.
        inputs: A batch, of which only types and devices matter.
        forces: Whether to compute forces.
        trained: Whether gradients of the weights will be computed.
        backend: ``"c"``, ``"inductor"`` or ``"python"``, which also runs what the others lack.

    Raises:
        RuntimeError: If torch cannot trace it.
    """
    traced = trace(potential, inputs, forces, trained)
    if backend == "inductor" or inputs.graph.csr is not None:
        order_sums(traced)
    simplify(traced.graph)
    parts = split(traced)
    try:
        if backend == "python":
            return PythonProgram(traced, parts)
        if backend == "c":
            title = "Energy and forces" if forces else "Energy"
            title += " of a SchNet" + (", with gradients of its weights" if trained else "")
            return CProgram(traced, parts, title)
        from pyg_schnet.compile.inductor_backend import InductorProgram  # a second of imports

        return InductorProgram(traced, parts)
    except Unsupported as reason:
        _log.log(_FALLBACK_LEVEL[backend], "a program runs in Python: %s", reason)
        return PythonProgram(traced, parts)
