"""Pairs of periodic systems, each once, between the sites where atoms and their images are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MIX = (-7046029254386353131, -4658895280553007687)  # odd numbers of random bits


class Images(NamedTuple):
    """Pairs of atoms and of sites; the first sites of each system are its atoms, then come images.

    Energy and forces follow from atoms at sites as if there were no cell: the force on an atom is the sum of
    those on its sites, and the derivative by strain the sum over sites of position times gradient.

    Attributes:
        pairs: Atoms of each pair, ``(2, pairs)``; an atom may see its own image.
        places: Their sites, ``(2, pairs)``.
        atom: Of which atom each site is an image, ``(sites,)``.
        shift: In which cell, ``(sites, 3)``.
    """

    pairs: Tensor
    places: Tensor
    atom: Tensor
    shift: Tensor

    def positions(self, pos: Tensor, cell: Tensor, batch: Tensor) -> Tensor:
        """Give the positions of the sites in Å, ``(sites, 3)``, differentiable in ``pos`` and ``cell``."""
        lattice = cell.reshape(-1, 3, 3).to(pos.dtype)
        if len(lattice) == 1:
            moved = self.shift.to(pos.dtype) @ lattice[0]
        else:
            own = lattice.index_select(0, batch.index_select(0, self.atom))
            moved = (self.shift.to(pos.dtype)[:, None] @ own).squeeze(1)
        return pos.index_select(0, self.atom) + moved


def find_images(edge_index: Tensor, shift: Tensor, batch: Tensor) -> Images | None:
    """Take each pair of edges, there and back, once.

    Args:
        edge_index: As of :func:`~pyg_schnet.neighbor_list`, sorted by the system.
        shift: Cell shift of each edge.
        batch: Number of the system of each atom, sorted.

    Returns:
        ``None`` where some edge has no reverse, or is a loop.
    """
    source, target = edge_index
    shift = shift.long()
    sign = (shift.sign() * shift.new_tensor([4, 2, 1])).sum(1)  # of the first that is not zero
    kept = (sign > 0) | ((sign == 0) & (source < target))
    if not _is_symmetric(source, target, shift, kept):
        return None
    source, target, shift = source[kept], target[kept], shift[kept]
    atoms = len(batch)
    place = source.clone()
    outside = sign[kept] > 0
    low = shift.amin(0) if len(shift) else shift.new_zeros(3)
    sides = (shift.amax(0) if len(shift) else low) - low + 1
    cells = ((shift - low) * torch.stack([sides[1] * sides[2], sides[2], sides.new_ones(())])).sum(1)
    key = (source * sides.prod() + cells)[outside]
    images, place_of = key.unique(return_inverse=True)
    place[outside] = atoms + place_of
    first = torch.empty_like(images)
    first[place_of] = torch.arange(len(key), device=key.device)  # some pair that has the image
    atom = torch.cat([torch.arange(atoms, device=batch.device), source[outside][first]])
    moved = torch.cat([shift.new_zeros(atoms, 3), shift[outside][first]])
    pairs, places = torch.stack([target, source]), torch.stack([target, place])
    if atoms and bool(batch[-1] > 0):  # systems one behind the other
        order = batch[atom].argsort(stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order), device=order.device)
        places, atom, moved = number[places], atom[order], moved[order]
    return Images(pairs, places, atom, moved)


def _is_symmetric(source: Tensor, target: Tensor, shift: Tensor, kept: Tensor) -> bool:
    """Whether the kept edges and the reverses of the others are the same, but for chance."""
    if len(source) != 2 * int(kept.sum()):
        return False
    forth = torch.where(kept, source, target)
    back = torch.where(kept, target, source)
    turned = torch.where(kept[:, None], shift, -shift)
    cell = (turned * shift.new_tensor([1, 1 << 20, 1 << 40])).sum(1)
    number = (forth * _MIX[0] + back) * _MIX[1] + cell
    for factor in _MIX:
        number = (number ^ (number >> 29)) * factor
    return bool((torch.where(kept, number, -number)).sum() == 0)
