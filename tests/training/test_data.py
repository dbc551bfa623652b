"""What a run trains on is what its configuration says, or is refused."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.training import DataConfig
from pyg_schnet.training.data import hash_files, read_data
from pyg_schnet.training.progress import LineReport

EV = 0.0433641042418009  # eV in a kcal/mol


@pytest.fixture
def read(report):
    def to_data(*args, **options):
        return read_data(DataConfig(*args, **options), torch.float32, report())

    return to_data


@pytest.fixture
def processed(tmp_path):
    """A processed set of eight water molecules with a published split and a second property."""
    pos = (
        torch.eye(3, dtype=torch.float64).repeat(8, 1)
        + torch.arange(8.0).double().repeat_interleave(3)[:, None]
    )
    energy = torch.arange(8.0, dtype=torch.float64)
    fields = {"z": torch.tensor([8, 1, 1], dtype=torch.uint8).repeat(8), "pos": pos * 1.1, "energy": energy}
    fields["gap"] = 2 * energy
    three = torch.full((8,), 3)
    split = Split(torch.tensor([4, 1, 2]), torch.tensor([0]), torch.tensor([7, 3]))
    path = tmp_path / "waters.safetensors"
    chunk = Chunk(fields, {"z": three, "pos": three})
    storage.write(path, [chunk], lambda: {"units": {}}, lambda: {"official": split})
    return str(path)


def test_what_looks_wrong_with_the_data_is_reported(tmp_path):
    with np.load(Path(__file__).parents[2] / "datasets/md17/ethanol_gfn2_xtb.npz") as file:
        frames = {name: file[name][:200] if file[name].ndim > 1 else file[name] for name in ("z", "R", "F")}
        frames["E"] = file["E"][:200]
    np.savez(tmp_path / "gradients.npz", **{**frames, "F": -frames["F"]})
    lines = []
    read_data(DataConfig(str(tmp_path / "gradients.npz")), torch.float32, LineReport(lines.append))
    assert lines[0].startswith("Warning: Forces have the wrong sign")


def test_the_numbers_of_a_published_split_are_kept_as_they_are(read, processed):
    data = read(processed, split="official")
    assert [part.tolist() for part in data.split] == [[4, 1, 2], [0], [7, 3]]
    assert data.train.compositions().mean_energy() == pytest.approx((4 + 1 + 2) / 3)
    assert data.val[0].energy.item() == 0
    assert data.structures == 8


def test_another_property_of_a_processed_set_is_trained_on_as_the_energy(read, processed):
    data = read(processed, split="official", energy_key="gap")
    assert data.train[0].energy.item() == 8


def test_a_split_is_read_from_a_file(read, processed, tmp_path):
    np.savez(tmp_path / "mine.npz", train=[1, 5], val=[0], test=[2])
    data = read(processed, split=str(tmp_path / "mine.npz"))
    assert [part.tolist() for part in data.split] == [[1, 5], [0], [2]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": [1], "val": [0]}, "npz.*arrays.*train.*test"),
        ({"train": [1], "val": [8], "test": []}, "number.*structures.*0.*7"),
        ({"train": [1], "val": [1], "test": []}, "number.*structures.*0.*7"),
        ({"train": [], "val": [1], "test": []}, "structure.*train.*'train'"),
        ({"train": [0.9], "val": [1], "test": []}, "row.*integers.*float64.*shape"),
        ({"train": [[0], [2]], "val": [1], "test": []}, "row.*integers.*int64.*shape"),
    ],
)
def test_a_file_that_is_no_split_is_refused(read, processed, tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read(processed, split=str(tmp_path / "mine.npz"))


def test_a_split_that_is_not_there_is_refused(read, processed):
    with pytest.raises(ValueError, match=r"published.*'official'.*'offical'"):
        read(processed, split="offical")
    with pytest.raises(FileNotFoundError, match=r"no such.*`data\.split`.*'random'"):
        read(processed, split="none.npz")


def test_numbers_beside_a_split_of_its_own_are_refused():
    with pytest.raises(ValueError, match=r"`data.split`"):
        DataConfig("file", split="official", n_train=3)


@pytest.fixture
def in_bohr(tmp_path):
    """Write water with MD17's keys, but positions in Bohr, and return the path."""

    def to_file(name="bohr.npz", frames=20):
        shape = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.8, -0.44]]) / 0.529177
        positions = shape + 0.05 * np.random.default_rng(0).normal(size=(frames, 3, 3))
        arrays = {"z": [8, 1, 1], "R": positions, "E": np.arange(frames) - 7.0, "F": np.zeros((frames, 3, 3))}
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return to_file


