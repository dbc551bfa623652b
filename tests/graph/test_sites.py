"""Pairs and sites stand for the same vectors as directed edges and their shifts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pyg_schnet import neighbor_list
from pyg_schnet.graph.sites import find_sites


def systems(seed, counts, pbc):
    rng = torch.Generator().manual_seed(seed)
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    cell = 3 * torch.eye(3).double() + 0.6 * torch.randn(
        len(counts), 3, 3, generator=rng, dtype=torch.float64
    )
    pos = 8 * torch.rand(len(batch), 3, generator=rng, dtype=torch.float64)
    return pos, batch, cell, torch.tensor(pbc).expand(len(counts), 3)


def rows(*columns):
    table = torch.cat([c.double() if c.dim() == 2 else c[:, None].double() for c in columns], dim=1)
    return sorted(map(tuple, (1e9 * table).round().tolist()))


@given(
    seed=st.integers(0, 1000),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    pbc=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_pairs_there_and_back_are_the_edges(seed, counts, pbc):
    pos, batch, cell, flags = systems(seed, counts, pbc)
    edge_index, shift = neighbor_list(pos, 4.0, batch, cell, flags)
    sites = find_sites(edge_index, shift, batch)
    vector = (
        pos[edge_index[0]]
        - pos[edge_index[1]]
        + torch.einsum("ei,eij->ej", shift.double(), cell[batch[edge_index[1]]])
    )
    place = sites.positions(pos, cell, batch)
    half = place[sites.pairs[1]] - place[sites.pairs[0]]
    target, source = sites.atom[sites.pairs]
    both = [torch.cat(pair) for pair in ((source, target), (target, source), (half, -half))]
    assert rows(*edge_index, vector) == rows(*both)
    assert (batch[sites.atom].diff() >= 0).all()
    for number in range(len(counts)):  # first its atoms, then images, each once
        own = batch[sites.atom] == number
        first = sites.atom[own][: counts[number]]
        assert first.tolist() == (batch == number).nonzero().flatten().tolist()
        assert not sites.shift[own][: counts[number]].any()
        assert sites.shift[own][counts[number] :].any(dim=1).all()
    places = torch.cat([sites.atom[:, None], sites.shift], 1)
    assert len(places.unique(dim=0)) == len(places)


@pytest.mark.parametrize("change", ["lost", "loop", "other shift", "twice"])
def test_edges_that_are_no_pairs_are_left_to_others(change):
    pos, batch, cell, flags = systems(0, [4], [True] * 3)
    edge_index, shift = neighbor_list(pos, 4.0, batch, cell, flags)
    if change == "lost":
        edge_index, shift = edge_index[:, 1:], shift[1:]
    elif change == "loop":
        edge_index, shift = (
            torch.cat([edge_index, torch.zeros(2, 2).long()], 1),
            torch.cat([shift, torch.zeros(2, 3).long()]),
        )
    elif change == "other shift":
        shift = shift.clone()
        shift[0, 1] += 1
    else:
        kept = torch.arange(edge_index.size(1)).clamp(min=1)
        edge_index, shift = edge_index[:, kept], shift[kept]
    assert find_sites(edge_index, shift, batch) is None


def test_positions_carry_gradients_to_atoms_and_cell():
    pos, batch, cell, flags = systems(1, [2, 3], [True] * 3)
    sites = find_sites(*neighbor_list(pos, 4.0, batch, cell, flags), batch)
    pos.requires_grad_()
    cell.requires_grad_()
    weight = torch.randn(len(sites.atom), 3, dtype=torch.float64)
    by_pos, by_cell = torch.autograd.grad((sites.positions(pos, cell, batch) * weight).sum(), (pos, cell))
    assert_close(by_pos, torch.zeros_like(pos).index_add(0, sites.atom, weight), atol=1e-12, rtol=0)
    products = sites.shift.double()[:, :, None] * weight[:, None]
    own = batch[sites.atom]
    assert_close(by_cell, torch.zeros_like(cell).index_add(0, own, products), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float32, torch.float64])
def test_shifts_may_be_numbers_of_any_kind(dtype):
    pos, batch, cell, flags = systems(1, [2, 3], [True] * 3)
    edge_index, shift = neighbor_list(pos, 4.0, batch, cell, flags)
    expected, found = find_sites(edge_index, shift, batch), find_sites(edge_index, shift.to(dtype), batch)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
