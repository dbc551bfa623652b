"""Edges in compressed rows, one for each atom: sums over neighbors without atomic operations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MAX_EDGES = 2**31 - 1  # which int32 counts


class Csr(NamedTuple):
    """Both directions of pairs, sorted by atom, in compressed sparse rows.

    Kernels for GPUs assign one program to an atom, which sums over its row in a fixed order.

    Attributes:
        rowptr: Where the row of each atom begins, ``(atoms + 1,)``, int32.
        col: The other atom of each entry, ``(2 * pairs,)``, int32.
        pair: Pair of each entry, ``(2 * pairs,)``, int32.
    """

    rowptr: Tensor
    col: Tensor
    pair: Tensor


def csr_of(pairs: Tensor, atoms: int) -> Csr:
    """Sort both directions of pairs by atom; entries of an atom are in the order of the pairs.

    Args:
        pairs: Atoms of each pair, ``(2, pairs)``.
        atoms: Number of atoms.

    Raises:
        ValueError: If there are more edges than 32-bit integers can count.
    """
    if max(2 * pairs.size(1), atoms) > _MAX_EDGES:
        raise ValueError(
            f"`pairs` must be at most {_MAX_EDGES // 2:,} on a GPU, where 32-bit integers count their two "
            f"directions, got {pairs.size(1):,}; use a smaller cutoff or smaller batches"
        )
    first, second = pairs
    target, col = torch.cat([first, second]), torch.cat([second, first])
    pair = torch.arange(pairs.size(1), device=pairs.device).repeat(2)
    target, order = target.sort(stable=True)
    rowptr = torch.searchsorted(target, torch.arange(atoms + 1, device=pairs.device))
    return Csr(rowptr.int(), col[order].int(), pair[order].int())
