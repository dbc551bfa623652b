"""Batches are filled up to a number of edges, each structure once, the same for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet import Potential, RadiusGraph, SchNet, neighbor_list
from pyg_schnet.loader import DataLoader
from pyg_schnet.loader.sampler import EdgeBudgetSampler, count_edges
from pyg_schnet.potentials.metrics import evaluate


def one_after_another(edges, order, budget):
    """The rule in plain words: a batch is full where the next structure would be too much."""
    batches, total = [], 0
    for number in order:
        if not batches or total + edges[number] > budget:
            batches.append([])
            total = 0
        batches[-1].append(number)
        total += edges[number]
    return batches


@given(
    edges=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    budget=st.integers(1, 200),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_batches_are_those_of_the_plain_rule(edges, budget, epoch, shuffle):
    sampler = EdgeBudgetSampler(edges, budget, shuffle)
    found = [batch.tolist() for batch in sampler.batches(epoch)]
    order = [number for batch in found for number in batch]
    assert sorted(order) == list(range(len(edges)))
    assert found == one_after_another(edges, order, budget)


def test_a_structure_that_is_too_large_has_a_batch_of_its_own():
    sampler = EdgeBudgetSampler([5, 100, 5, 5], budget=10, shuffle=False)
    assert list(sampler) == [[0], [1], [2, 3]]


def test_epochs_differ_and_come_again_with_the_seed():
    edges = torch.arange(100)
    sampler = EdgeBudgetSampler(edges, 500, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert [batch.tolist() for batch in EdgeBudgetSampler(edges, 500, seed=3).batches(1)] == second
    assert list(EdgeBudgetSampler(edges, 500, seed=4)) != first


def test_its_length_is_that_of_the_epoch_to_come():
    sampler = EdgeBudgetSampler(torch.arange(100), 500)
    for _ in range(3):
        expected = len(sampler)
        assert len(list(sampler)) == expected


@pytest.mark.parametrize(
    ("edges", "budget", "message"),
    [
        ([], 5, r"`edges` must have shape .* got \(0,\)"),
        (
            [[1]],
            5,
            r"`edges` must have shape .* got \(1, 1\)",
        ),
        ([1], 0, "`budget` must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(edges, budget, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        EdgeBudgetSampler(edges, budget)


def box(atoms, seed, periodic=False):
    """Atoms on a shaken lattice, 2.5 Å apart."""
    side = round(atoms ** (1 / 3) + 0.49)
    grid = torch.cartesian_prod(*[torch.arange(side)] * 3)[:atoms].double() * 2.5
    pos = grid + 0.2 * torch.rand(
        atoms, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    more = {}
    if periodic:
        more = {
            "cell": torch.eye(3, dtype=torch.float64)[None] * 2.5 * side,
            "pbc": torch.tensor([[True] * 3]),
        }
    energy = torch.tensor([float(seed)], dtype=torch.float64)
    return Data(z=torch.ones(atoms, dtype=torch.long), pos=pos, energy=energy, **more)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("cutoff", [4.0, float("inf")])
def test_edges_are_counted_as_they_will_be(cutoff, periodic):
    if periodic and cutoff > 4:
        pytest.skip("all pairs of a crystal are without end")
    items = [box(atoms, seed, periodic) for seed, atoms in enumerate([27, 1, 64, 8])]
    counts = count_edges(_set(items), cutoff)
    expected = [
        neighbor_list(d.pos, cutoff, None, *([d.cell[0], d.pbc[0]] if periodic else []))[0].size(1)
        for d in items
    ]
    assert counts.tolist() == expected


def _set(items):
    class Molecules(InMemoryDataset):
        pass

    made = Molecules()
    made.data, made.slices = InMemoryDataset.collate(items)
    return made


def test_edges_that_are_there_are_counted():
    items = [RadiusGraph(4.0)(box(atoms, seed)) for seed, atoms in enumerate([27, 8])]
    assert count_edges(_set(items), 99.0).tolist() == [item.edge_index.size(1) for item in items]


def test_the_loader_takes_such_batches():
    items = [box(atoms, seed) for seed, atoms in enumerate([3, 64, 3, 3, 64])]
    dataset = _set(items)
    edges = count_edges(dataset, 4.0)
    loader = DataLoader(dataset, batch_sampler=EdgeBudgetSampler(edges, int(edges.max()) + 60))
    seen = []
    for batch in loader:
        assert int(edges[batch.energy.long()].sum()) <= int(edges.max()) + 60
        seen += batch.energy.tolist()
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_sizes_from_3_to_300_atoms_run_through_one_program():
    torch.manual_seed(0)
    model = SchNet(hidden_channels=16, num_filters=16, num_interactions=2, cutoff=5.0, filters="spline")
    potential = Potential(model).train().compile()
    items = [box(3 + 297 * (k % 5 == 0) + k % 4, k) for k in range(40)]
    dataset = _set(items)
    loader = DataLoader(dataset, batch_sampler=EdgeBudgetSampler(count_edges(dataset, 5.0), 20_000))
    sizes = {len(batch.ptr) for batch in loader if potential(batch)["energy"].sum().backward() is None}
    assert len(sizes) > 1
    assert potential.compiled.failure is None
    assert len(potential.compiled) == 1


def test_errors_do_not_depend_on_how_structures_are_batched():
    torch.manual_seed(0)
    potential = Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0).double())
    dataset = _set([box(atoms, seed) for seed, atoms in enumerate([3, 64, 3, 27, 3, 8])])
    plain, filled = evaluate(potential, dataset), evaluate(potential, dataset, batch_edges=100)
    assert filled.energy_mae == pytest.approx(plain.energy_mae, rel=1e-12)
    assert torch.allclose(filled.energy, plain.energy, rtol=1e-12)
