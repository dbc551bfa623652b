"""Pairs are checked where they are built; distances have gradients by positions and lattice vectors."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pyg_schnet import neighbor_list
from pyg_schnet.graph import pair_graph
from pyg_schnet.graph.pair_graph import build_pairs

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
    z = torch.ones(5, dtype=torch.long)
    edge_index, shift = neighbor_list(pos, CUTOFF, batch, cell, flags)
    assert shift.abs().max() > 1
    if not paired:  # a graph that lacks a reverse is measured edge by edge
        edge_index, shift = edge_index[:, 1:], shift[1:]

    def distances(pos, cell):
        edges = {"edge_index": edge_index, "shift": shift}
        graph = build_pairs(z, pos, batch, CUTOFF, **edges, cell=cell, pbc=flags)
        assert graph.is_directed != paired
        return graph.distances()

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
    found = build_pairs(torch.ones(5).long(), pos, batch, CUTOFF, cell=cell, pbc=flags).distances()
    expected = vector.norm(dim=1).sort().values
    assert torch.allclose(torch.cat([found, found]).sort().values, expected, atol=1e-13, rtol=0)


def elements(pos):
    return torch.ones(len(pos), dtype=torch.long)


def loop(pos, batch, cutoff):
    """Pairs by a double loop."""
    limit = math.inf if cutoff is None else cutoff
    number = range(len(pos))
    return [
        (i, j)
        for i in number
        for j in number
        if i < j and batch[i] == batch[j] and math.dist(pos[i].tolist(), pos[j].tolist()) < limit
    ]


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cutoff", [None, 0.5, 1.7, 100.0])
@pytest.mark.parametrize("counts", [[1], [2], [5], [3, 1, 4], [1, 1, 1], [0, 3, 0, 2, 0], [40, 7]], ids=str)
def test_pairs_are_those_of_a_double_loop(counts, cutoff, dtype, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(pair_graph, "has_kernels", lambda like: False)
    pos = 3 * torch.rand(sum(counts), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos, batch = pos.to(dtype), torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    graph = build_pairs(elements(pos), pos, batch, cutoff, num_molecules=len(counts))
    assert sorted(map(tuple, graph.pairs.t().tolist())) == loop(pos, batch.tolist(), cutoff)
    assert graph.num_molecules == len(counts)
    expected = (pos[graph.pairs[0]] - pos[graph.pairs[1]]).norm(dim=1)
    torch.testing.assert_close(graph.distances(), expected, atol=1e-12, rtol=1e-6)


def test_no_atoms_have_no_pairs():
    graph = build_pairs(torch.empty(0, dtype=torch.long), torch.empty(0, 3))
    assert graph.pairs.shape == (2, 0)


def test_a_batch_of_int32_has_the_same_pairs():
    pos, batch = torch.rand(9, 3), torch.tensor([0] * 5 + [1] * 4)
    found, expected = (build_pairs(elements(pos), pos, b, 2.0).pairs for b in (batch.int(), batch))
    assert sorted(found.t().tolist()) == sorted(expected.t().tolist())


def wrong(**changes):
    pos = torch.eye(3, dtype=torch.float64)
    return {"z": elements(pos), "pos": pos, "batch": None, **changes}


NAN = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, math.nan]])
COINCIDENT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (wrong(z=torch.tensor([1, 100, 1])), ValueError, "`z` contains 100"),
        (wrong(allowed=torch.zeros(9).bool()), ValueError, "`z` contains 1, which was absent from training"),
        (wrong(z=elements(NAN), pos=NAN), ValueError, "`pos` must be finite, got .* at atom 1"),
        (wrong(pos=COINCIDENT), ValueError, "two atoms at one point, got atoms 0 and 2"),
        (wrong(batch=torch.tensor([0, 1, 0])), ValueError, "`batch` must be sorted"),
        (wrong(batch=torch.tensor([-1, 0, 0])), ValueError, "`batch` must count molecules from 0, got -1"),
        (wrong(batch=torch.tensor([0, 0])), ValueError, "`batch` must have one entry for each of the 3"),
        (wrong(batch=torch.tensor([0.0, 0.0, 1.0])), TypeError, "`batch` must hold integers"),
        (wrong(batch=torch.tensor([0, 1, 2]), num_molecules=2), ValueError, "`num_molecules` .* at least 3"),
        (wrong(batch=torch.tensor([0, 0, 2]), num_molecules=2), ValueError, "`num_molecules` .* at least 3"),
        (
            wrong(max_num_neighbors=1, cutoff=2.0, pbc=True, cell=9 * torch.eye(3).double()),
            ValueError,
            "`max_num_neighbors` is 1",
        ),
        (wrong(max_num_neighbors=1), ValueError, "`max_num_neighbors` is 1"),
        (wrong(pbc=True), ValueError, "`pbc` must be false"),
        (wrong(pbc=True, cutoff=2.0), ValueError, "`cell` must be given"),
        (
            wrong(pbc=True, cutoff=2.0, edge_index=torch.zeros(2, 0).long()),
            ValueError,
            "`shift` must be given",
        ),
    ],
)
def test_wrong_input_is_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        build_pairs(**arguments)


def test_errors_name_the_callers_atoms_when_these_are_sorted():
    pos = 6 * torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    pos[17] = pos[5]
    with pytest.raises(ValueError, match="got atoms 5 and 17"):
        build_pairs(elements(pos), pos, None, 4.0, sort_atoms=True)


@pytest.mark.parametrize("name", ["forces", "stress"])
def test_a_sorted_graph_has_forces_in_the_callers_order(name):
    pos = 40 * torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    volume, out = torch.ones(1, dtype=torch.float64), []
    for sort_atoms in (False, True):
        graph = build_pairs(elements(pos), pos, None, None, sort_atoms=sort_atoms).with_gradient()
        assert (graph.order is not None) == sort_atoms
        energy = graph.distances().square().sum()
        (gradient,) = torch.autograd.grad(energy, graph.site_pos)
        out.append(graph.forces_and_stress(-gradient, volume=volume)[name])
    torch.testing.assert_close(*out, atol=1e-9, rtol=0)


def test_forces_and_stress_are_the_derivatives_by_positions_and_strain():
    """Harmonic pairs in two cells; strain by autograd, independently of sites."""
    pos, batch, cell, flags = systems((True, True, True))
    edge_index, shift = neighbor_list(pos, CUTOFF, batch, cell, flags)
    strain = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    pos.requires_grad_()
    deformed = pos + (pos[:, None] @ strain[batch]).squeeze(1)
    source, target = edge_index
    lattice = (cell + cell @ strain)[batch[target]]
    vector = deformed[source] - deformed[target] + (shift.double()[:, None] @ lattice).squeeze(1)
    by_pos, by_strain = torch.autograd.grad((vector.norm(dim=1) - 2).square().sum() / 2, (pos, strain))
    graph = build_pairs(elements(pos), pos.detach(), batch, CUTOFF, cell=cell, pbc=flags).with_gradient()
    (gradient,) = torch.autograd.grad((graph.distances() - 2).square().sum(), graph.site_pos)
    volume = cell.det().abs()
    out = graph.forces_and_stress(-gradient, volume=volume)
    torch.testing.assert_close(out["forces"], -by_pos, atol=1e-12, rtol=0)
    torch.testing.assert_close(out["stress"], by_strain / volume[:, None, None], atol=1e-12, rtol=0)
