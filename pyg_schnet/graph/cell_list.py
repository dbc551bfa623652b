"""Cells of space: pairs of near atoms by vesin, in linear time, and near atoms near in memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_CELLS = 1e5  # vesin makes no more, by a division that stops the process for very long and thin boxes


def fits_cell_list(extents: list[float], reach: float) -> bool:
    """Whether vesin can divide a box into cells: not where a few atoms are spread over millions of them.

    Args:
        extents: Distances of the box's faces in Å.
        reach: Width of a cell in Å.
    """
    cells = [max(1.0, extent / reach) for extent in extents]
    return math.prod(cells) < _CELLS or min(cells) * (_CELLS / math.prod(cells)) ** (1 / 3) > 4


def close_pairs(pos: Tensor, reach: float, lattice: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Find the pairs closer than ``reach``, in double precision and no particular order.

    Args:
        pos: Positions of one system in Å, ``(atoms, 3)``.
        reach: In Å; larger than the cutoff by what the precision of ``pos`` leaves open.
        lattice: Lattice vectors in rows, ``(3, 3)``, all of them periodic; ``None`` for a molecule. Give open
            directions a vector longer by twice ``reach`` than the system: vesin knows them too, and takes 9 s
            for three atoms of a slab 1 µm thick.

    Returns:
        Targets, sources and the cell shifts of the sources.
    """
    from vesin import NeighborList  # imports ASE, which takes longer than the rest of this package

    periodic = lattice is not None
    box = lattice.detach().double().cpu().numpy() if lattice is not None else np.eye(3)
    cells = NeighborList(cutoff=reach, full_list=True, n_threads=torch.get_num_threads())
    found = cells.compute(pos.detach().double().cpu().numpy(), box, periodic, "PS" if periodic else "P")
    # vesin counts in uint64, which torch cannot compute with.
    target, source = torch.from_numpy(found[0].view(np.int64)).to(pos.device).unbind(1)
    if not periodic:
        return target, source, torch.zeros_like(target)[:, None].expand(-1, 3)
    return target, source, torch.from_numpy(found[1]).to(pos.device)


def spatial_order(pos: Tensor, width: float = 5.0) -> Tensor:
    """Give an order of the atoms in which near ones are near in memory: cell by cell.

    What a pair reads of its atoms is then in the processor's cache: 50,000 atoms in random order take twice
    as long.

    Args:
        pos: Positions in Å, finite, ``(atoms, 3)``.
        width: Of a cell in Å.
    """
    cell = ((pos.detach() - pos.detach().amin(0)) / width).long()
    rows, columns = (cell[:, axis].max() + 1 for axis in (1, 2))
    return ((cell[:, 0] * rows + cell[:, 1]) * columns + cell[:, 2]).argsort(stable=True)
