"""The order of atoms in memory: large systems are computed with near atoms near each other."""

from __future__ import annotations

from copy import copy
from typing import cast

from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.cell_list import spatial_order

_ATOMS_TO_ORDER = 4000  # their features outgrow the caches, and sorting is a hundredth of the time


def in_spatial_order(data: Data) -> tuple[Data, Tensor | None]:
    """Put near atoms near in memory, where one system is large and edges do not name its atoms.

    Returns:
        The system, and the number of each atom in ``data``; ``None`` where the order is as it was.
    """
    pos = cast(Tensor, data.pos)
    if len(pos) <= _ATOMS_TO_ORDER or "edge_index" in data:
        return data, None
    batch = getattr(data, "batch", None)
    if batch is not None and bool(batch.any()):
        return data, None
    order, data = spatial_order(pos), copy(data)
    data.z, data.pos = cast(Tensor, data.z)[order], pos[order]
    return data, order


def in_old_order(out: dict[str, Tensor], order: Tensor | None) -> dict[str, Tensor]:
    """Give the forces of what :func:`in_spatial_order` ordered to the atoms as they were."""
    if order is None or "forces" not in out:
        return out
    return {**out, "forces": out["forces"][order.argsort()]}
