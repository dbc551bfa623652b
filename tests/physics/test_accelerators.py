"""The paths of accelerators, taken by CPU tensors, compute the numbers of CPUs."""

import pytest
import torch
from ase.build import bulk
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, RadiusGraph, SchNet
from pyg_schnet.graph.pair_graph import PairGraph
from tests.gpu_like import gpu_like

CUTOFF = 4.0


def silicon(seed=0):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=seed)
    cell = torch.from_numpy(atoms.cell.array)[None]
    pbc = torch.ones(1, 3, dtype=torch.bool)
    z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions)
    return Data(z=z, pos=pos, cell=cell, pbc=pbc)


@pytest.fixture
def systems(water, ethanol, benzene):
    molecules = [Data(z=m.z, pos=m.pos.double()) for m in (water, ethanol, benzene)]
    return {
        "molecules": Batch.from_data_list(molecules),
        "crystals": Batch.from_data_list([silicon(0), silicon(1)]),
    }


@pytest.fixture(params=["spline", "exact"])
def potential(request):
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 20, CUTOFF, filters=request.param)
    return Potential(model, scale=2.0, atomref=torch.arange(100.0)).double()


def results(potential, batch, training, stress, graph=None):
    """Predictions and, in training, the gradients of a loss of all of them."""
    potential.train(training)
    out = potential(batch, stress=stress, graph=graph)
    if training:
        potential.zero_grad()
        sum(value.square().sum() for value in out.values()).backward()
        out |= {name: p.grad for name, p in potential.named_parameters()}
    return {name: value.detach() for name, value in out.items()}


def assert_equal(found, expected):
    # The same terms in another order: measured 4e-15 of the largest.
    for name, value in expected.items():
        largest = float(value.abs().max())
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12 * largest, msg=name)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_predictions_and_gradients_are_those_of_cpus(potential, systems, kind, training):
    batch, stress = systems[kind], kind == "crystals"
    expected = results(potential, batch, training, stress)
    with gpu_like():
        found = results(potential, batch, training, stress)
    assert_equal(found, expected)


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_pairs_beyond_the_cutoff_add_nothing(potential, systems, kind):
    expected = results(potential, systems[kind], True, kind == "crystals")
    longer = RadiusGraph(CUTOFF + 1)(systems[kind].clone())
    with gpu_like():
        found = results(potential, longer, True, kind == "crystals")
    assert longer.edge_index.size(1) > RadiusGraph(CUTOFF)(systems[kind].clone()).edge_index.size(1)
    assert_equal(found, expected)


def test_graphs_have_compressed_rows_and_bounds_of_distances(systems):
    for batch, model in (
        (systems["molecules"], SchNet.paper()),
        (systems["crystals"], SchNet(cutoff=CUTOFF)),
    ):
        potential = Potential(model)
        assert potential.build_graph(batch).csr is None
        with gpu_like():
            graph = potential.build_graph(batch)
        assert isinstance(graph, PairGraph)
        low, high = graph.distance_range
        distance = graph.distances()
        assert low <= float(distance.min()) <= float(distance.max()) <= high
        assert graph.csr.rowptr[-1] == graph.site_csr.rowptr[-1] == 2 * graph.pairs.size(1)
        assert graph.csr.rowptr.dtype == graph.csr.col.dtype == graph.csr.pair.dtype == torch.int32


def test_tables_of_frozen_filters_follow_the_weights(systems):
    potential = Potential(SchNet(16, 16, 2, 20, CUTOFF, filters="spline")).double().eval()
    with gpu_like():
        before = potential(systems["molecules"])["energy"]
        with torch.no_grad():
            potential.model.interactions[0].cfconv.filter_network.dense1.weight.mul_(1.5)
        after = potential(systems["molecules"])["energy"]
    assert (before != after).all()
    assert_equal({"energy": after}, {"energy": potential(systems["molecules"])["energy"]})
