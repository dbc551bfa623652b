"""Batches by index operations are PyG's batches."""

from itertools import chain

import numpy as np
import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch_geometric.data import Batch, Data, InMemoryDataset

from pyg_schnet import RadiusGraph, SchNet, radius_graph
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import DataLoader, collate


class Stored(InMemoryDataset):
    """Any list of graphs, as PyG keeps it in memory."""

    def __init__(self, items, transform=None):
        super().__init__(None, transform)
        self.data, self.slices = self.collate(items)


class Doubling(Stored):
    """A data set whose items are not what it stores."""

    def get(self, idx):
        item = super().get(idx)
        item.pos = 2 * item.pos
        return item


def graphs(molecules):
    """Molecules of 3, 9 and 12 atoms with edges, one more table of nodes, and labels."""
    items = []
    for number, molecule in enumerate(molecules):
        item = Data(z=molecule.z, pos=molecule.pos, edge_index=radius_graph(molecule.pos, 2.0 + number))
        item.edge_attr = item.edge_index.T.double()
        item.bond_index = torch.tensor([[0, 1], [1, 2]])
        item.energy = torch.tensor([float(number)], dtype=torch.float64)
        item.charge = number  # a bare number
        item.pbc = torch.zeros(1, 3, dtype=torch.bool)
        items.append(item)
    return items


@pytest.fixture
def stored(molecules):
    return Stored(graphs(molecules))


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    shape = (7, 3, 3)
    arrays = {"R": rng.normal(size=shape), "E": rng.normal(size=7), "F": rng.normal(size=shape)}
    np.savez(tmp_path / "frames.npz", z=[8, 1, 1], **arrays)
    return tmp_path / "frames.npz"


def assert_same(batch, expected):
    assert type(batch) is type(expected)
    assert set(batch.keys()) == set(expected.keys())
    for key in expected.keys():  # noqa: SIM118
        if isinstance(expected[key], torch.Tensor):
            assert batch[key].dtype == expected[key].dtype, key
            assert torch.equal(batch[key], expected[key]), key
        else:
            assert batch[key] == expected[key], key
    assert (batch.num_graphs, batch.num_nodes) == (expected.num_graphs, expected.num_nodes)
    assert batch.num_edges == expected.num_edges
    for one, other in zip(batch.to_data_list(), expected.to_data_list(), strict=True):
        assert set(one.keys()) == set(other.keys())
        for key in other.keys():  # noqa: SIM118
            assert_close(one[key], other[key], atol=0, rtol=0)


@pytest.mark.parametrize("indices", [[0], [0, 1, 2], [2, 0], [1, 1], [-1, 0], range(3), torch.tensor([2, 1])])
def test_a_batch_with_edges_equals_pygs(stored, indices):
    assert_same(collate(stored, indices), Batch.from_data_list([stored[int(i)] for i in indices]))


@pytest.mark.parametrize("indices", [[0], [6, 2, 3], range(7)])
@pytest.mark.parametrize("transform", [None, RadiusGraph(1.5)])
def test_a_batch_of_a_file_equals_pygs(frames, indices, transform):
    dataset = AtomsDataset(frames, transform=transform)
    assert_same(collate(dataset, indices), Batch.from_data_list([dataset[i] for i in indices]))


@pytest.mark.parametrize(
    "rows", [[2, 0], torch.tensor([1, 2]), slice(1, None), torch.tensor([True, False, True])]
)
def test_a_batch_of_a_subset_counts_within_the_subset(stored, rows):
    subset = stored[rows]
    assert_same(collate(subset, [1, 0]), Batch.from_data_list([subset[1], subset[0]]))


def test_a_batch_of_a_subset_of_a_subset_is_right(frames):
    subset = AtomsDataset(frames)[[5, 3, 1]][[2, 0]]
    assert collate(subset, [0, 1]).idx.tolist() == [1, 5]


def test_numbers_beyond_the_data_set_are_refused(stored):
    with pytest.raises(IndexError):
        collate(stored[[0, 1]], [2])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # raised inside PyG
@pytest.mark.parametrize("change", [
    {"name": "water"},
    {"cluster_batch": torch.tensor([0, 0, 1])},
    {"face": torch.tensor([[0], [1], [2]])},
    {"adj": torch.eye(3).to_sparse()},
    {"parts": [torch.zeros(1), torch.ones(2)]},
])  # fmt: skip
def test_fields_with_rules_of_their_own_are_left_to_pyg(water, change):
    items = [Data(z=water.z, pos=water.pos + i, **change) for i in range(3)]
    dataset = Stored(items)
    batch, expected = collate(dataset, [2, 0]), Batch.from_data_list([dataset[2], dataset[0]])
    (key,) = change
    if isinstance(expected[key], torch.Tensor):
        assert_close(batch[key], expected[key], atol=0, rtol=0)
    else:
        assert str(batch[key]) == str(expected[key])


