"""Launches of Triton kernels, all of which pass through one function."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyg_schnet.kernels.segments import compress_pairs

OPTIONS = {"enable_fp_fusion": True}  # stated, for releases of Triton differ in it


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Launch a kernel, unless its grid is empty.

    Args:
        kernel: Function decorated with ``triton.jit``.
        grid: Number of programs in each direction.
        arguments: Tensors and numbers, in the kernel's order.
        warps: Groups of 32 threads that compute one program.
        constants: Arguments that are compiled in.
    """
    if all(grid):
        kernel[grid](*arguments, num_warps=warps, **OPTIONS, **constants)


def blocks(size: int, block: int) -> int:
    """Return the number of blocks that cover a size."""
    return -(-size // block)


def channel_block(channels: int) -> int:
    """Return how many channels one program computes: a power of two, as Triton requires."""
    return min(64, 1 << (channels - 1).bit_length())


def pairs_per_program(channels: int) -> int:
    """Return how many pairs a program computes at once; fewer, for lack of registers, in rows not aligned."""
    return 8 if channels % 16 == 0 else 4


def warps_for(elements: int) -> int:
    """Return how many warps compute a number of elements, four in each thread."""
    return max(1, elements // 128)


def contiguous(*tensors: Tensor) -> list[Tensor]:
    """Return tensors row by row, as kernels read them."""
    return [tensor.contiguous() for tensor in tensors]


def rows_of_pairs(first: Tensor, second: Tensor, atoms: int, layout: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return both directions of pairs sorted by atom: ``rowptr``, ``col`` and ``pair``; sort if not given.

    Args:
        first: One atom of each pair, ``(pairs,)``.
        second: The other atom, ``(pairs,)``.
        atoms: Number of atoms.
        layout: The rows, possibly followed by the order of pairs by interval; or nothing.
    """
    return layout[:3] if layout else compress_pairs(first, second, atoms)
