"""A data set is the same in memory, in a file and on disk, and is processed once."""

import copy
import logging
import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets import base as datasets
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.references import References, formula
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage import checksums
from pyg_schnet.datasets.storage import mapped as mapping
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.loader import DataLoader, collate

# Name, atomic numbers, energy in eV.
WATER, METHANE, OXYGEN = ("water", [8, 1, 1], -10.0), ("méthane\n", [6, 1, 1, 1, 1], -20.5), ("O", [8], -3.25)
CARBON_DIOXIDE, WATER_TOO, HYDROGEN = (
    ("CO2", [6, 8, 8], -31.0),
    ("water", [1, 8, 1], -11.0),
    ("", [1, 1], -4.0),
)
MOLECULES = [WATER, METHANE, OXYGEN, CARBON_DIOXIDE, WATER_TOO, HYDROGEN]


def chunk_of(molecules, first=0):
    """Lay molecules out, with forces, dipoles and chains of bonds, of which an atom alone has none."""
    sizes = [len(z) for _, z, _ in molecules]
    z = torch.tensor([number for _, z, _ in molecules for number in z], dtype=torch.uint8)
    place = torch.cat([torch.arange(size) for size in sizes])
    molecule = first + torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.stack([1.1 * place, 0.3 * place**2, 0.1 * molecule], 1).double()
    chains = [torch.tensor([list(range(size - 1)), list(range(1, size))], dtype=torch.long) for size in sizes]
    number = first + torch.arange(float(len(sizes)), dtype=torch.float64)
    fields = {
        "z": z,
        "pos": pos,
        "energy": torch.tensor([energy for _, _, energy in molecules], dtype=torch.float64),
        "forces": torch.stack([pos[:, 1], -pos[:, 0] / 3, 1 / (1 + pos[:, 2])], 1),
        "dipole": torch.stack([number, -number, number / 7], 1),
        "name": [name for name, _, _ in molecules],
        "bond_index": torch.cat(chains, 1),
    }
    counts = torch.tensor(sizes)
    return Chunk(fields, {"z": counts, "pos": counts, "forces": counts, "bond_index": counts - 1})


READERS = {
    "item": lambda dataset: dataset[2],
    "batch": lambda dataset: collate(dataset, [0, 2]),
    "loader": lambda dataset: list(DataLoader(dataset, batch_size=2)),
    "statistics": lambda dataset: dataset.energy_std(),
}


@pytest.mark.parametrize("read", READERS)
def test_damage_of_a_set_on_disk_is_found_where_it_is_read(tmp_path, flip, monkeypatch, read):
    monkeypatch.setattr(checksums, "BLOCK", 16)
    Small(tmp_path)
    path = tmp_path / "processed" / "small.safetensors"
    content = path.read_bytes()
    flip(path, 8 * content.index(torch.tensor([-3.25], dtype=torch.float64).numpy().tobytes()) + 1)
    dataset = Small(tmp_path, memory_map=True)
    assert dataset.reads == 0
    with pytest.raises(ValueError, match="is damaged"):
        READERS[read](dataset)


class Small(MoleculeDataset):
    """Molecules by hand; counts how often it was asked."""

    def __init__(self, root=None, *args, molecules=MOLECULES, at_once=4, without=(), note="", **options):
        self.molecules, self.at_once, self.without, self.note = molecules, at_once, without, note
        self.reads = self.downloads = 0
        super().__init__(root, *args, **options)

    raw_file_names = "molecules.txt"
    processed_file_names = "small.safetensors"

    def download(self):
        self.downloads += 1

    def chunks(self):
        self.reads += 1
        for first in range(0, len(self.molecules), self.at_once):
            chunk = chunk_of(self.molecules[first : first + self.at_once], first)
            yield Chunk(
                {key: value for key, value in chunk.fields.items() if key not in self.without}, chunk.counts
            )

    def official_splits(self):
        if len(self.molecules) != 6:
            return {}
        return {"own": Split(torch.tensor([5, 0, 1]), torch.tensor([3]), torch.tensor([2, 4]))}

    @property
    def recipe(self):
        return {"note": self.note, "sizes": (1, 2)}  # a tuple, which a file gives back as a list

    @property
    def notes(self):
        return {"reads": self.reads}