def test_graphs_without_atomic_numbers_are_left_to_pyg():
    dataset = Stored([Data(x=torch.randn(n, 4), edge_index=torch.tensor([[0], [1]])) for n in (2, 3, 4)])
    assert_same(collate(dataset, [1, 2]), Batch.from_data_list([dataset[1], dataset[2]]))


def test_explicit_numbers_of_nodes_are_kept(water):
    dataset = Stored([Data(z=water.z, num_nodes=3), Data(z=water.z[:2], num_nodes=2)])
    assert_same(collate(dataset, [1, 0]), Batch.from_data_list([dataset[1], dataset[0]]))


def test_a_data_set_of_one_graph_is_batched(water):
    dataset = Stored([water])  # PyG stores it without slices
    assert_same(collate(dataset, [0]), Batch.from_data_list([water]))


def test_what_a_data_set_hands_out_counts_not_what_it_stores(molecules):
    dataset = Doubling(molecules)
    assert torch.equal(collate(dataset, [0]).pos, 2 * molecules[0].pos)


def test_batches_do_not_share_memory_with_the_data_set(stored):
    before = stored._data.pos.clone()
    batch = collate(stored, [0, 1, 2])
    batch.pos.zero_()
    batch.energy.zero_()
    assert torch.equal(stored._data.pos, before)
    assert stored[1].energy.item() == 1.0


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_the_loader_gives_pygs_batches(frames, batch_size):
    dataset = AtomsDataset(frames)
    ours, pygs = DataLoader(dataset, batch_size), torch_geometric.loader.DataLoader(dataset, batch_size)
    assert len(ours) == len(pygs)
    for batch, expected in zip(ours, pygs, strict=True):
        assert_same(batch, expected)


def test_the_last_batch_holds_the_rest(frames):
    dataset = AtomsDataset(frames)
    assert [batch.num_graphs for batch in DataLoader(dataset, 3)] == [3, 3, 1]
    assert [batch.num_graphs for batch in DataLoader(dataset, 3, drop_last=True)] == [3, 3]


def test_shuffling_follows_the_generator(frames):
    dataset = AtomsDataset(frames)

    def order(seed):
        loader = DataLoader(dataset, 3, shuffle=True, generator=torch.Generator().manual_seed(seed))
        return [batch.idx.tolist() for batch in loader]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(chain.from_iterable(order(0))) == list(range(7))


def test_each_epoch_is_shuffled_anew(frames):
    loader = DataLoader(AtomsDataset(frames), 7, shuffle=True, generator=torch.Generator().manual_seed(0))
    first, second = ([batch.idx.tolist() for batch in loader] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    "options", [{"follow_batch": ["edge_index"]}, {"exclude_keys": ["edge_attr", "energy"]}]
)
def test_pygs_options_do_what_they_do_in_pyg(stored, options):
    (batch,) = DataLoader(stored, 3, **options)
    (expected,) = torch_geometric.loader.DataLoader(stored, 3, **options)
    assert set(batch.keys()) == set(expected.keys())
    for key in expected.keys():  # noqa: SIM118
        assert torch.equal(batch[key], expected[key])


def test_a_list_of_graphs_is_loaded(molecules):
    (batch,) = DataLoader(molecules, 3)
    assert torch.equal(batch.z, torch.cat([molecule.z for molecule in molecules]))


def test_the_data_set_can_be_asked_through_the_loader(stored):
    loader = DataLoader(stored, 2)
    assert len(loader.dataset) == 3
    assert torch.equal(loader.dataset[1].z, stored[1].z)


def test_batches_go_into_pygs_models(stored):
    batch = next(iter(DataLoader(stored, 3)))
    x = torch_geometric.nn.GCNConv(1, 4).double()(batch.z[:, None].double(), batch.edge_index)
    assert torch_geometric.nn.global_add_pool(x, batch.batch).shape == (batch.num_graphs, 4)
    assert batch.ptr.tolist() == [0, 3, 12, 24]


def test_a_batch_has_the_energies_of_its_molecules(stored, default: SchNet):
    batch = collate(stored, [2, 0, 1])
    energy = default(batch.z, batch.pos, batch.batch)
    alone = torch.cat([default(stored[i].z, stored[i].pos) for i in (2, 0, 1)])
    assert_close(energy, alone, atol=1e-12, rtol=0)
