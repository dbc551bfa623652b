"""Running tapes: memory, threads and the tensors that go in and out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from pyg_schnet.compile.operation import Unsupported
from pyg_schnet.compile.tape import Tape
from pyg_schnet.kernels import library

_PARTS, _SYMBOLS = 16, 7
_NO_MEMORY, _BAD_INDEX, _BAD_SIZE = 1, 4, 5  # in tape.c
_ARENAS = 2  # kept for later runs
_GEMM = {torch.float32: "sgemm_", torch.float64: "dgemm_"}


class _Functions(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("gemm", "distances", "convolve_backward", "second", "limit")
    )


@cache
def _functions(dtype: torch.dtype) -> _Functions:
    """Find the matrix product that torch itself uses, and the kernels for positions in float64."""
    suffix = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    try:
        torchs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / suffix))
        gemm = getattr(torchs, _GEMM[dtype])
    except (OSError, AttributeError) as error:
        raise Unsupported(f"this torch does not hand out its matrix product: {error}") from None
    double = library(torch.float64)
    assert double is not None
    found = [gemm, double.distances, double.distances_backward, double.distances_double_backward]
    if hasattr(torchs, "MKL_Set_Num_Threads_Local"):  # of Intel's library, where torch has it
        found.append(torchs.MKL_Set_Num_Threads_Local)
    return _Functions(*(ctypes.cast(function, ctypes.c_void_p) for function in found))


@dataclass(frozen=True)
class Bound:
    """Weights, and the addresses and sizes in bytes of a tape's inputs as far as they are known."""

    weights: list[Tensor]
    external: ctypes.Array
    held: ctypes.Array

    def place(self, inputs: Sequence[Tensor]) -> tuple[ctypes.Array, ctypes.Array]:
        """Return all addresses and sizes, in arrays of the caller's own."""
        external = type(self.external).from_buffer_copy(self.external)
        held = type(self.held).from_buffer_copy(self.held)
        for place, tensor in enumerate(inputs, len(self.weights)):
            external[place], held[place] = tensor.data_ptr(), tensor.nbytes
        return external, held


@dataclass
class Run:
    """A run of forward, from which backward goes on; holds what both point to."""

    arena: Tensor
    bound: Bound
    inputs: list[Tensor]
    size: ctypes.Array
    start: int
    threads: int
    parts: int
    at: ctypes.Array
    bytes: ctypes.Array
    shapes: list[tuple[torch.Size, torch.dtype]]  # of the results; holding these would be a cycle
    spent: bool = False


class Machine:
    """Runs a tape.

    Args:
        tape: The tape.
        dtype: Of the network.
    """

    def __init__(self, tape: Tape, dtype: torch.dtype):
        self.tape = tape
        self.dtype = dtype
        loaded = library(dtype)
        assert loaded is not None
        self._library = loaded
        self._functions = _functions(dtype)
        self._arenas: list[Tensor] = []

    def bind(self, weights: list[Tensor]) -> Bound:
        """Take down where the weights are, once for many runs where they stay.

        Args:
            weights: The first of the tape's inputs, contiguous.
        """
        external = [tensor.data_ptr() for tensor in weights]
        count = self.tape.forward.externals
        held = [
            *(tensor.nbytes for tensor in weights),
            *[-1] * (count - len(weights)),
        ]  # others are yet to come
        return Bound(weights, (ctypes.c_void_p * count)(*external), (ctypes.c_int64 * count)(*held))

    def forward(
        self,
        bound: Bound,
        inputs: list[Tensor],
        results: Sequence[Tensor],
        size: Sequence[int],
        start: int,
    ) -> Run:
        """Run forward's operations.

        Args:
            bound: The weights.
            inputs: The tape's other inputs, contiguous.
            results: Written to.
            size: Numbers of nothing (0), atoms, pairs, knots, Gaussians, molecules and sites.
            start: Number of the knots' first interval.
        """
        tape, threads = self.tape, torch.get_num_threads()
        sizes = (ctypes.c_int64 * _SYMBOLS)(*size)
        at, used = (ctypes.c_int64 * (_SYMBOLS * (_PARTS + 1)))(), (ctypes.c_int64 * (_PARTS + 1))()
        external, held = bound.place(inputs)
        parts = self._library.tape_plan(ctypes.byref(tape.forward), sizes, external, held, at, used)
        if parts < 0:
            _raise(-parts)
        memory, shapes = self._memory(sum(used[: parts + 1])), [(r.shape, r.dtype) for r in results]
        run = Run(memory, bound, inputs, sizes, start, threads, parts, at, used, shapes)
        self._run(tape.forward, run, external, held, results, backward=False)
        return run

    def backward(self, run: Run, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """Run backward's operations; the arena is free afterwards.

        Args:
            run: What forward gave.
            tensors: The gradients of the results, contiguous.

        Returns:
            The gradients of the weights.
        """
        if run.spent:  # a second time, which overwrites what the first needed
            again = [torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in run.shapes]
            run = self.forward(run.bound, run.inputs, again, list(run.size), run.start)
        run.spent = True
        tape = self.tape
        results = [None if s is None else torch.empty(s, dtype=self.dtype, device="cpu") for s in tape.shapes]
        written = [result for result in results if result is not None]
        self._run(tape.backward, run, *run.bound.place([*run.inputs, *tensors]), written, backward=True)
        self.release(run)
        return results

    def release(self, run: Run) -> None:
        """Use a run's memory again."""
        if len(self._arenas) < _ARENAS:
            self._arenas.append(run.arena)

    def _memory(self, size: int) -> Tensor:
        """Give memory; what an earlier run left, where it is enough: new memory costs more than the work."""
        try:
            arena = self._arenas.pop()  # one step, so that Python's threads do not get the same
        except IndexError:
            arena = None
        if arena is None or len(arena) < size:
            arena = torch.empty(size + size // 4, dtype=torch.uint8, device="cpu")
        return arena

    def _run(
        self,
        structure: Any,
        run: Run,
        external: ctypes.Array,
        held: ctypes.Array,
        results: Sequence[Tensor],
        backward: bool,
    ) -> None:
        written = (ctypes.c_void_p * max(1, len(results)))(*(result.data_ptr() for result in results))
        failed = self._library.tape_run(
            *(ctypes.byref(structure), ctypes.byref(self._functions), self.tape.taps, run.size, run.start),
            *(run.threads, run.parts, run.at, run.bytes, run.arena.data_ptr(), external, held),
            *(written, backward),
        )
        if failed:
            _raise(failed)


def _raise(error: int) -> NoReturn:
    if error == _NO_MEMORY:
        raise MemoryError("no memory for the threads of a program; use fewer: torch.set_num_threads(1)")
    text = {_BAD_INDEX: "numbers of atoms or molecules out of range", _BAD_SIZE: "tensors of other sizes"}
    raise RuntimeError(
        f"a program ended with the error {text.get(error, error)}; use the potential without compile()"
    )
