"""Execution of generated C programs: memory, threads and the tensors that go in and out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from pyg_schnet.compile.c_source import arguments_of, c_source
from pyg_schnet.compile.inputs import Inputs
from pyg_schnet.compile.passes import Split
from pyg_schnet.compile.trace import Trace, Unsupported
from pyg_schnet.kernels import library, on_accelerator, program_library

_MAX_PARTS, _SIZES = 16, 6
_NO_MEMORY, _BAD_INDEX, _BAD_SIZE = 1, 3, 4  # in runtime.h
_KEPT_ARENAS = 2  # for later runs
_GEMM = {torch.float32: "sgemm_", torch.float64: "dgemm_"}


@cache
def _runtime(dtype: torch.dtype) -> ctypes.CDLL:
    """Load the runtime, with the matrix product that torch itself uses, and kernels for float64 positions."""
    suffix = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    loaded, double = library(dtype), library(torch.float64)
    assert loaded is not None  # a potential without kernels is not traced
    if double is None:
        raise Unsupported("there are no kernels for float64")
    try:
        of_torch = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / suffix))
        gemm = getattr(of_torch, _GEMM[dtype])
    except (OSError, AttributeError) as error:
        raise Unsupported(f"this build of torch does not export its matrix product: {error}") from None
    set_threads = getattr(
        of_torch, "MKL_Set_Num_Threads_Local", None
    )  # of Intel's library, where torch has it
    kernels = (double.distances, double.distances_backward, double.distances_double_backward)
    functions = (gemm, set_threads, *kernels)
    loaded.set_functions(*(f and ctypes.cast(f, ctypes.c_void_p) for f in functions))
    return loaded


@dataclass(frozen=True)
class BoundWeights:
    """Weights, with the addresses and sizes in bytes of a program's inputs as far as they are known."""

    weights: list[Tensor]
    address: ctypes.Array
    bytes: ctypes.Array

    def with_inputs(self, inputs: Sequence[Tensor]) -> tuple[ctypes.Array, ctypes.Array]:
        """Return new arrays of all addresses and sizes."""
        address = type(self.address).from_buffer_copy(self.address)
        held = type(self.bytes).from_buffer_copy(self.bytes)
        for position, tensor in enumerate(inputs, len(self.weights)):
            address[position], held[position] = tensor.data_ptr(), tensor.nbytes
        return address, held


@dataclass
class Execution:
    """An execution of forward, from which backward continues; holds the tensors whose addresses C keeps."""

    arena: Tensor
    bound: BoundWeights
    inputs: list[Tensor]
    sizes: ctypes.Array
    start: int
    threads: int
    parts: int
    cut: ctypes.Array
    bytes: ctypes.Array
    shapes: list[tuple[torch.Size, torch.dtype]]  # of the results; holding these would be a cycle
    is_spent: bool = False


