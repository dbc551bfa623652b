"""Batches by index operations are PyG's batches."""

import pickle
from itertools import chain

import numpy as np
import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch.utils.data import DistributedSampler, IterableDataset, Subset
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from pyg_schnet import RadiusGraph, SchNet, radius_graph
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.loader import DataLoader, collate, dataloader


class Molecules(MoleculeDataset):
    """Molecules of some sizes, with fields of every kind."""

    raw_file_names = ()
    processed_file_names = "molecules.safetensors"

    def __init__(self, sizes, *args, **options):
        self.sizes = sizes
        super().__init__(*args, **options)

    def chunks(self):
        rng, n, atoms = torch.Generator().manual_seed(0), len(self.sizes), sum(self.sizes)
        counts = torch.tensor(self.sizes)
        extras = counts % 3  # none for some
        fields = {
            "z": torch.randint(1, 10, (atoms,), generator=rng).to(torch.uint8),
            "pos": torch.randn(atoms, 3, generator=rng, dtype=torch.float64),
            "energy": torch.randn(n, generator=rng, dtype=torch.float64),
            "dipole": torch.randn(n, 3, generator=rng),
            "stress": torch.randn(n, 3, 3, generator=rng),
            "name": [f"molecule {i}" for i in range(n)],
            "bond_index": torch.zeros(2, int((counts - 1).sum()), dtype=torch.long),
            "extras": torch.randint(0, 9, (int(extras.sum()), 2), generator=rng),
            "charged": torch.arange(n) % 2 == 0,
        }
        three = {"z": counts, "pos": counts, "bond_index": counts - 1, "extras": extras}
        yield Chunk(fields, three)


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


RAGGED = [3, 1, 5, 2, 1, 9, 4]


def random_graphs(*fields):
    """Graphs of any PyG project: features, edges, labels; and other fields."""
    rng, items = torch.Generator().manual_seed(0), []
    for n in (4, 1, 7, 3, 2):
        edge_index = torch.randint(0, n, (2, 2 * n - 2), generator=rng)
        item = Data(
            edge_index=edge_index, y=torch.randn(1, 4, generator=rng), edge_attr=torch.rand(2 * n - 2, 3)
        )
        for field in fields:
            item[field] = torch.randn(n, 3, generator=rng)
        items.append(item)
    return items


def with_latent(items):
    """Give graphs a ``z`` that is no atomic number: a vector a graph."""
    for number, item in enumerate(items):
        item.z = torch.full((1, 16), float(number))
    return items


SETS = {
    "ragged": lambda root: Molecules(RAGGED),
    "constant": lambda root: Molecules([4] * 7),
    "atoms": lambda root: Molecules([1] * 7),
    "double": lambda root: Molecules(RAGGED, dtype=torch.float64),
    "file": lambda root: Molecules(RAGGED, root),
    "disk": lambda root: Molecules(RAGGED, root, memory_map=True),
    "subset": lambda root: Molecules([*RAGGED, 8, 1])[[8, 7, 0, 3, 4, 2, 1]],
    "subset on disk": lambda root: Molecules([*RAGGED, 8, 1], root, memory_map=True)[2:][::-1],
    "transformed": lambda root: Molecules(RAGGED, transform=RadiusGraph(1.5)),
    "transformed on disk": lambda root: Molecules(RAGGED, root, RadiusGraph(1.5), memory_map=True),
    "prepared": lambda root: Molecules(RAGGED, root, pre_transform=RadiusGraph(1.5)),
    "graphs": lambda root: Stored(random_graphs("x")),
    "points": lambda root: Stored(random_graphs("pos", "x")),
    "graphs with latent vectors": lambda root: Stored(with_latent(random_graphs("x"))),
    "latent vectors first": lambda root: Stored(
        [Data(z=d.z, x=d.x) for d in with_latent(random_graphs("x"))]
    ),
    "features": lambda root: Stored(random_graphs("feat", "x")),
    "node table": lambda root: Stored(random_graphs("node_table")),
}
GATHERED = set(SETS) - {"transformed", "transformed on disk", "features", "node table"}


@pytest.fixture(params=SETS)
def dataset(request, tmp_path):
    return SETS[request.param](str(tmp_path / "root"))


def assert_same(batch, expected):
    assert type(batch) is type(expected)
    assert list(batch.keys()) == list(expected.keys())
    for key in expected.keys():  # noqa: SIM118
        assert_equal(batch[key], expected[key])
    assert (batch.num_graphs, batch.num_nodes) == (expected.num_graphs, expected.num_nodes)
    assert batch.num_edges == expected.num_edges
    for name in ("_slice_dict", "_inc_dict"):
        own, other = getattr(batch, name), getattr(expected, name)
        assert own.keys() == other.keys()
        for key, value in other.items():
            assert_equal(own[key], value)
    for number, other in enumerate(expected.to_data_list()):
        assert_items_same(batch[number], other)


