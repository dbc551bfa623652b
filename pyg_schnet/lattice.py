"""Periodic images: the neighbors of one periodic system."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.molecules import raise_coincident


def periodic_edges(
    pos: Tensor, cutoff: float, cell: Tensor, pbc: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """Compare each atom with all images that can be closer than the cutoff.

    Args:
        pos: Positions of one system in Å, ``(atoms, 3)``.
        cutoff: In Å.
        cell: Lattice vectors in rows, ``(3, 3)``; those of open directions may be zero.
        pbc: Which of them are periodic, ``(3,)``.
        block: Number of pairs compared at once.

    Returns:
        Edges sorted by target, then source, and their cell shifts, for ``pos`` as it is.
    """
    atoms = len(pos)
    lattice = _complete(cell, pbc)
    if bool(lattice.det().abs() <= 1e-6 * lattice.norm(dim=1).prod()):
        raise ValueError(
            f"`cell` must have independent lattice vectors where `pbc` is true, got {cell.tolist()}"
        )
    inverse = torch.linalg.inv(lattice)
    heights = 1 / inverse.norm(dim=0)  # (3,) distances of the lattice planes
    # Wrapped atoms differ by less than one lattice vector, hence one shell beyond the cutoff.
    wrap = torch.where(pbc, (pos @ inverse).floor(), 0)  # (atoms, 3)
    shells = torch.where(pbc, (cutoff / heights).floor() + 1, 0).long().tolist()
    ranges = [torch.arange(-n, n + 1, device=pos.device) for n in shells]
    images = torch.cartesian_prod(*ranges)  # (images, 3)
    wrapped = pos - wrap @ lattice
    between = wrapped[None, :] - wrapped[:, None]  # (targets, sources, 3)
    itself = torch.eye(atoms, dtype=torch.bool, device=pos.device)
    found = []
    for part in images.split(max(1, block // max(1, atoms * atoms))):
        vector = between[None] + (part.to(pos.dtype) @ lattice)[:, None, None]
        square = vector.square().sum(dim=-1)  # (images, targets, sources)
        if bool(((square == 0) & ~(itself & (part == 0).all(1)[:, None, None])).any()):
            where = ((square == 0) & ~itself).nonzero()[0]
            raise_coincident(where[2], where[1])
        image, target, source = ((square < cutoff * cutoff) & (square > 0)).nonzero().T
        found.append(torch.cat([target[:, None], source[:, None], part[image]], dim=1))
    target, source, *_ = (edges := torch.cat(found)).T
    shift = edges[:, 2:] + (wrap[target] - wrap[source]).long()
    order = torch.argsort(target * atoms + source, stable=True)
    return torch.stack([source, target])[:, order], shift[order]


def _complete(cell: Tensor, pbc: Tensor) -> Tensor:
    """Replace the lattice vectors of open directions, which may be zero, by unit normals."""
    lattice = cell.clone()
    if int(pbc.sum()) == 3:
        return lattice
    kept = cell[pbc]
    if len(kept) == 0:
        return torch.eye(3, dtype=cell.dtype, device=cell.device)
    _, _, rows = torch.linalg.svd(kept, full_matrices=True)
    lattice[~pbc] = rows[len(kept) :]
    return lattice
