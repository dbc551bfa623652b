"""Interatomic distances of structures within the cutoff of a model."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import batch_of


def pair_distances(data: Data, cutoff: float | None = None) -> Tensor:
    """Compute all interatomic distances of a structure, or of each structure of a batch.

    Args:
        data: Structure or batch with ``z`` and ``pos``, and ``cell`` and ``pbc`` if it is periodic.
        cutoff: Longest distance in Å; ``None`` for all distances of molecules.

    Returns:
        Distances in Å, each pair twice, ``(edges,)``, float64.
    """
    (batch, _), pos = batch_of(data), cast(Tensor, data.pos).double()
    cell, pbc = data.get("cell"), data.get("pbc")
    edges, shift = neighbor_list(pos, math.inf if cutoff is None else cutoff, batch, cell, pbc)
    source, target = edges
    vector = pos[source] - pos[target]
    if cell is not None:
        own = cell.view(-1, 3, 3).double()[batch[target]]
        vector = vector + torch.einsum("ea,eab->eb", shift.double(), own)
    return vector.norm(dim=1)
