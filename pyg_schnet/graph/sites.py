"""Sites of periodic systems: atoms, and the images of atoms with which these interact."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MIX = (-7046029254386353131, -4658895280553007687)  # odd numbers of random bits


class Sites(NamedTuple):
    """Atoms and images of atoms, and the pairs of them that interact.

    Energy and forces follow from atoms at sites as if there were no cell: the force on an atom is the sum of
    the forces on its sites, and the derivative by strain the sum over sites of position times gradient.

    Attributes:
        pairs: Sites of each pair, ``(2, pairs)``.
        atom: Index of the atom of each site, ``(sites,)``.
        shift: Cell shift of each site, ``(sites, 3)``; zero for the atoms themselves.
    """

    pairs: Tensor
    atom: Tensor
    shift: Tensor

    def positions(self, pos: Tensor, cell: Tensor, batch: Tensor) -> Tensor:
        """Return the positions of the sites in Å, ``(sites, 3)``, differentiable in ``pos`` and ``cell``.

        Args:
            pos: Positions of the atoms in Å, ``(atoms, 3)``.
            cell: Lattice vectors in rows, in Å, ``(systems, 3, 3)`` or ``(3, 3)``.
            batch: Index of the system of each atom, ``(atoms,)``.
        """
        lattice = cell.reshape(-1, 3, 3).to(pos.dtype)
        if len(lattice) == 1:
            offset = self.shift.to(pos.dtype) @ lattice[0]
        else:
            own = lattice.index_select(0, batch.index_select(0, self.atom))
            offset = (self.shift.to(pos.dtype)[:, None] @ own).squeeze(1)
        return pos.index_select(0, self.atom) + offset


def find_sites(edge_index: Tensor, shift: Tensor, batch: Tensor) -> Sites | None:
    """Find the sites of a periodic graph, and keep one edge of each pair.

    Args:
        edge_index: Edges of :func:`~pyg_schnet.neighbor_list`, ``(2, edges)``, sorted by system.
        shift: Cell shift of each edge, ``(edges, 3)``.
        batch: Index of the system of each atom, ``(atoms,)``, sorted.

    Returns:
        The sites, system by system, atoms before images; ``None`` if an edge lacks its reverse or is a loop.
    """
    source, target = edge_index
    shift = shift.long()
    sign = (shift.sign() * shift.new_tensor([4, 2, 1])).sum(1)  # of the first nonzero component
    kept = (sign > 0) | ((sign == 0) & (source < target))
    if not _is_symmetric(source, target, shift, kept):
        return None
    source, target, shift = source[kept], target[kept], shift[kept]
    atoms = len(batch)
    site = source.clone()
    is_image = sign[kept] > 0
    low = shift.amin(0) if len(shift) else shift.new_zeros(3)
    sides = (shift.amax(0) if len(shift) else low) - low + 1
    cells = ((shift - low) * torch.stack([sides[1] * sides[2], sides[2], sides.new_ones(())])).sum(1)
    key = (source * sides.prod() + cells)[is_image]
    images, image_of = key.unique(return_inverse=True)
    site[is_image] = atoms + image_of
    first = torch.empty_like(images)
    first[image_of] = torch.arange(len(key), device=key.device)  # a pair with this image
    atom = torch.cat([torch.arange(atoms, device=batch.device), source[is_image][first]])
    shifts = torch.cat([shift.new_zeros(atoms, 3), shift[is_image][first]])
    pairs = torch.stack([target, site])
    if atoms and bool(batch[-1] > 0):  # group the sites by system
        order = batch[atom].argsort(stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order), device=order.device)
        pairs, atom, shifts = number[pairs], atom[order], shifts[order]
    return Sites(pairs, atom, shifts)


def sites_of_edges(edge_index: Tensor, shift: Tensor, atoms: int) -> Sites:
    """Return one site for each atom, then one for the source of each edge: for graphs without symmetry."""
    source, target = edge_index
    number = torch.arange(atoms + len(source), device=source.device)
    shifts = torch.cat([shift.new_zeros(atoms, 3), shift])
    return Sites(torch.stack([number[atoms:], target]), torch.cat([number[:atoms], source]), shifts)


def _is_symmetric(source: Tensor, target: Tensor, shift: Tensor, kept: Tensor) -> bool:
    """Return whether the reverses of the other edges are the kept ones, by hashes of 64 bits."""
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