KINDS = {"memory": {}, "file": {"root": True}, "disk": {"root": True, "memory_map": True}}


@pytest.fixture(params=KINDS)
def make(request, tmp_path):
    """Make a data set in each of the three ways."""

    def build(**options):
        kind = dict(KINDS[request.param])
        root = str(tmp_path / "root") if kind.pop("root", False) else None
        return Small(root, **kind, **options)

    return build


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


def big(item):
    return len(item.z) != 3


def with_edges(item):
    item.edge_index = torch.triu_indices(len(item.z), len(item.z), 1)
    return item


def assert_same(item, expected):
    assert list(item.keys()) == list(expected.keys())
    for key, value in expected.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert item[key].dtype == value.dtype, key
            assert torch.equal(item[key], value), key
        else:
            assert item[key] == value, key


def test_items_are_the_molecules(make):
    dataset = make(dtype=torch.float64)
    assert len(dataset) == 6
    methane, oxygen = dataset[1], dataset[2]
    assert methane.z.tolist() == [6, 1, 1, 1, 1]
    assert methane.pos[4].tolist() == pytest.approx([4.4, 4.8, 0.1], abs=1e-6)
    assert (methane.energy.tolist(), methane.idx.tolist(), methane.name) == ([-20.5], [1], "méthane\n")
    assert methane.bond_index.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert oxygen.bond_index.shape == (2, 0)
    assert oxygen.dipole.tolist() == [[2.0, -2.0, 2 / 7]]
    assert [item.name for item in dataset] == [name for name, _, _ in MOLECULES]


@pytest.mark.parametrize("options", [
    {}, {"at_once": 1}, {"at_once": 6}, {"pre_filter": big}, {"pre_transform": with_edges},
    {"pre_filter": big, "pre_transform": with_edges, "at_once": 2}, {"transform": RadiusGraph(2.0)},
    {"dtype": torch.float64}, {"molecules": [METHANE]}, {"molecules": [OXYGEN, OXYGEN]},
    {"without": ["forces"]},
])  # fmt: skip
def test_items_and_batches_do_not_depend_on_where_the_tensors_are(root, options):
    expected = Small(**{**options, "at_once": 6})
    for dataset in (Small(**options), Small(root, **options), Small(root, **options, memory_map=True)):
        assert len(dataset) == len(expected)
        for item, other in zip(dataset, expected, strict=True):
            assert_same(item, other)
        batch = collate(dataset, range(len(dataset)))
        assert_same(batch, collate(expected, range(len(expected))))
        assert_same(batch, Batch.from_data_list(list(expected)))
        assert dataset.splits.keys() == expected.splits.keys()
        for name, split in expected.splits.items():
            assert all(map(torch.equal, dataset.split(name), split))


def test_positions_have_the_type_that_is_asked_for_and_labels_double_precision(make):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        dataset = make(dtype=dtype)
        for data in (dataset[1], collate(dataset, [1])):
            assert data.pos.dtype == dtype
            assert {data[key].dtype for key in ("energy", "forces", "dipole")} == {torch.float64}
            assert {data[key].dtype for key in ("z", "idx", "bond_index")} == {torch.int64}


def test_positions_have_pytorchs_type_by_default(make):
    assert make()[0].pos.dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert make()[0].pos.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_transforms_are_applied_to_each_item_each_time(make):
    asked = []
    dataset = make(transform=lambda item: asked.append(item.name) or with_edges(item))
    assert dataset[1].edge_index.shape == (2, 10)
    assert next(iter(DataLoader(dataset, 6))).edge_index.shape == (2, 3 + 10 + 0 + 3 + 3 + 1)
    assert asked == [name for name, _, _ in [METHANE, *MOLECULES]]


