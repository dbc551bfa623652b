"""The order of atoms in memory: large systems are computed with near atoms near each other."""

from __future__ import annotations

from copy import copy
from typing import cast

from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.graph.cell_list import spatial_order
from pyg_schnet.nn import SchNet

_ATOMS_TO_ORDER = 4000  # their features outgrow the caches, and sorting is a hundredth of the time
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def in_spatial_order(data: Data, model: nn.Module) -> tuple[Data, Tensor | None]:
    """Put near atoms near in memory, where one system is large and nothing depends on the order of its atoms.

    Args:
        data: One system or several.
        model: Which computes its energy. Other models than SchNet keep the order: they may read other fields
            of the atoms, or hold numbers for each of them.

    Returns:
        The system, and the number of each atom in ``data``; ``None`` where the order is as it was.
    """
    pos = cast(Tensor, data.pos)
    if len(pos) <= _ATOMS_TO_ORDER or "edge_index" in data or not _reads_elements_and_positions_only(model):
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


def _reads_elements_and_positions_only(model: nn.Module) -> bool:
    """Whether nothing but ``z`` and ``pos`` enters by atom, and no hook sees features of atoms."""
    if not isinstance(model, SchNet) or model.interaction_graph is not None:
        return False
    if any(
        getattr(type(model), name) is not getattr(SchNet, name) for name in ("forward", "locate", "predict")
    ):
        return False
    return not any(getattr(module, hooks) for module in model.modules() for hooks in _HOOKS)
