"""Distances between the atoms of structures, as far as a model sees them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import batch_of


def pair_distances(data: Data, cutoff: float | None = None) -> Tensor:
    """Measure all distances between atoms of a structure, or of each structure of a batch.

    Args:
        data: With ``z`` and ``pos``; ``cell`` and ``pbc`` where there are any, then images count.
        cutoff: Of the model, in Å; longer distances are left out. ``None`` gives all of molecules.

    Returns:
        In Å and float64, each pair twice, ``(edges,)``.
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