def assert_items_same(item, expected):
    assert type(item) is type(expected)
    assert list(item.keys()) == list(expected.keys())
    for key in expected.keys():  # noqa: SIM118
        assert_equal(item[key], expected[key])


def assert_equal(value, expected):
    if isinstance(expected, torch.Tensor):
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected)
    else:
        assert value == expected


@pytest.mark.parametrize(
    "indices", [[0], [1], [2, 0], [4, 4, 3], [-1, 0, -5], range(5), torch.tensor([3, 1]), np.array([1, 4])]
)
def test_a_batch_is_pygs_batch(dataset, indices):
    assert_same(collate(dataset, indices), Batch.from_data_list([dataset[int(i)] for i in indices]))


@pytest.mark.parametrize("kind", sorted(SETS))
def test_batches_are_gathered_wherever_they_can_be(kind, tmp_path, monkeypatch):
    dataset = SETS[kind](str(tmp_path / "root"))

    def refuse(*args, **kwargs):
        raise AssertionError("item by item")

    monkeypatch.setattr(Batch, "from_data_list", refuse)
    if kind in GATHERED:
        assert collate(dataset, [0, 1]).num_graphs == 2
        assert next(iter(DataLoader(dataset, 2, exclude_keys=["y"], follow_batch=["x"]))).num_graphs == 2
    else:
        with pytest.raises(AssertionError, match="item by item"):
            collate(dataset, [0, 1])


@pytest.mark.parametrize("options", [
    {"follow_batch": ["edge_index", "bond_index", "name", "extras", "energy", "y", "unknown"]},
    {"follow_batch": ["pos", "x"], "exclude_keys": ["pos", "x"]},
    {"exclude_keys": ["name", "energy", "y", "z", "edge_attr", "unknown"]},
    {"exclude_keys": ["bond_index", "edge_index"], "follow_batch": ["z"]},
])  # fmt: skip
def test_pygs_options_do_what_they_do_in_pyg(dataset, options):
    for batch, expected in zip(
        DataLoader(dataset, 3, **options),
        torch_geometric.loader.DataLoader(dataset, 3, **options),
        strict=True,
    ):
        assert_same(batch, expected)


def test_a_batch_taken_apart_gives_the_items(dataset):
    batch = collate(dataset, range(5))
    for number, item in enumerate(batch.to_data_list()):
        assert_items_same(item, dataset[number])
    assert len(batch[[0, 3]]) == len(batch[torch.tensor([True, False, False, True, False])]) == 2


def test_a_batch_can_be_moved_and_cast(dataset):
    for change in (
        lambda b: b.to("cpu"),
        lambda b: b.clone(),
        lambda b: b.to("meta"),
        lambda b: b.contiguous(),
    ):
        batch, expected = (
            change(make())
            for make in (
                lambda: collate(dataset, [2, 0]),
                lambda: Batch.from_data_list([dataset[2], dataset[0]]),
            )
        )
        for key in expected.keys():  # noqa: SIM118
            if isinstance(expected[key], torch.Tensor):
                assert batch[key].device == expected[key].device
                assert (batch[key].dtype, batch[key].shape) == (expected[key].dtype, expected[key].shape)
    assert_same(collate(dataset, [2, 0]).clone(), Batch.from_data_list([dataset[2], dataset[0]]).clone())


def test_a_batch_can_be_pickled(dataset):
    batch = collate(dataset, [2, 0])
    assert_same(pickle.loads(pickle.dumps(batch)), batch)


@pytest.mark.parametrize("indices", [[0], [0, 1, 2], [2, 0], [1, 1], [-1, 0], range(3), torch.tensor([2, 1])])
def test_a_batch_with_edges_equals_pygs(stored, indices):
    assert_same(collate(stored, indices), Batch.from_data_list([stored[int(i)] for i in indices]))


@pytest.mark.parametrize("indices", [[0], [6, 2, 3], range(7)])
@pytest.mark.parametrize("transform", [None, RadiusGraph(1.5)])
def test_a_batch_of_a_file_equals_pygs(frames, indices, transform):
    dataset = AtomsDataset(path=frames, transform=transform)
    assert_same(collate(dataset, indices), Batch.from_data_list([dataset[i] for i in indices]))