class CProgram:
    """A compiled C program.

    Args:
        trace: A simplified trace.
        split: Operations of the trace, divided into forward and backward.
        title: Name of the computation.

    Attributes:
        source: The program's text.

    Raises:
        Unsupported: If the runtime lacks an operation, or there is no C compiler.
    """

    def __init__(self, trace: Trace, split: Split, title: str):
        if "rowptr" in trace.inputs or on_accelerator(trace.weights[0].meta["val"]):
            raise Unsupported("programs in C are for CPUs")
        self.dtype = trace.dtype
        self._runtime = _runtime(trace.dtype)
        self.source = c_source(trace, split, title)
        self._library, reason = program_library(self.source, trace.dtype)
        if self._library is None:
            raise Unsupported(str(reason))
        self._program = ctypes.addressof(ctypes.c_char.in_dll(self._library, "program"))
        self._rows = trace.rows
        self._inputs = len(arguments_of(trace))
        gradients = [None if g is None else g.meta["val"] for g in trace.gradients]
        self._gradients = [None if g is None else tuple(map(int, g.shape)) for g in gradients]
        self._arenas: list[Tensor] = []

    def bind(self, weights: list[Tensor]) -> BoundWeights:
        """Collect the addresses of weights, once for many executions.

        Args:
            weights: The first of the program's inputs.
        """
        weights = [weight.contiguous() for weight in weights]
        unknown = self._inputs - len(weights)
        address = (ctypes.c_void_p * self._inputs)(*(tensor.data_ptr() for tensor in weights))
        held = (ctypes.c_int64 * self._inputs)(*(tensor.nbytes for tensor in weights), *[-1] * unknown)
        return BoundWeights(weights, address, held)

    def forward(
        self, bound: BoundWeights, inputs: Inputs, keep: bool
    ) -> tuple[list[Tensor], list[Tensor], Execution]:
        """Compute energy and forces; see :class:`~pyg_schnet.compile.program.Program`."""
        graph = inputs.graph
        results = [
            torch.empty_like(graph.site_pos)
            if rows == "sites"
            else torch.empty(
                len(graph.z) if rows == "atoms" else graph.num_molecules, dtype=torch.float64, device="cpu"
            )
            for rows in self._rows
        ]
        tensors = inputs.tensors()
        execution = self.execute(bound, tensors, results, inputs.sizes(), inputs.knots.start)
        if not keep:
            self._release(execution)
        # Autograd notices if one of these is changed before backward, unless it is a part of another tensor.
        return results, [*bound.weights, *tensors] if keep else [], execution

    def execute(
        self,
        bound: BoundWeights,
        tensors: list[Tensor],
        results: Sequence[Tensor],
        sizes: Sequence[int],
        start: int,
    ) -> Execution:
        """Compute results in tensors of the caller.

        Args:
            bound: The weights.
            tensors: The program's other inputs, contiguous.
            results: Tensors to write to.
            sizes: Numbers of atoms, sites, pairs, molecules, knots and Gaussians.
            start: Number of the knots' first interval.
        """
        extents = (ctypes.c_int64 * _SIZES)(*sizes)
        cut = (ctypes.c_int64 * (_SIZES * (_MAX_PARTS + 1)))()
        used = (ctypes.c_int64 * (_MAX_PARTS + 1))()
        address, held = bound.with_inputs(tensors)
        parts = self._runtime.program_plan(self._program, extents, address, held, cut, used)
        if parts < 0:
            _raise(-parts)
        arena, threads = self._arena(sum(used[: parts + 1])), torch.get_num_threads()
        shapes = [(result.shape, result.dtype) for result in results]
        execution = Execution(arena, bound, tensors, extents, start, threads, parts, cut, used, shapes)
        self._run(execution, address, held, results, backward=False)
        return execution

    def backward(
        self, state: Execution, saved: list[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Compute the gradients of the weights from those of the results; the arena is free afterwards."""
        execution = state
        if execution.is_spent:  # a second time, which overwrites what the first needed
            again = [torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in state.shapes]
            execution = self.execute(state.bound, state.inputs, again, list(state.sizes), state.start)
        execution.is_spent = True
        found = [
            None if shape is None else torch.empty(shape, dtype=self.dtype, device="cpu")
            for shape in self._gradients
        ]
        results = [gradient for gradient in found if gradient is not None]
        gradients = [gradient.contiguous() for gradient in gradients]
        address, held = execution.bound.with_inputs([*execution.inputs, *gradients])
        self._run(execution, address, held, results, backward=True)
        self._release(execution)
        return found

    def _release(self, execution: Execution) -> None:
        """Keep an execution's memory for later ones."""
        if len(self._arenas) < _KEPT_ARENAS:
            self._arenas.append(execution.arena)

    def _arena(self, size: int) -> Tensor:
        """Return memory, an earlier execution's where it is enough: new memory costs more than the work."""
        try:
            arena = self._arenas.pop()  # one step, so that two threads do not get the same
        except IndexError:
            arena = None
        if arena is None or len(arena) < size:
            arena = torch.empty(size + size // 4, dtype=torch.uint8, device="cpu")
        return arena

    def _run(
        self,
        execution: Execution,
        address: ctypes.Array,
        held: ctypes.Array,
        results: Sequence[Tensor],
        backward: bool,
    ) -> None:
        written = (ctypes.c_void_p * max(1, len(results)))(*(result.data_ptr() for result in results))
        e = execution
        error = self._runtime.program_run(
            *(self._program, e.sizes, e.start, e.threads, e.parts, e.cut, e.bytes),
            *(e.arena.data_ptr(), address, held, written, backward),
        )
        if error:
            _raise(error)


def _raise(error: int) -> NoReturn:
    if error == _NO_MEMORY:
        raise MemoryError("no memory for the threads of a program; use fewer: torch.set_num_threads(1)")
    text = {_BAD_INDEX: "numbers of atoms or molecules out of range", _BAD_SIZE: "tensors of other sizes"}
    reason = text.get(error, f"error {error}")
    raise RuntimeError(f"a compiled program failed: {reason}; use the potential without compile()")
