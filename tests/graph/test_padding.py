"""Padding changes no number of a batch: energies, forces, stresses, loss, gradients of weights."""

from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.graph.padding import PaddedBatch, Sizes, round_up
from pyg_schnet.training import potential_loss
from tests.fixtures import build, randomize
from tests.gpu_like import LaunchCounter, gpu_like

CELL = torch.tensor([[3.1, 0.2, 0.0], [0.0, 3.4, 0.1], [0.3, 0.0, 3.8]], dtype=torch.float64)


def labeled(data, generator):
    data.energy = torch.randn(1, generator=generator, dtype=torch.float64)
    data.forces = torch.randn(len(data.z), 3, generator=generator, dtype=torch.float64)
    return data


def molecules(*names):
    generator = torch.Generator().manual_seed(0)
    return Batch.from_data_list([labeled(build(name), generator) for name in names])


def crystals(count):
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        pos = torch.rand(2 + number, 3, generator=generator, dtype=torch.float64) * 0.6
        pos = (pos + torch.arange(2 + number)[:, None] / (2 + number)) @ CELL * 1.2
        data = labeled(Data(z=torch.arange(6, 8 + number), pos=pos), generator)
        data.cell, data.pbc = CELL[None] * 1.2, torch.tensor([[True, True, number != 1]])
        data.stress = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
        made.append(data)
    return Batch.from_data_list(made)


BATCHES = {
    "molecules": lambda: molecules("ethanol", "ethanol", "ethanol"),
    "mixed": lambda: molecules("water", "benzene", "ethanol", "water"),
    "one": lambda: molecules("ethanol"),
    "crystals": lambda: crystals(3),
    "one crystal": lambda: crystals(1),
}


def evaluate(potential, batch, graph, **loss):
    """Return outputs, loss and gradients of all weights."""
    potential.zero_grad()
    out = potential(batch, forces=True, stress="stress" in batch, graph=graph)
    total = potential_loss(out, batch, 0.3, potential.scale, stress_weight=0.7, **loss)
    total.backward()
    gradients = {name: weight.grad for name, weight in potential.named_parameters()}
    return {name: value.detach() for name, value in out.items()}, total.detach(), gradients


def graph_of(potential, batch):
    fields = {name: getattr(batch, name, None) for name in ("cell", "pbc")}
    return potential.model.build_pairs(
        batch.z, batch.pos, batch.batch, num_molecules=batch.num_graphs, **fields
    )


def pad(batch, graph, sizes, weight=None):
    """Copy a batch into tensors of larger sizes."""
    padded = PaddedBatch(batch, graph, sizes)
    padded.fill(batch, graph, 1 / graph.num_molecules if weight is None else weight)
    return padded


def compare(potential, batch, graph, sizes, errors="squared"):
    expected, loss, gradients = evaluate(potential, batch, graph, errors=errors)
    padded = pad(batch, graph, sizes)
    found, padded_loss, padded_gradients = evaluate(
        potential, padded.data, padded.graph, errors=errors, weights=padded.weights
    )
    for name, value in expected.items():
        # Equal bits, except for a single crystal of two atoms, where products of more rows are blocked
        # otherwise: 4e-15. Losses and gradients: 3e-16 and 4e-15.
        assert_close(found[name][: len(value)], value, atol=1e-12, rtol=1e-12, equal_nan=True)
    assert_close(padded_loss, loss, atol=0, rtol=1e-12)
    for name, value in gradients.items():
        assert_close(
            padded_gradients[name], value, atol=1e-12 * float(value.abs().max()), rtol=1e-12, msg=name
        )
    return padded


@pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "like a GPU"])
@pytest.mark.parametrize("filters", ["spline", "exact"])
@pytest.mark.parametrize("name", BATCHES)
def test_padding_changes_no_result(name, filters, on_gpu):
    batch = BATCHES[name]()
    options = {"hidden_channels": 16, "num_filters": 16, "num_interactions": 2, "num_gaussians": 12}
    potential = Potential(
        randomize(SchNet(**options, cutoff=4.0, filters=filters).double()), scale=2.0
    ).train()
    with gpu_like() if on_gpu else nullcontext():
        graph = graph_of(potential, batch)
        padded = compare(potential, batch, graph, Sizes.of(graph).bucket())
    assert padded.graph.num_molecules > batch.num_graphs
    assert padded.graph.pairs.size(1) >= graph.pairs.size(1)


@pytest.mark.parametrize("name", ["mixed", "crystals"])
def test_absolute_errors_of_padding_are_without_slope(name):
    batch = BATCHES[name]()
    potential = Potential(randomize(SchNet(hidden_channels=16, num_filters=16, cutoff=4.0).double())).train()
    graph = graph_of(potential, batch)
    compare(potential, batch, graph, Sizes.of(graph).bucket(), "absolute")


@pytest.mark.parametrize("readout", [{"readout": "mean"}, {"dipole": True}], ids=str)
def test_other_readouts_ignore_padding(readout):
    batch = BATCHES["mixed"]()
    model = randomize(SchNet(hidden_channels=16, num_filters=16, cutoff=4.0, **readout).double())
    potential = Potential(model).train()
    graph = graph_of(potential, batch)
    expected = potential(batch, graph=graph)["energy"]
    padded = pad(batch, graph, Sizes.of(graph).bucket())
    found = potential(padded.data, graph=padded.graph)["energy"]
    assert found.isfinite().all()
    assert_close(found[: len(expected)], expected, atol=1e-13, rtol=1e-13)