@pytest.mark.parametrize(
    "rows", [[2, 0], torch.tensor([1, 2]), slice(1, None), torch.tensor([True, False, True])]
)
def test_a_batch_of_a_subset_counts_within_the_subset(stored, rows):
    subset = stored[rows]
    assert_same(collate(subset, [1, 0]), Batch.from_data_list([subset[1], subset[0]]))


def test_a_batch_of_a_subset_of_a_subset_is_right(frames):
    subset = AtomsDataset(path=frames)[[5, 3, 1]][[2, 0]]
    assert collate(subset, [0, 1]).idx.tolist() == [1, 5]


def test_numbers_beyond_the_data_set_are_refused(stored):
    with pytest.raises(IndexError):
        collate(stored[[0, 1]], [2])


def test_heterogeneous_graphs_are_left_to_pyg(without_shape_checks):
    def item(n):
        data = HeteroData()
        data["atom"].x = torch.full((n, 2), float(n))
        data["atom", "bond", "atom"].edge_index = torch.zeros(2, n, dtype=torch.long)
        return data

    dataset = Stored([item(2), item(3), item(1)])
    batch, expected = collate(dataset, [2, 1]), Batch.from_data_list([dataset[2], dataset[1]])
    assert_equal(batch["atom"].x, expected["atom"].x)
    assert_equal(batch["atom"].ptr, expected["atom"].ptr)
    assert_equal(batch["atom", "bond", "atom"].edge_index, expected["atom", "bond", "atom"].edge_index)


class Pairs(Data):
    """A graph with rules of its own."""

    def __inc__(self, key, value, *args, **kwargs):
        return 100 if key == "edge_index" else super().__inc__(key, value, *args, **kwargs)


def test_graphs_of_another_class_are_left_to_pyg(water):
    dataset = Stored([Pairs(pos=water.pos, edge_index=torch.tensor([[0], [1]])) for _ in range(3)])
    assert collate(dataset, [0, 1]).edge_index.tolist() == [[0, 100], [1, 101]]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # raised inside PyG
