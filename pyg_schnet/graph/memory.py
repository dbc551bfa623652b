"""Memory: which structures take too much of it, told by name before and after the allocator refuses."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PAIRS_AT_ONCE = 2**20  # of atoms within the cutoff in a batch; more are evaluated in parts
_BYTES_OF_A_PAIR = 64  # at the least: two indices, a vector, its length, and their gradients
_DENSEST = 0.2  # atoms in Å³; diamond has 0.176
_REFUSALS = ("not enough memory", "can't allocate memory", "out of memory", "cannot allocate memory")


def most_pairs(atoms: int, cutoff: float, periodic: bool = False) -> float:
    """Bound the number of edges of a structure without a search.

    Args:
        atoms: Of the structure.
        cutoff: In Å; infinite where all pairs are connected.
        periodic: Whether atoms have images, so that their neighbors may be more than the others.
    """
    neighbors = _DENSEST * 4 / 3 * math.pi * cutoff**3
    others = max(0, atoms - 1)
    return atoms * (neighbors if periodic and math.isfinite(cutoff) else min(others, neighbors))


def check_pairs(atoms: int, cutoff: float) -> None:
    """Check that the pairs of a molecule whose atoms are all connected fit into the memory.

    Raises:
        ValueError: If they do not, whatever is done with them.
    """
    pairs = atoms * (atoms - 1)
    if math.isinf(cutoff) and pairs * _BYTES_OF_A_PAIR > _memory():
        raise ValueError(too_large(atoms, cutoff))


def too_large(atoms: int, cutoff: float) -> str:
    """Write why a structure does not fit into the memory."""
    pairs = f", all {atoms * (atoms - 1):,} pairs of which are connected," if math.isinf(cutoff) else ""
    return f"its {atoms:,} atoms{pairs} do not fit into the memory; use a model with a (smaller) cutoff"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _REFUSALS)


@contextmanager
def explained(describe: Callable[[], str]) -> Iterator[None]:
    """Raise ``MemoryError`` with a description in place of an allocator's words."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(describe()) from None


def _memory() -> float:
    """Return the bytes of memory that this process may have."""
    if sys.platform != "linux":
        return math.inf
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return physical if limit == resource.RLIM_INFINITY else min(limit, physical)