def test_a_model_of_all_pairs_ignores_padding():
    batch = BATCHES["mixed"]()
    model = SchNet.paper(hidden_channels=16, num_filters=16, zero_output=False, filters="spline")
    potential = Potential(randomize(model.double())).train()
    with gpu_like():
        graph = graph_of(potential, batch)
        compare(potential, batch, graph, Sizes.of(graph).bucket())


def test_sizes_of_a_batch_itself_need_no_padding():
    batch = BATCHES["mixed"]()
    potential = Potential(randomize(SchNet(hidden_channels=16, num_filters=16, cutoff=4.0).double())).train()
    graph = graph_of(potential, batch)
    padded = pad(batch, graph, Sizes.of(graph))
    for name in ("z", "pos", "batch", "pairs"):
        assert torch.equal(getattr(padded.graph, name), getattr(graph, name))
    compare(potential, batch, graph, Sizes.of(graph))


def test_buffers_hold_one_batch_after_another_without_a_trace_of_the_former():
    model = SchNet.paper(hidden_channels=16, num_filters=16, zero_output=False, filters="spline")
    potential = Potential(randomize(model.double())).train()
    first, second = molecules("benzene", "benzene", "water", "ethanol"), molecules("ethanol", "benzene")
    with gpu_like():
        graphs = [graph_of(potential, batch) for batch in (first, second)]
        sizes = Sizes.of(graphs[0]).bucket()
        reused = pad(first, graphs[0], sizes)
        fresh = pad(second, graphs[1], sizes, 0.25)
        with LaunchCounter() as counter:
            reused.fill(second, graphs[1], 0.25)
        assert not counter.synchronizations, counter.report()
        results = [
            evaluate(potential, padded.data, padded.graph, weights=padded.weights)
            for padded in (reused, fresh)
        ]
    assert_close(*results, atol=0, rtol=0, equal_nan=True)
    assert reused.graph.distance_range == graphs[1].distance_range != graphs[0].distance_range
    assert results[0][2]["model.embedding.weight"].any()


def test_padding_atoms_are_in_no_row_and_padding_pairs_among_them():
    potential = Potential(SchNet(cutoff=4.0))
    batch = BATCHES["crystals"]()
    with gpu_like():
        graph = graph_of(potential, batch)
        sizes = Sizes.of(graph).bucket()
        padded = pad(batch, graph, sizes._replace(pairs=sizes.pairs + 20)).graph
    atoms, pairs, sites = len(graph.z), graph.pairs.size(1), len(graph.site_pos)
    for found, real, used in ((padded.csr, graph.csr, pairs), (padded.site_csr, graph.site_csr, pairs)):
        assert torch.equal(found.rowptr[: len(real.rowptr)], real.rowptr)
        assert (found.rowptr[len(real.rowptr) :] == 2 * used).all()
        assert torch.equal(
            found.pair.sort()[0], torch.arange(padded.pairs.size(1)).repeat_interleave(2).int()
        )
    assert torch.equal(
        padded.atom_sites[0].diff()[atoms:], torch.zeros(len(padded.z) - atoms, dtype=torch.int)
    )
    assert torch.equal(padded.atom_sites[1].sort()[0], torch.arange(len(padded.site_pos)).int())
    assert (padded.pairs[:, pairs:] >= atoms).all()
    assert (padded.site_pairs[:, pairs:] >= sites).all()
    assert torch.equal(padded.sites.atom[padded.site_pairs], padded.pairs)
    assert torch.equal(padded.batch, padded.batch.sort()[0])
    of_sites = padded.batch[padded.sites.atom]
    assert torch.equal(of_sites, of_sites.sort()[0])  # sums over sites of a molecule rely on it
    distance, (low, high) = padded.distances()[pairs:], graph.distance_range
    assert ((distance > low) & (distance < high)).all()
    assert len(distance.unique()) == 8


def test_buckets_are_at_most_an_eighth_too_large():
    for count in (*range(1, 300), 1000, 4097, 77_777, 2**20 + 1):
        size = round_up(count)
        assert count <= size <= 1.125 * count
        assert round_up(size) == size
    assert len({round_up(count) for count in range(1025, 2049)}) == 8


def test_batches_of_a_data_set_have_few_buckets():
    """QM9's sizes, 32 a batch: 18 +- 3 atoms, all pairs."""
    generator = torch.Generator().manual_seed(0)
    atoms = (18 + 3 * torch.randn(500, 32, generator=generator)).round().long().clamp(3, 29)
    pairs = (atoms * (atoms - 1)) // 2
    sizes = [Sizes(*each, 32) for each in zip(atoms.sum(1).tolist(), pairs.sum(1).tolist(), strict=True)]
    buckets = {size.bucket() for size in sizes}
    assert len(buckets) <= 9
    assert all(size.fits(size.bucket()) for size in sizes)
    waste = sum(size.bucket().pairs for size in sizes) / sum(size.pairs for size in sizes) - 1
    assert waste < 0.07


@pytest.mark.parametrize(("field", "less"), [("atoms", 1), ("pairs", 1), ("molecules", 1), ("sites", 1)])
def test_sizes_without_room_are_refused(field, less):
    potential = Potential(SchNet(cutoff=4.0))
    batch = BATCHES["crystals"]()
    graph = graph_of(potential, batch)
    sizes = Sizes.of(graph)
    least = Sizes(sizes.atoms + 9, sizes.pairs, sizes.molecules + 1, sizes.sites + 9)
    pad(batch, graph, least)
    with pytest.raises(ValueError, match=r"`sizes` must have room for Sizes\(atoms=.*got Sizes"):
        pad(batch, graph, least._replace(**{field: getattr(least, field) - less}))