@pytest.mark.parametrize("change", [
    {"name": "water"},
    {"cluster_batch": torch.tensor([0, 0, 1])},
    {"face": torch.tensor([[0], [1], [2]])},
    {"adj": torch.eye(3).to_sparse()},
    {"parts": [torch.zeros(1), torch.ones(2)]},
    {"symbols": ["O", "H", "H"]},
    {"mask_index": torch.tensor([True, False, True])},
    {"small_index": torch.tensor([2, 0], dtype=torch.int32)},
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


def test_explicit_numbers_of_nodes_are_kept(water):
    dataset = Stored([Data(z=water.z, num_nodes=3), Data(z=water.z[:2], num_nodes=2)])
    assert_same(collate(dataset, [1, 0]), Batch.from_data_list([dataset[1], dataset[0]]))


def test_graphs_of_atoms_without_places_have_no_batch_vector_as_in_pyg(water):
    dataset = Stored([Data(z=water.z), Data(z=water.z[:2])])
    batch = collate(dataset, [1, 0])
    assert_equal(batch.z, torch.tensor([8, 1, 8, 1, 1]))
    assert "batch" not in batch


def test_a_data_set_of_one_graph_is_batched(water):
    dataset = Stored([water])  # PyG stores it without slices
    assert_same(collate(dataset, [0]), Batch.from_data_list([water]))


def test_what_a_data_set_hands_out_counts_not_what_it_stores(molecules):
    dataset = Doubling(molecules)
    assert torch.equal(collate(dataset, [0]).pos, 2 * molecules[0].pos)


class DoublingOutside(Stored):
    """The same, by another door."""

    def __getitem__(self, number):
        item = super().__getitem__(number)
        item.pos = 2 * item.pos
        return item


def test_what_a_data_set_hands_out_at_its_door_counts(molecules):
    dataset = DoublingOutside(molecules)
    assert torch.equal(collate(dataset, [0]).pos, 2 * molecules[0].pos)


class Silent(Molecules):
    """A subclass whose items are changed."""

    def get(self, idx):
        item = super().get(idx)
        item.name = "nobody"
        return item


def test_a_subclass_of_ours_that_changes_its_items_is_heard():
    assert collate(Silent(RAGGED), [0, 1]).name == ["nobody", "nobody"]


@pytest.mark.parametrize("kind", ["ragged", "disk", "graphs", "points"])
def test_a_change_of_what_is_stored_is_seen_by_the_next_batch(kind, tmp_path):
    dataset = SETS[kind](str(tmp_path))
    field = "x" if kind == "graphs" else "pos"
    before = collate(dataset, [0, 2])
    dataset._data[field] = dataset._data[field].double() + 1
    dataset._data_list = None  # as PyG asks for
    batch = collate(dataset, [0, 2])
    assert_same(batch, Batch.from_data_list([dataset[0], dataset[2]]))
    assert_close(batch[field], (before[field] + 1).to(batch[field].dtype))


def test_other_data_are_seen_by_the_next_batch():
    dataset, other = Stored(random_graphs("x")), Stored(random_graphs("x")[::-1])
    assert len(collate(dataset, [0]).x) == 4
    dataset.data, dataset.slices = other._data, other.slices
    assert_same(collate(dataset, range(5)), Batch.from_data_list(list(other)))


def test_a_field_whose_rows_change_is_seen_by_the_next_batch():
    dataset = Molecules(RAGGED)
    collate(dataset, [0, 1])
    dataset._data.extras = torch.arange(7)
    dataset.slices["extras"] = torch.arange(8)
    dataset._data_list = None
    assert_same(collate(dataset, [3, 1]), Batch.from_data_list([dataset[3], dataset[1]]))
    assert collate(dataset, [3, 1]).extras.tolist() == [3, 1]


@pytest.mark.parametrize("kind", ["ragged", "graphs"])
def test_a_field_that_is_removed_or_added_is_gone_or_there_in_the_next_batch(kind, tmp_path):
    dataset = SETS[kind](str(tmp_path))
    collate(dataset, [0, 1])
    dataset._data["energy" if kind == "ragged" else "y"] = None  # its slices stay
    dataset._data.shift = torch.arange(len(dataset))
    dataset.slices["shift"] = torch.arange(len(dataset) + 1)
    dataset._data_list = None
    batch = collate(dataset, [1, 0])
    assert_same(batch, Batch.from_data_list([dataset[1], dataset[0]]))
    assert batch.shift.tolist() == [1, 0]


def test_a_field_may_have_the_name_of_what_we_look_for(water):
    dataset = Stored(
        [Data(pos=water.pos, casts=torch.tensor([i]), mapped=torch.tensor([i])) for i in range(3)]
    )
    assert_same(collate(dataset, [2, 1]), Batch.from_data_list([dataset[2], dataset[1]]))


def test_offsets_are_computed_once(monkeypatch):
    made, dataset = [], Molecules(RAGGED)
    own = dataloader.DatasetOffsets
    monkeypatch.setattr(dataloader, "DatasetOffsets", lambda *args: made.append(1) or own(*args))
    for _ in DataLoader(dataset, 2):
        pass
    assert len(made) == 1


def test_batches_do_not_share_memory_with_the_data_set(stored):
    before = stored._data.pos.clone()
    batch = collate(stored, [0, 1, 2])
    batch.pos.zero_()
    batch.energy.zero_()
    assert torch.equal(stored._data.pos, before)
    assert stored[1].energy.item() == 1.0


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_the_loader_gives_pygs_batches(frames, batch_size):
    dataset = AtomsDataset(path=frames)
    ours, pygs = DataLoader(dataset, batch_size), torch_geometric.loader.DataLoader(dataset, batch_size)
    assert len(ours) == len(pygs)
    for batch, expected in zip(ours, pygs, strict=True):
        assert_same(batch, expected)


def test_the_last_batch_holds_the_rest(frames):
    dataset = AtomsDataset(path=frames)
    assert [batch.num_graphs for batch in DataLoader(dataset, 3)] == [3, 3, 1]
    assert [batch.num_graphs for batch in DataLoader(dataset, 3, drop_last=True)] == [3, 3]


def test_shuffling_follows_the_generator(frames):
    dataset = AtomsDataset(path=frames)

    def order(seed):
        loader = DataLoader(dataset, 3, shuffle=True, generator=torch.Generator().manual_seed(seed))
        return [batch.idx.tolist() for batch in loader]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(chain.from_iterable(order(0))) == list(range(7))


def test_each_epoch_is_shuffled_anew(frames):
    loader = DataLoader(
        AtomsDataset(path=frames), 7, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    first, second = ([batch.idx.tolist() for batch in loader] for _ in range(2))
    assert first != second


def test_a_list_of_graphs_is_loaded(molecules):
    (batch,) = DataLoader(molecules, 3)
    assert torch.equal(batch.z, torch.cat([molecule.z for molecule in molecules]))


@pytest.mark.parametrize("items", [
    [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0])],
    [(1, 2.5, "a"), (2, 3.5, "b"), (3, 4.5, "c")],
    [{"a": 1}, {"a": 2}, {"a": 3}],
])  # fmt: skip
def test_what_is_no_graph_is_loaded_as_pyg_does(items):
    for batch, expected in zip(
        DataLoader(items, 2), torch_geometric.loader.DataLoader(items, 2), strict=True
    ):
        assert str(batch) == str(expected)


def test_graphs_that_come_one_by_one_are_loaded(molecules):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(molecules)

    batches = list(DataLoader(Stream(), 2))
    assert [batch.num_graphs for batch in batches] == [2, 1]
    assert torch.equal(batches[0].pos, torch.cat([molecules[0].pos, molecules[1].pos]))


def test_pytorchs_subsets_are_loaded():
    (batch,) = DataLoader(Subset(Molecules(RAGGED), [4, 2]), 2)
    assert_same(batch, collate(Molecules(RAGGED), [4, 2]))


def test_the_data_set_can_be_asked_through_the_loader(stored):
    loader = DataLoader(stored, 2)
    assert len(loader.dataset) == 3
    assert torch.equal(loader.dataset[1].z, stored[1].z)
    assert loader.dataset.num_edge_features == 2
    with pytest.raises(AttributeError, match=r"'Stored'.*'charges'"):
        _ = loader.dataset.charges


def test_a_loader_can_be_made_again_of_another_one(stored):
    """As Lightning does, to put a sampler in."""
    options = {"follow_batch": ["bond_index"], "exclude_keys": ["energy"]}
    loader = DataLoader(stored, 3, **options)
    again = DataLoader(
        loader.dataset, loader.batch_size, follow_batch=loader.follow_batch, exclude_keys=loader.exclude_keys
    )
    ((one,), (other,)) = loader, again
    assert_same(one, other)
    assert "bond_index_batch" in other
    assert "energy" not in other


def test_a_function_to_collate_is_passed_over_as_pyg_does(stored):
    (batch,) = DataLoader(stored, 3, collate_fn=lambda items: items)
    assert batch.num_graphs == 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_a_seed_gives_pygs_order_in_every_epoch(seed, options):
    dataset, orders = Molecules(RAGGED), []
    for kind in (DataLoader, torch_geometric.loader.DataLoader):
        loader = kind(dataset, 2, generator=torch.Generator().manual_seed(seed), **options)
        orders.append([[batch.idx.tolist() for batch in loader] for _ in range(3)])
    assert orders[0] == orders[1]


def test_the_global_seed_gives_pygs_order():
    dataset, orders, state = Molecules(RAGGED), [], torch.get_rng_state()
    for kind in (DataLoader, torch_geometric.loader.DataLoader):
        torch.manual_seed(3)
        orders.append([batch.idx.tolist() for batch in kind(dataset, 2, shuffle=True)])
    torch.set_rng_state(state)
    assert orders[0] == orders[1]


@pytest.mark.parametrize("kind", ["ragged", "disk", "subset on disk"])
def test_ranks_together_cover_everything_once(kind, tmp_path):
    dataset, seen = SETS[kind](str(tmp_path))[:6], []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=1)
        sampler.set_epoch(3)
        batches = list(DataLoader(dataset, 2, sampler=sampler))
        assert [batch.num_graphs for batch in batches] == [2, 1]
        seen += [number for batch in batches for number in batch.idx.tolist()]
    assert sorted(seen) == sorted(int(item.idx) for item in dataset)


def test_a_batch_sampler_may_choose_the_batches():
    dataset = Molecules(RAGGED)
    batches = list(DataLoader(dataset, batch_sampler=[[6, 0], [3]]))
    assert [batch.idx.tolist() for batch in batches] == [[6, 0], [3]]


@pytest.mark.skipif("fork" not in torch.multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 fears for threads; there is one
@pytest.mark.parametrize("kind", ["ragged", "subset on disk", "transformed on disk", "graphs"])
def test_workers_give_the_same_batches(kind, tmp_path):
    dataset = SETS[kind](str(tmp_path))
    with_workers = DataLoader(dataset, 2, num_workers=2, multiprocessing_context="fork")
    for batch, expected in zip(with_workers, DataLoader(dataset, 2), strict=True):
        assert_same(batch, expected)


@pytest.mark.process
def test_a_worker_that_starts_afresh_maps_the_file_itself(tmp_path, frames):
    dataset = AtomsDataset(str(tmp_path / "root"), path=frames, memory_map=True)[[5, 3, 0]]
    loader = DataLoader(dataset, 2, num_workers=1, multiprocessing_context="spawn")
    for batch, expected in zip(loader, DataLoader(dataset, 2), strict=True):
        assert_same(batch, expected)


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
