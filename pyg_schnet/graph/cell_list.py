"""Cell lists: pairs of near atoms by vesin, in linear time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_schnet.kernels import on_accelerator

_CELLS = 1e5  # vesin's maximum; its division crashes the process for very long and thin boxes


def fits_cell_list(extents: list[float], reach: float) -> bool:
    """Return whether vesin can divide a box into cells, few of which are empty.

    Args:
        extents: Distances between opposite faces of the box in Å.
        reach: Width of a cell in Å.
    """
    cells = [max(1.0, extent / reach) for extent in extents]
    return math.prod(cells) < _CELLS or min(cells) * (_CELLS / math.prod(cells)) ** (1 / 3) > 4


def close_pairs(pos: Tensor, reach: float, lattice: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Find the pairs closer than ``reach``, in double precision and unsorted.

    Args:
        pos: Positions of one system in Å, ``(atoms, 3)``.
        reach: In Å; larger than the cutoff by the rounding error of ``pos``.
        lattice: Lattice vectors in rows, ``(3, 3)``, all of them periodic; ``None`` for a molecule. Open
            directions need a vector longer than the system by twice ``reach``: vesin's own open directions
            take 9 s for three atoms of a slab 1 µm thick.

    Returns:
        Targets, sources and the cell shifts of the sources.
    """
    from vesin import NeighborList  # imports ASE, which takes longer than the rest of this package

    pos = pos.detach()
    if on_accelerator(pos) and (found := _pairs_on_device(pos, reach, lattice)) is not None:
        return found
    periodic = lattice is not None
    box = np.eye(3) if lattice is None else lattice.detach().cpu().double().numpy()
    cells = NeighborList(cutoff=reach, full_list=True, n_threads=torch.get_num_threads())
    found = cells.compute(pos.cpu().double().numpy(), box, periodic, "PS" if periodic else "P")
    # vesin counts in uint64, which torch cannot compute with.
    target, source = torch.from_numpy(found[0].view(np.int64)).to(pos.device).unbind(1)
    if not periodic:
        return target, source, torch.zeros_like(target)[:, None].expand(-1, 3)
    return target, source, torch.from_numpy(found[1]).to(pos.device)


def _pairs_on_device(
    pos: Tensor, reach: float, lattice: Tensor | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Find pairs where the positions are; ``None`` where vesin cannot, as without NVIDIA's compiler."""
    from vesin import NeighborList

    space = pos.double()
    if lattice is None:  # a periodic box with so much room that no image is near: one algorithm for all
        lattice = (space.amax(0) - space.amin(0) + 2.5 * reach).diag()
    cells = NeighborList(cutoff=reach, full_list=True, algorithm="cell_list")
    try:
        found: Any = cells.compute(space, lattice.detach().to(space), [True] * 3, "PS", copy=False)
    except (RuntimeError, TypeError):  # TypeError by versions that know CPUs only
        return None
    # Copies, for vesin owns its memory; it counts in uint64, which torch cannot compute with.
    target, source = found[0].view(torch.int64).clone().unbind(1)
    return target, source, found[1].clone()