def test_what_was_filtered_is_gone_and_the_splits_count_what_is_left(make):
    dataset = make(pre_filter=big)
    assert [int(item.idx) for item in dataset] == [1, 2, 5]
    assert [part.tolist() for part in dataset.split("own")] == [[2, 0], [], [1]]
    assert {part.dtype for part in dataset.split("own")} == {torch.int64}
    assert len(dataset[dataset.split("own").val]) == 0


def test_what_was_transformed_before_is_stored(make):
    asked = []
    dataset = make(pre_transform=lambda item: asked.append(1) or with_edges(item))
    assert [item.edge_index.shape[1] for item in dataset] == [3, 10, 0, 3, 3, 1]
    assert collate(dataset, [0, 1]).edge_index.max() == 7
    assert len(asked) == 6


def test_nothing_is_written_without_a_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = Small()
    assert (dataset.reads, dataset.downloads) == (1, 0)
    assert os.listdir(tmp_path) == []


def test_a_root_holds_one_processed_file_and_no_pickles(root):
    Small(root)
    files = {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}
    assert files == {"processed/small.safetensors"}


def test_a_processed_file_is_read_and_nothing_else_is_asked_for(root):
    first, second = Small(root), Small(root)
    assert (first.reads, first.downloads) == (1, 1)
    assert (second.reads, second.downloads) == (0, 0)
    assert second.header["notes"] == {"reads": 1}


def test_the_raw_folder_is_there_when_it_is_downloaded_to(root):
    class Downloading(Small):
        def download(self):
            (Path(self.raw_dir) / "molecules.txt").write_text("water")

    assert Path(Downloading(root).raw_paths[0]).read_text() == "water"


@pytest.mark.parametrize(
    "change",
    [
        {"note": "another"}, {"pre_filter": big}, {"pre_filter": lambda item: True},
        {"pre_transform": with_edges}, {"pre_transform": RadiusGraph(2.0)}, {"force_reload": True},
    ],
)  # fmt: skip
def test_another_recipe_is_processed_again(root, change):
    Small(root)
    changed = Small(root, **change)
    change.pop("force_reload", None)
    assert (changed.reads, Small(root, **change).reads) == (1, 0)
    assert Small(root).reads == (1 if change else 0)


def test_another_transform_or_type_is_the_same_recipe(root):
    Small(root)
    others = {"transform": with_edges}, {"dtype": torch.float64}, {"memory_map": True}
    assert [Small(root, **options).reads for options in others] == [0, 0, 0]


def test_another_filter_of_the_same_name_is_processed_again(root):
    def at_least(size):
        return lambda item: len(item.z) >= size

    assert len(Small(root, pre_filter=at_least(2))) == 5
    assert len(Small(root, pre_filter=at_least(5))) == 1
    assert Small(root, pre_filter=at_least(5)).reads == 0


def test_another_class_of_the_same_file_is_processed_again(root):
    class Other(Small):
        pass

    assert (Small(root).reads, Other(root).reads, Other(root).reads) == (1, 1, 0)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def scribble(path):
    path.write_bytes(b"<html>404</html>")


def write_other(path):
    storage.write(path, [chunk_of([WATER])])


def damage(path):
    """Let the offsets go down, which the header does not tell."""
    content, offsets = path.read_bytes(), np.array([0, 3, 8], dtype="<i8").tobytes()
    assert content.count(offsets) >= 1
    path.write_bytes(content.replace(offsets, np.array([0, 8, 3], dtype="<i8").tobytes()))


@pytest.mark.parametrize("spoil", [truncate, scribble, write_other, damage, Path.unlink])
@pytest.mark.parametrize("memory_map", [False, True])
def test_a_spoiled_file_is_made_again(root, spoil, memory_map, caplog):
    path = Path(Small(root).processed_paths[0])
    before = path.read_bytes()
    spoil(path)
    with caplog.at_level(logging.WARNING):
        again = Small(root, memory_map=memory_map)
    assert (again.reads, len(again)) == (1, 6)
    assert path.read_bytes() == before
    told = {
        truncate: "not a complete safetensors file",
        scribble: "not a complete",
        damage: "is damaged (",
    }
    assert told.get(spoil, "") in caplog.text
    assert bool(caplog.text) == (spoil in told)


