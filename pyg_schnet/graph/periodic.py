"""Neighbors of one periodic system, periodic images included."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.graph.cell_list import close_pairs, fits_cell_list
from pyg_schnet.graph.validation import raise_coincident
from pyg_schnet.kernels import on_accelerator

_MAX_IMAGES = 2_000_000  # an eighth of a gigabyte; a cell of 0.25 Å has 70,000 within 5 Å
_MAX_ROUNDING = 0.01  # Å; of positions, which are an error if they are farther away
_LARGE = 2**16  # atoms² images from which cell lists are faster: 50 atoms in a cell of 8 Å, cutoff 5 Å
_LARGE_ON_ACCELERATOR = 2**21  # which are compared at once


def periodic_edges(
    pos: Tensor, cutoff: float, cell: Tensor, pbc: Tensor, backend: str, block: int
) -> tuple[Tensor, Tensor]:
    """Find the atoms and images closer to each atom than the cutoff.

    Args:
        pos: Positions of one system in Å, ``(atoms, 3)``.
        cutoff: Cutoff in Å.
        cell: Lattice vectors in rows, ``(3, 3)``; those of open directions may be zero.
        pbc: Which of them are periodic, ``(3,)``.
        backend: ``"vesin"``, ``"torch"``, which compares each atom with all images, or ``"auto"``.
        block: Number of pairs compared at once.

    Returns:
        Edges sorted by target, source, then shift, and their cell shifts relative to ``pos``.
    """
    atoms = len(pos)
    lattice = _complete(cell, pbc)
    if bool(lattice.det().abs() <= 1e-6 * lattice.norm(dim=1).prod()):
        raise ValueError(
            f"`cell` must have independent lattice vectors where `pbc` is true, got {cell.tolist()}"
        )
    if atoms == 0:
        empty = torch.empty(2, 0, dtype=torch.long, device=pos.device)
        return empty, empty.new_empty(0, 3)
    inverse = torch.linalg.inv(lattice)
    heights = 1 / inverse.norm(dim=0)  # (3,) distances of the lattice planes
    wrap = torch.where(pbc, (pos @ inverse).floor(), 0)  # (atoms, 3)
    farthest = float((wrap.abs() * lattice.norm(dim=1)).max())
    if farthest * torch.finfo(pos.dtype).eps > _MAX_ROUNDING:
        raise ValueError(
            f"`pos` must be nearer to the cell, got an atom {farthest:.1e} Å away, where {pos.dtype} cannot "
            "resolve distances; wrap the atoms into the cell"
        )
    wrapped = pos - wrap @ lattice
    fraction = wrapped @ inverse
    spread = fraction.amax(0) - fraction.amin(0)  # (3,)
    # Both searches extend beyond the cutoff by more than the rounding error of an image; `_closer` decides.
    lengths = torch.where(pbc, (cutoff / heights + 2) * lattice.norm(dim=1), 0)
    size = float((wrapped - wrapped[0]).abs().max() + lengths.sum()) + cutoff
    reach = cutoff + 16 * torch.finfo(pos.dtype).eps * size
    shells = torch.where(pbc, (reach / heights + spread + 1e-3).floor(), 0)  # (3,)
    if float((2 * shells + 1).double().prod()) > _MAX_IMAGES:
        raise ValueError(
            f"`cell` must not be so small for a cutoff of {cutoff} Å: its faces are "
            f"{', '.join(f'{height:.2g}' for height in heights.tolist())} Å apart; check its unit, or what "
            "shrank it"
        )
    shells = shells.long()
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=pos.device) for n in shells.tolist()))
    offset = (images[:, :, None] * lattice).sum(dim=1)  # (images, 3)
    room = torch.where(pbc, 1, spread + 2 * reach)  # open directions have unit normals, and no images
    if backend == "auto":
        large = _LARGE_ON_ACCELERATOR if on_accelerator(pos) else _LARGE
        backend = "vesin" if atoms * atoms * len(images) >= large else "torch"
    if backend == "vesin" and fits_cell_list((room * heights).tolist(), reach):
        target, source, shift = close_pairs(wrapped, reach, room[:, None] * lattice)
        sides = 2 * shells + 1
        image = ((shift[:, 0] + shells[0]) * sides[1] + shift[:, 1] + shells[1]) * sides[2]
        key = (target * atoms + source) * len(images) + image + shift[:, 2] + shells[2]
        key = key.sort()[0]
    else:
        key = _images_in_reach(wrapped, reach, offset, block)
    found = [_closer(wrapped, cutoff, part, images, offset) for part in key.split(block)]
    target, source, image = torch.cat(found, dim=1)
    shift = images.index_select(0, image)
    if bool(wrap.any()):
        shift += (wrap.index_select(0, target) - wrap.index_select(0, source)).long()
    return torch.stack([source, target]), shift


def _images_in_reach(pos: Tensor, reach: float, offset: Tensor, block: int) -> Tensor:
    """Return the indices, in order, of all (target, source, image) within reach, by comparing all."""
    near = []
    rows = max(1, block // (len(pos) * len(offset)))
    for first in range(0, len(pos), rows):
        vector = (pos[None] - pos[first : first + rows, None])[:, :, None] + offset
        square = vector.square().sum(dim=-1)  # (targets, sources, images)
        near.append((square <= reach * reach).flatten().nonzero().squeeze(1) + first * square[0].numel())
    return torch.cat(near)


def _closer(pos: Tensor, cutoff: float, key: Tensor, images: Tensor, offset: Tensor) -> Tensor:
    """Return pairs closer than the cutoff, in the precision of ``pos``, except each atom with itself."""
    pair, image = key // len(images), key % len(images)
    target, source = pair // len(pos), pair % len(pos)
    square = 0
    for x, dx in zip(pos.T.contiguous(), offset.T.contiguous(), strict=True):
        between = x.index_select(0, source) - x.index_select(0, target)
        square = square + (between + dx.index_select(0, image)).square()
    itself = (source == target) & (image == len(images) // 2)  # the middle image has a shift of zero
    if bool(((square == 0) & ~itself).any()):
        first = int(((square == 0) & ~itself).nonzero()[0])
        raise_coincident(source[first], target[first])
    return torch.stack([target, source, image])[:, (square < cutoff * cutoff) & ~itself]


def _complete(cell: Tensor, pbc: Tensor) -> Tensor:
    """Return the cell with unit normals as lattice vectors of open directions, which may be zero."""
    lattice = cell.clone()
    if int(pbc.sum()) == 3:
        return lattice
    kept = cell[pbc]
    if len(kept) == 0:
        return torch.eye(3, dtype=cell.dtype, device=cell.device)
    _, _, rows = torch.linalg.svd(kept, full_matrices=True)
    lattice[~pbc] = rows[len(kept) :]
    return lattice
