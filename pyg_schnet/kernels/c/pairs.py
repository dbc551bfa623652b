"""Search for pairs of atoms, by `pairs.c`."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from pyg_schnet.kernels.c.library import library

_MOST_PAIRS = 2**22  # compared one by one; beyond, trees and cell lists are faster


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def find_pairs(
    z: Tensor,
    allowed: Tensor,
    pos: Tensor,
    batch: Tensor | None,
    cutoff: float | None,
    edge_index: Tensor | None,
) -> tuple[Tensor, float, float] | None:
    """Check molecules and find their pairs, in one call.

    Args:
        z: Atomic numbers, ``(atoms,)``, int64.
        allowed: Whether each atomic number from 0 is allowed, ``(100,)``, bool.
        pos: Positions in Å, ``(atoms, 3)``.
        batch: Index of the molecule of each atom, ``(atoms,)``, int64; one molecule if ``None``.
        cutoff: Cutoff in Å; all pairs if ``None``.
        edge_index: Edges, ``(2, edges)``, if they are known.

    Returns:
        The pairs closer than the cutoff, ``(2, pairs)``, each once with the lower index first, and the
        shortest and the longest distance in Å; ``None`` for wrong input, edges without their reverse,
        no pair, or more pairs than are compared one by one.
    """
    z, pos = z.contiguous(), pos.contiguous()
    batch = None if batch is None else batch.contiguous()
    edge_index = None if edge_index is None else edge_index.contiguous()
    if (loaded := library(pos.dtype)) is None or not allowed.is_contiguous():
        return None
    atoms = len(pos)
    if edge_index is None:
        rows, edges = loaded.count_pairs(_address(batch), atoms), -1
        if not 0 < rows <= _MOST_PAIRS:
            return None
    else:
        edges = edge_index.size(1)
        rows = edges // 2
    out = torch.empty(2 * rows, dtype=torch.long, device="cpu")
    reach = (ctypes.c_double * 2)()
    address = out.data_ptr()
    count = loaded.find_pairs(
        *(z.data_ptr(), allowed.data_ptr(), len(allowed), pos.data_ptr(), _address(batch), atoms),
        *(math.inf if cutoff is None else cutoff, _address(edge_index), edges, rows),
        *(address, address + 8 * rows, reach),
    )
    if count <= 0:
        return None
    pairs = out.view(2, rows)
    return (pairs if count == rows else pairs[:, :count].contiguous()), *reach