def test_units_that_cannot_be_are_refused_unless_they_are_given(read, write, in_bohr):
    with pytest.raises(ValueError, match=r'kcal/mol.*Å.*`data\.units`.*--data\.units.*"kcal/mol"'):
        read(in_bohr())
    with pytest.raises(ValueError, match=r"bohr\.npz.*kcal/mol"):
        read(write(), val_path=in_bohr())
    assert len(read(in_bohr(), units="kcal/mol").train) == 18
    assert len(read(in_bohr(), units="Hartree, Bohr").train) == 18


def test_a_processed_file_of_impossible_units_is_refused_unless_they_are_given(read, in_bohr, tmp_path):
    path = AtomsDataset(tmp_path / "root", in_bohr()).processed_paths[0]
    with pytest.raises(ValueError, match=r'source.*--data\.units.*"eV"'):
        read(path)
    assert len(read(path, units="eV").train) == 18


def test_references_are_fitted_to_the_training_part_alone(read, write):
    path = write()
    data = read(path, n_train=10, n_val=3, seed=1)
    train = AtomsDataset(path=path)[data.split.train]
    assert torch.equal(data.references.energy, train.atomref())


def test_given_references_are_taken(read, write):
    data = read(write(), references={"H": -13.6, "O": -2041.0})
    assert data.references.energy[[1, 8]].tolist() == [-13.6, -2041.0]


def test_published_references_are_converted_to_ev(read, write):
    data = read(write(), references="qm9:U0")
    assert data.references.energy[1].item() == pytest.approx(-0.500273 * 27.211386245988, rel=1e-14)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({"H": -13.6}, "reference.*training.*structures"),
        ({"Hx": -13.6}, "element.*-13.6.*'Hx'"),
        ("nosuch:U0", "'fit'.*element.*'qm9:U0'.*'nosuch:U0'"),
        ("qm9:mu", "'fit'.*element.*'qm9:PROPERTY'.*.*'qm9:mu'"),
    ],
)
def test_references_that_do_not_fit_are_refused(read, write, references, message):
    with pytest.raises(ValueError, match=message):
        read(write(), references=references)


def test_a_foreign_composition_is_refused_in_validation(read, write, tmp_path):
    water = write("water.npz")
    hydroxyl = {"z": [8, 1], "R": [[[0.0, 0, 0], [0, 0, 1]]], "E": [-1.0], "F": np.zeros((1, 2, 3))}
    np.savez(tmp_path / "oh.npz", **hydroxyl)
    with pytest.raises(ValueError, match=r"HO.*energy.*1 "):
        read(water, val_path=str(tmp_path / "oh.npz"))


def test_validation_structures_of_other_sizes_are_compared_with_training(read, write, tmp_path):
    """Copies are found among molecules of any sizes."""
    waters, ammonia = write("w.npz"), write("a.npz", "ammonia")
    both = [waters, ammonia]
    data = read(both, val_path=write("v.npz", seed=5))
    assert len(data.val) == 16
    with pytest.raises(ValueError, match=r"structure.*training"):
        read(both, val_path=ammonia)


def test_a_root_keeps_a_processed_copy(read, write, tmp_path):
    path = write()
    for memory_map in (False, True):
        data = read(path, root=str(tmp_path / "root"), memory_map=memory_map)
        assert (data.train.mapped is not None) == memory_map
    assert len(list((tmp_path / "root/processed").glob("*.safetensors"))) == 1
    assert data.train[0].energy.item() == pytest.approx(-47000 * EV, abs=3)


def test_the_hash_of_one_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_files(str(tmp_path / "a")) == hashlib.sha256(b"abc").hexdigest()
    assert hash_files(None) == ""


def test_the_hash_of_several_files_depends_on_each(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"abc")
    (tmp_path / "b.npz").write_bytes(b"def")
    whole = hash_files(str(tmp_path))
    (tmp_path / "notes").write_bytes(b"not data")
    assert re.fullmatch(r"[0-9a-f]{64}", whole)
    assert (
        whole == hash_files(str(tmp_path)) == hash_files([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")])
    )
    (tmp_path / "b.npz").write_bytes(b"deg")
    assert hash_files(str(tmp_path)) != whole
