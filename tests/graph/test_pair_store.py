"""Graphs cut from stored pairs are those that are built for the batch."""

import pytest
import torch
from ase.build import bulk, molecule
from torch_geometric.data import Batch

from pyg_schnet import Potential, SchNet
from pyg_schnet.graph.csr import csr_of, sort_sites
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.graph.pair_store import PairStore
from pyg_schnet.transforms import from_ase
from tests.gpu_like import LaunchCounter, gpu_like

MOLECULES = [molecule(name) for name in ("H2O", "CH3CH2OH", "H", "C6H6", "H2O2")]
CRYSTALS = [bulk("Si", cubic=True), bulk("Cu") * (2, 1, 1), bulk("NaCl", "rocksalt", 5.64)]
KINDS = {"molecules": MOLECULES, "crystals": CRYSTALS, "both": [CRYSTALS[0], *MOLECULES, CRYSTALS[1]]}
IDS = [2, 0, 2, 1]


def batch_of(kind, ids=None):
    atoms = [KINDS[kind][number] for number in (range(len(KINDS[kind])) if ids is None else ids)]
    atoms = [own.copy() for own in atoms]
    for own in atoms:
        own.rattle(0.05, seed=len(own))
    return Batch.from_data_list([from_ase(own, lattice=kind != "molecules") for own in atoms])


def store(kind, cutoff=4.0, compressed=False, at_once=2):
    """All structures, whose graphs are built some at a time."""
    ids = torch.arange(len(KINDS[kind])).split(at_once)
    potential = Potential(SchNet(cutoff=cutoff, last_center=6.0))
    graphs = (potential.build_graph(batch_of(kind, part.tolist())) for part in ids)
    return PairStore(graphs, kind != "molecules", compressed, shared=cutoff is None), potential


def assert_same(found, expected, names):
    for name in names:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name


@pytest.mark.parametrize(("kind", "cutoff"), [("molecules", 4.0), ("molecules", None), ("crystals", 4.0)])
def test_a_batch_has_the_graph_that_is_built_for_it(kind, cutoff):
    stored, potential = store(kind, cutoff)
    expected = potential.build_graph(batch_of(kind, IDS))
    graph, structure, atom, ptr = stored.cut(IDS)
    assert isinstance(graph, PairGraph)
    assert_same(graph, expected, ["z", "pos", "batch", "pairs", "site_pos"])
    assert graph.num_molecules == len(IDS)
    assert structure.tolist() == IDS
    assert ptr.tolist() == batch_of(kind, IDS).ptr.tolist()
    assert torch.equal(batch_of(kind).z[atom], graph.z)
    if kind != "molecules":
        assert_same(graph.sites, expected.sites, ["pairs", "atom"])
        assert torch.equal(graph.sites.shift.long(), expected.sites.shift)


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_rows_are_those_of_the_pairs_of_the_batch(kind):
    stored, _ = store(kind, compressed=True)
    graph = stored.cut(IDS).graph
    assert_same(graph.csr, csr_of(graph.pairs, len(graph.z)), ["rowptr", "col", "pair"])
    assert_same(graph.site_csr, csr_of(graph.site_pairs, len(graph.site_pos)), ["rowptr", "col", "pair"])
    if kind != "molecules":
        expected = sort_sites(graph.sites.atom, len(graph.z))
        assert all(map(torch.equal, graph.atom_sites, expected))


def test_bounds_of_distances_hold_for_all_structures():
    stored, potential = store("both")
    distance = potential.build_graph(batch_of("both")).distances()
    assert stored.distance_range == (float(distance.min()), float(distance.max()))


def test_molecules_beside_crystals_are_stored_with_sites():
    stored, potential = store("both")
    found, expected = stored.cut(IDS).graph, potential.build_graph(batch_of("both", IDS))
    assert_same(found, expected, ["z", "pos", "batch", "site_pos"])
    assert torch.equal(found.sites.atom, expected.sites.atom)
    # The search for molecules alone returns pairs in another order.
    sets = [{frozenset(pair) for pair in graph.sites.pairs.T.tolist()} for graph in (found, expected)]
    assert sets[0] == sets[1]
    assert found.pairs.shape == expected.pairs.shape


def test_molecules_of_one_size_share_pairs_without_a_cutoff():
    potential = Potential(SchNet.paper())
    stores = []
    for shared in (False, True):
        graphs = (potential.build_graph(batch_of("molecules")) for _ in range(10))
        stores.append(PairStore(graphs, compressed=True, shared=shared))
    assert stores[1].bytes < stores[0].bytes / 2
    ids = [46, 3, 18]
    for name in ("pos", "pairs"):
        assert torch.equal(*(getattr(stored.cut(ids).graph, name) for stored in stores))
    assert all(map(torch.equal, *(stored.cut(ids).graph.csr for stored in stores)))


def test_structures_without_pairs_are_batches():
    stored, _ = store("molecules", compressed=True)
    graph = stored.cut([2, 2]).graph
    assert graph.pairs.shape == (2, 0)
    assert graph.csr.rowptr.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("kind", "launches"), [("molecules", 25), ("both", 45)])
def test_a_batch_is_cut_without_synchronization(kind, launches):
    stored, _ = store(kind, compressed=True)
    stored.cut(IDS)
    with gpu_like(), LaunchCounter() as counter:
        stored.cut(IDS)
    assert not counter.synchronizations, counter.report()
    assert counter.launches <= launches, counter.report()


def test_edges_without_their_reverse_are_refused(water):
    graph = Potential(SchNet()).build_graph(water.update({"edge_index": torch.tensor([[0, 1], [1, 2]])}))
    with pytest.raises(ValueError, match=r"`edge_index`.*reverse"):
        PairStore([graph])
