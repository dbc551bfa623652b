"""Memory: bounds of the number of pairs, and errors that name the structure that does not fit."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

MAX_PAIRS_PER_BATCH = 2**20  # atoms within the cutoff of each other; larger batches are split
_BYTES_PER_PAIR = 64  # at least: two indices, a vector, its length, and their gradients
_MAX_DENSITY = 0.2  # atoms per Å³; diamond has 0.176
_ALLOCATOR_MESSAGES = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "cannot allocate memory",
)


def max_pairs(atoms: int, cutoff: float, periodic: bool = False) -> float:
    """Return an upper bound of the number of edges of a structure, without a search.

    Args:
        atoms: Number of atoms of the structure.
        cutoff: Cutoff in Å; infinite if all pairs are connected.
        periodic: Whether atoms have images, which may be neighbors in addition to the other atoms.
    """
    neighbors = _MAX_DENSITY * 4 / 3 * math.pi * cutoff**3
    others = max(0, atoms - 1)
    return atoms * (neighbors if periodic and math.isfinite(cutoff) else min(others, neighbors))


def check_pairs_fit(atoms: int, cutoff: float) -> None:
    """Check that the pairs of a molecule fit into the memory if all its atoms are connected.

    Raises:
        ValueError: If their indices and vectors alone do not fit.
    """
    pairs = atoms * (atoms - 1)
    if math.isinf(cutoff) and pairs * _BYTES_PER_PAIR > host_memory():
        raise ValueError(too_large_reason(atoms, cutoff))


def too_large_reason(atoms: int, cutoff: float) -> str:
    """Return why a structure does not fit into the memory, and what to do."""
    pairs = f", all {atoms * (atoms - 1):,} pairs of which are connected," if math.isinf(cutoff) else ""
    return f"its {atoms:,} atoms{pairs} do not fit into the memory; use a model with a (smaller) cutoff"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an allocation failure."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _ALLOCATOR_MESSAGES)


@contextmanager
def describe_out_of_memory(describe: Callable[[], str]) -> Iterator[None]:
    """Raise ``MemoryError`` with a description in place of an allocation failure in the body."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(describe()) from None


def device_memory(device: torch.device) -> float:
    """Return the free memory of a device, in bytes; that of the host for CPUs, infinite where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return host_memory() if device.type == "cpu" else math.inf


def host_memory() -> float:
    """Return the memory available to this process, in bytes."""
    if sys.platform != "linux":
        return math.inf
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return physical if limit == resource.RLIM_INFINITY else min(limit, physical)