def test_a_failure_leaves_the_processed_file_as_it_was(root):
    class Failing(Small):
        def chunks(self):
            yield from super().chunks()
            raise OSError("the disk is full")

    path = Path(Small(root).processed_paths[0])
    before = path.read_bytes()
    with pytest.raises(OSError, match="the disk is full"):
        Failing(root)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def process(root, start, results):
    start.wait(60)
    dataset = Small(root, at_once=1)
    results.put((dataset.reads, len(dataset), float(dataset[5].energy)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, for speed")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 fears for threads; there is one
def test_of_two_processes_one_does_the_work(root):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    children = [context.Process(target=process, args=(root, start, results)) for _ in range(3)]
    for child in children:
        child.start()
    found = sorted(results.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert found == [(0, 6, -4.0), (0, 6, -4.0), (1, 6, -4.0)]


@pytest.mark.skipif(os.name != "posix", reason="needs users")
@pytest.mark.parametrize("memory_map", [False, True])
def test_a_finished_file_in_a_folder_that_may_only_be_read_is_enough(memory_map):
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as root:  # tmp_path is root's alone
        folders = [Path(root), Path(Small(root).processed_dir), Path(root) / "raw"]
        Path(root).chmod(0o755)
        try:
            for folder in folders:
                folder.chmod(0o555)
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(PermissionError):
                (folders[1] / "new").touch()
            dataset = Small(root, memory_map=memory_map)
            assert (dataset.reads, dataset[1].z.tolist()) == (0, [6, 1, 1, 1, 1])
        finally:
            if os.geteuid() != user:
                os.seteuid(user)
            for folder in folders:
                folder.chmod(0o755)


def test_a_published_split_that_is_not_there_is_refused(make):
    with pytest.raises(ValueError, match="`split`") as caught:
        make().split("5")
    assert str(caught.value) == "`split` must be one of the set's published splits, 'own'; got '5'"


def test_a_set_without_published_splits_says_so():
    class Plain(Small):
        def official_splits(self):
            return {}

    with pytest.raises(ValueError, match=r"published.*'own'"):
        Plain().split("own")


SUBSETS = {
    "slice": slice(1, 5, 2),
    "list": [1, 3],
    "tensor": torch.tensor([1, 3]),
    "mask": torch.tensor([False, True, False, True, False, False]),
    "array": np.array([1, 3]),
    "range": range(1, 5, 2),
}


@pytest.mark.parametrize("numbers", SUBSETS.values(), ids=SUBSETS.keys())
def test_a_subset_has_its_own_items_and_statistics(make, numbers):
    subset, expected = make()[numbers], Small(molecules=[METHANE, CARBON_DIOXIDE])
    assert [item.name for item in subset] == ["méthane\n", "CO2"]
    assert subset.elements() == [1, 6, 8]
    assert torch.equal(subset.atomref(), expected.atomref())
    assert subset.energy_std() == expected.energy_std() != make().energy_std()
    assert subset.scale() == pytest.approx(
        float(collate(subset, [0, 1]).forces.square().mean().sqrt()), rel=1e-14
    )
    assert torch.equal(subset.fingerprints(), make().fingerprints()[[1, 3]])


def test_structures_of_one_composition_are_no_mixture(make, monkeypatch):
    monkeypatch.setattr(datasets, "_STRUCTURES_AT_ONCE", 1)
    dataset = make()
    assert dataset.is_mixture()
    assert not dataset[[0, 4]].is_mixture()  # water, and water in another order of atoms


@pytest.mark.parametrize("at_once", [1, 2, 4, 100])
@pytest.mark.parametrize("transform", [None, with_edges])
def test_statistics_are_those_by_hand_however_many_are_counted_at_once(make, monkeypatch, at_once, transform):
    monkeypatch.setattr(datasets, "_STRUCTURES_AT_ONCE", at_once)
    dataset = make(transform=transform)
    found = dataset.compositions()
    assert {
        formula(row): (int(frames), float(energy))
        for row, frames, energy in zip(found.counts, found.frames, found.energy, strict=True)
    } == {"O": (1, -3.25), "CO2": (1, -31.0), "H2": (1, -4.0), "H2O": (2, -10.5), "CH4": (1, -20.5)}
    assert dataset.elements() == [1, 6, 8]
    energies = np.array([energy for _, _, energy in MOLECULES])
    assert found.mean_energy() == pytest.approx(energies.mean(), rel=1e-14)
    assert dataset.energy_std() == pytest.approx(energies.std(ddof=1), rel=1e-14)
    forces = torch.cat([item.forces for item in Small()])
    assert dataset.scale() == pytest.approx(float(forces.square().mean().sqrt()), rel=1e-14)


def test_statistics_take_the_memory_of_some_molecules_and_of_the_fields_they_need(root, monkeypatch):
    monkeypatch.setattr(datasets, "_STRUCTURES_AT_ONCE", 2)
    monkeypatch.setattr(mapping, "_READS_BETWEEN_RELEASES", 1000)  # the parts' own releases are counted
    dataset, gathered, released = Small(root, memory_map=True), [], []
    monkeypatch.setattr(
        datasets,
        "collate",
        lambda *args, **options: gathered.append(collate(*args, **options)) or gathered[-1],
    )
    monkeypatch.setattr(dataset.mapped, "release", lambda: released.append(len(gathered)))
    dataset.compositions()
    assert released == [1, 2, 3]
    assert set().union(*(batch.keys() for batch in gathered)) == {"z", "energy", "batch", "ptr"}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_without_forces_the_scale_is_the_spread_of_energies_an_atom(make, monkeypatch, at_once):
    monkeypatch.setattr(datasets, "_STRUCTURES_AT_ONCE", at_once)
    dataset = make(without=["forces"])
    counts = np.array([[z.count(number) for number in (1, 6, 8)] for _, z, _ in MOLECULES])
    energies = np.array([energy for _, _, energy in MOLECULES])
    fitted = np.linalg.lstsq(counts, energies, rcond=None)[0]
    assert not dataset.has_forces
    np.testing.assert_allclose(dataset.atomref()[[1, 6, 8]], fitted, rtol=0, atol=1e-11)
    for references, given in ((fitted, None), ([-1, -9, -2], References.given({1: -1.0, 6: -9.0, 8: -2.0}))):
        residual = (energies - counts @ references) / counts.sum(1)
        assert dataset.scale(given) == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-11)


def test_forces_set_the_scale_whatever_the_references(make):
    dataset = make()
    assert dataset.has_forces
    assert dataset.scale(References.given({1: 100.0, 6: 0.0, 8: 0.0})) == dataset.scale()


def test_a_set_without_spread_has_the_scale_one(make):
    dataset = make(molecules=[WATER, WATER], without=["forces"])
    assert (dataset.scale(), dataset.energy_std()) == (1.0, 0.0)
    assert make(molecules=[WATER], without=["forces"]).energy_std() == 0.0


def test_an_empty_subset_has_no_statistics(make):
    nothing = make()[[]]
    assert len(nothing) == 0
    for compute in (
        nothing.compositions,
        nothing.references,
        nothing.elements,
        nothing.scale,
        nothing.fingerprints,
    ):
        with pytest.raises(ValueError, match=r"at least.*structure"):
            compute()


def test_fields_can_be_asked_of_the_whole_set(make):
    dataset = make()
    assert dataset.energy.tolist() == [energy for _, _, energy in MOLECULES]
    assert (dataset.z.dtype, dataset.pos.dtype) == (torch.int64, torch.float32)
    assert torch.equal(dataset[[1, 2]].z, torch.tensor([6, 1, 1, 1, 1, 8]))
    with pytest.raises(AttributeError, match=r"'Small'.*'charges'"):
        _ = dataset.charges


def test_a_set_of_one_molecule_hands_it_out_like_any_other(make):
    (item,) = make(molecules=[METHANE])
    assert (item.name, item.energy.shape, item.bond_index.shape) == ("méthane\n", (1,), (2, 4))
    (batch,) = DataLoader(make(molecules=[METHANE]), 1)
    assert (batch.name, batch.num_graphs) == (["méthane\n"], 1)


def test_items_on_disk_have_memory_of_their_own(root):
    dataset = Small(root, memory_map=True)
    for item in (dataset[1], collate(dataset, [1])):
        for key in ("pos", "energy", "idx", "bond_index", "z"):
            item[key].zero_()
    assert dataset[1].energy.item() == -20.5
    assert dataset[1].z.tolist() == [6, 1, 1, 1, 1]
    assert dataset[1].bond_index.max() == 4


def test_reading_items_and_batches_hands_memory_back(root, monkeypatch):
    dataset = Small(root, memory_map=True)
    assert dataset.mapped is not None
    reads = []
    monkeypatch.setattr(dataset.mapped, "count_read", lambda: reads.append(1))
    assert (len(list(dataset)), len(list(DataLoader(dataset, 2)))) == (6, 3)
    assert len(reads) == 9


def test_a_subset_shares_the_tensors(root):
    for dataset in (Small(root), Small(root, memory_map=True)):
        for other in (copy.copy(dataset), dataset[:3]):
            assert other._data is dataset._data
            assert other.mapped is dataset.mapped
            assert type(other) is Small
    assert len(Small(root)[:3]) == 3


@pytest.mark.parametrize(
    "numbers", [None, [3, 1], [1], torch.tensor([True, False, True, False, False, False])]
)
def test_a_deep_copy_is_in_memory_and_of_these_molecules_alone(make, numbers):
    dataset = make(pre_transform=with_edges)
    own = dataset.copy(numbers)
    expected = list(dataset if numbers is None else dataset[numbers])
    own._data.energy += 1
    for again in (own, pickle.loads(pickle.dumps(own))):
        assert (len(again), again.has_forces) == (len(expected), True)
        for item, other in zip(again, expected, strict=True):
            item.energy = item.energy - 1
            assert_same(item, other)
    assert dataset[1].energy.item() == -20.5


def test_a_pickled_set_is_the_same_set(make):
    dataset = make(pre_filter=big)
    collate(dataset, [0])
    for original in (dataset, dataset[[2, 0]]):
        for again in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
            assert [item.name for item in again] == [item.name for item in original]
            assert_same(collate(again, [0, 1]), collate(original, [0, 1]))
            assert [part.tolist() for part in again.splits["own"]] == [[2, 0], [], [1]]
            assert (again.mapped is None) == (original.mapped is None)


def test_the_tensors_of_a_set_on_disk_are_not_pickled(root):
    many = Small(root, molecules=MOLECULES * 500, memory_map=True)
    collate(many, [0])
    assert os.path.getsize(many.processed_paths[0]) > 400_000
    many.molecules = []
    assert len(pickle.dumps(many)) < 5_000


def test_the_root_may_be_a_path_and_lie_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Small("~/data")) == 6
    assert Small(tmp_path / "data").reads == 0


def test_chunks_are_the_subclasss_to_give():
    class Nothing(MoleculeDataset):
        pass

    with pytest.raises(NotImplementedError):
        Nothing()


def test_a_split_is_asked_of_the_whole_set(make):
    dataset = make()
    with pytest.raises(ValueError, match=r"`split`.*numbers.*structures.*whole.*'own'"):
        dataset[[1, 0]].split("own")
    assert dataset.copy().split("own") is not None
    assert dataset.copy([1, 0]).splits == dataset[[1, 0]].copy().splits == {}


def test_a_set_in_memory_alone_cannot_stay_on_disk():
    with pytest.raises(ValueError, match=r"`memory_map`.*`root`"):
        Small(None, memory_map=True)


def test_a_set_of_another_revision_is_processed_again(root, monkeypatch):
    before = Small(root).header["recipe"]["revision"]
    monkeypatch.setattr(datasets, "_REVISION", before + 1)
    assert Small(root).header["recipe"]["revision"] == before + 1


def test_a_set_without_a_name_of_its_folder_is_refused():
    with pytest.raises(ValueError, match=r"`root`.*folder"):
        Small("")
