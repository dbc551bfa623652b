"""Distances carry gradients to positions and lattice vectors."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pyg_schnet import neighbor_list
from pyg_schnet.graph.pair_graph import measure

CUTOFF = 3.1


def systems(pbc):
    """Two cells smaller than the cutoff, with atoms outside of them."""
    rng = np.random.default_rng(0)
    cell = torch.from_numpy(2.4 * np.eye(3) + rng.uniform(-0.5, 0.5, (2, 3, 3)))
    pos = torch.from_numpy(rng.uniform(-2, 5, (5, 3)))
    return pos, torch.tensor([0, 0, 0, 1, 1]), cell, torch.tensor(pbc).expand(2, 3)


@pytest.mark.parametrize("pbc", [(True, True, True), (False, True, True), (False, False, True)])
@pytest.mark.parametrize("paired", [True, False])
def test_distances_have_gradients_by_positions_and_cells(pbc, paired):
    pos, batch, cell, flags = systems(pbc)
    edge_index, shift = neighbor_list(pos, CUTOFF, batch, cell, flags)
    assert shift.abs().max() > 1
    if not paired:  # a graph that lacks a reverse is measured edge by edge
        edge_index, shift = edge_index[:, 1:], shift[1:]

    def distances(pos, cell):
        geometry = measure(pos, batch, CUTOFF, edge_index, shift, cell, flags)
        assert (geometry.pairs is not None) == paired
        return geometry.distance

    inputs = (pos.requires_grad_(), cell.requires_grad_())
    assert gradcheck(distances, inputs)
    assert gradgradcheck(distances, inputs)
    by_cell = torch.autograd.grad(distances(*inputs).sum(), cell)[0]
    assert (by_cell[:, ~flags[0]] == 0).all()
    assert (by_cell[:, flags[0]] != 0).all()


def test_distances_are_the_lengths_of_the_edges_vectors():
    pos, batch, cell, flags = systems((True, True, True))
    edge_index, shift = neighbor_list(pos, CUTOFF, batch, cell, flags)
    source, target = edge_index
    vector = pos[source] - pos[target] + (shift.double()[:, None] @ cell[batch[target]]).squeeze(1)
    found = measure(pos, batch, CUTOFF, cell=cell, pbc=flags).distance
    expected = vector.norm(dim=1).sort().values
    assert torch.allclose(torch.cat([found, found]).sort().values, expected, atol=1e-13, rtol=0)
