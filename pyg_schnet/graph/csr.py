"""Edges, sites and atoms in compressed rows: sums in a fixed order, without atomic operations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_schnet.kernels import compress_pairs, has_kernels, on_accelerator, segment_sum

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
        ValueError: If there are more atoms or edges than 32-bit integers can count.
    """
    if atoms > _MAX_EDGES:
        raise ValueError(
            f"atoms must be at most {_MAX_EDGES:,} on a GPU, which counts them in 32 bits, got {atoms:,}; "
            "use smaller batches"
        )
    if 2 * pairs.size(1) > _MAX_EDGES:
        raise ValueError(
            f"`pairs` must be at most {_MAX_EDGES // 2:,} on a GPU, where 32-bit integers count their two "
            f"directions, got {pairs.size(1):,}; use a smaller cutoff or smaller batches"
        )
    return Csr(*compress_pairs(pairs[0], pairs[1], atoms))


def sort_sites(atom: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """Sort the sites of a periodic system by atom.

    Args:
        atom: Atom of each site, ``(sites,)``.
        atoms: Number of atoms.

    Returns:
        Where the sites of each atom begin, ``(atoms + 1,)``, and the sites in that order, both int32.
    """
    atom, order = atom.sort(stable=True)
    return torch.searchsorted(atom, torch.arange(atoms + 1, device=atom.device)).int(), order.int()


def sum_by_molecule(values: Tensor, batch: Tensor, molecules: int) -> Tensor:
    """Sum rows by molecule; molecules without atoms get zero.

    Args:
        values: ``(rows, *features)``.
        batch: Molecule of each row, ``(rows,)``, sorted.
        molecules: Number of molecules.

    Returns:
        ``(molecules, *features)``.
    """
    if torch.compiler.is_compiling() and molecules == 1:  # torch 2.13 fails to compile index_add to one row
        return values.sum(0, keepdim=True)
    if on_accelerator(values) and has_kernels(values):  # where index_add is atomic, in any order
        first = torch.arange(molecules + 1, device=batch.device)
        return segment_sum(values, torch.searchsorted(batch, first, out_int32=True))
    return values.new_zeros(molecules, *values.shape[1:]).index_add(0, batch, values)
