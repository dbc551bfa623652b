"""The user's own data are a PyG data set with the fields, types and statistics that training needs."""

import hashlib
import json
import logging
import os
import pickle
import re

import numpy as np
import pytest
import torch
from ase.io import write as ase_write
from torch.testing import assert_close
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.units import Units

EV = 0.0433641042418009  # eV in a kcal/mol


@pytest.fixture
def dataset(md17, write):
    return AtomsDataset(path=write(md17))


def test_items_have_the_fields_of_the_documentation(dataset):
    item = dataset[1]
    assert isinstance(dataset, InMemoryDataset)
    assert isinstance(item, Data)
    assert {key: (tuple(item[key].shape), item[key].dtype) for key in item.keys()} == {  # noqa: SIM118
        "z": ((2,), torch.int64),
        "pos": ((2, 3), torch.float32),
        "energy": ((1,), torch.float64),
        "forces": ((2, 3), torch.float64),
        "idx": ((1,), torch.int64),
    }
    assert item.num_nodes == 2


def test_items_have_the_values_of_the_file(dataset):
    assert len(dataset) == 2
    assert dataset[1].z.tolist() == [8, 1]
    assert_close(dataset[1].pos, torch.tensor([[0.1, 0, 0], [0, -0.9, 0]]))
    assert dataset[0].energy.item() == pytest.approx(-4.33641042418009, rel=1e-14)
    assert dataset[1].forces[0, 0].item() == pytest.approx(0.0216820521209005, rel=1e-14)


def test_positions_have_the_dtype_that_is_asked_for(md17, write):
    item = AtomsDataset(path=write(md17), dtype=torch.float64)[1]
    assert item.pos.dtype == torch.float64
    assert item.pos[1, 1].item() == -0.9  # not the nearest float32


def test_positions_have_pytorchs_default_dtype_otherwise(md17, write):
    torch.set_default_dtype(torch.float64)
    try:
        assert AtomsDataset(path=write(md17))[0].pos.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_file_of_one_frame_is_a_data_set_of_one_item(md17, write):
    dataset = AtomsDataset(path=write({key: md17[key][:1] for key in "REF"} | {"z": md17["z"]}))
    assert len(dataset) == 1
    assert dataset[0].energy.tolist() == pytest.approx([-100 * EV])
    assert dataset.scale() > 0


def test_a_subset_keeps_the_numbers_of_the_file(dataset):
    subset = dataset[torch.tensor([1])]
    assert len(subset) == 1
    assert subset[0].idx.tolist() == [1]


def test_energies_alone_leave_no_forces(md17, write):
    dataset = AtomsDataset(path=write(md17), forces_key="none")
    assert not dataset.has_forces
    assert "forces" not in dataset[0]


def test_forces_are_announced(dataset):
    assert dataset.has_forces


def test_path_and_units_are_kept(md17, write):
    path = write(md17)
    dataset = AtomsDataset(path=path, units="Hartree, Bohr")
    assert dataset.path == str(path)
    assert (dataset.units.energy, dataset.units.length) == ("Hartree", "Bohr")
    assert dataset[0].energy.item() == pytest.approx(-2721.1386245988)


def test_units_of_forces_are_kept_in_the_processed_file(md17, write, tmp_path):
    options = {"path": write(md17), "units": "Hartree, Hartree/Bohr"}
    made = AtomsDataset(tmp_path / "root", **options)
    opened = AtomsDataset(path=made.processed_paths[0])
    assert opened.units == AtomsDataset(tmp_path / "root", **options).units == Units.parse(options["units"])
    assert opened[0].forces[0, 2] == pytest.approx(2 * 27.211386245988 / 0.529177210903, rel=1e-14)


def test_a_processed_file_of_earlier_versions_keeps_its_name(md17, write):
    """The name is made of all that was asked, as version 0.1 wrote it."""
    path = write(md17)
    asked = json.dumps([[str(path.absolute())], [None, None, None], "Units(energy='Hartree', length='Bohr')"])
    sign = hashlib.sha256(asked.encode()).hexdigest()[:8]
    dataset = AtomsDataset(path=path, units="Hartree, Bohr")
    assert dataset.processed_file_names == f"frames-{sign}.safetensors"


def test_the_number_of_charged_structures_is_kept(labelled, tmp_path):
    frames = labelled()
    frames[1].info["charge"], frames[3].info["charge"] = 1, -1
    ase_write(tmp_path / "frames.xyz", frames, format="extxyz")
    made = AtomsDataset(tmp_path / "root", tmp_path / "frames.xyz")
    assert made.charged == AtomsDataset(path=made.processed_paths[0]).charged == made[:2].charged == 2


def test_unknown_units_are_refused(md17, write):
    with pytest.raises(ValueError, match=r"`units`.*energy.*unit.*'kcal/mol'"):
        AtomsDataset(path=write(md17), units="kcalmol")


def test_a_transform_is_applied_to_each_item(md17, write):
    dataset = AtomsDataset(path=write(md17), transform=RadiusGraph(0.95))
    assert dataset[0].edge_index.tolist() == [[], []]  # 1 Å apart
    assert sorted(dataset[1].edge_index.T.tolist()) == [[0, 1], [1, 0]]  # 0.906 Å apart


def test_references_of_one_composition_are_those_of_minimum_norm(dataset):
    atomref = dataset.atomref()
    # OH of mean energy -99.5 kcal/mol: the shortest (a_O, a_H) with a_O + a_H = mean shares it equally.
    assert atomref.shape == (100,)
    assert atomref.dtype == torch.float64
    assert atomref[[1, 8]].tolist() == pytest.approx([-99.5 / 2 * EV] * 2, rel=1e-12)
    assert atomref.nonzero().flatten().tolist() == [1, 8]


def test_references_sum_to_the_mean_energy(ethanol, write):
    rng = np.random.default_rng(0)
    energy = -97000 + rng.normal(size=5)
    file = {"z": ethanol.z, "R": rng.normal(size=(5, 9, 3)), "E": energy}
    atomref = AtomsDataset(path=write(file)).atomref()
    assert atomref[ethanol.z].sum().item() == pytest.approx(energy.mean() * EV, rel=1e-12)


def test_references_of_a_subset_are_its_own(dataset):
    assert dataset[[1]].atomref()[1].item() == pytest.approx(-99 / 2 * EV, rel=1e-12)


def test_the_scale_is_the_rms_of_the_forces(dataset):
    # Components: 2, -2, 0.5, -0.5 and eight zeros.
    assert dataset.scale() == pytest.approx(np.sqrt((4 + 4 + 0.25 + 0.25) / 12) * EV, rel=1e-12)


def test_the_scale_of_energies_alone_is_their_spread_an_atom(md17, write):
    dataset = AtomsDataset(path=write(md17), forces_key="none")
    assert dataset.scale() == pytest.approx(0.5 / 2 * EV, rel=1e-9)  # -100 and -99: ±0.5, two atoms


def test_the_scale_is_one_where_nothing_spreads(md17, write):
    assert AtomsDataset(path=write(md17), forces_key="none")[[0]].scale() == 1.0


def test_the_elements_are_sorted(dataset):
    assert dataset.elements() == [1, 8]


def test_statistics_leave_the_tensors_as_they_were(dataset):
    before = {key: dataset._data[key].clone() for key in dataset.slices}
    dataset.atomref(), dataset.scale(), dataset.elements()
    for key, value in before.items():
        assert torch.equal(dataset._data[key], value)


def test_periodic_structures_have_a_lattice(tmp_path, labelled):
    ase_write(tmp_path / "a.traj", labelled(periodic=[1], stress=True))
    dataset = AtomsDataset(path=tmp_path / "a.traj")
    shapes = {key: (tuple(dataset[1][key].shape), dataset[1][key].dtype) for key in ("cell", "pbc", "stress")}
    assert shapes == {
        "cell": ((1, 3, 3), torch.float32),
        "pbc": ((1, 3), torch.bool),
        "stress": ((1, 3, 3), torch.float64),
    }
    assert [item.pbc.any().item() for item in dataset] == [False, True, False, False, False]
    assert not dataset[0].cell.any()


def test_labels_tell_from_where_they_are(revised, write):
    dataset = AtomsDataset(path=write(revised), energy_key="old_energies")
    assert dataset.labels == {"energy": "'old_energies' (kcal/mol)", "forces": "'old_forces' (kcal/mol/Å)"}
    assert dataset.units == Units("kcal/mol")


def test_what_is_left_out_is_told(write_hdf5):
    ani = {
        "atomic_numbers": np.array([1]),
        "coordinates": np.zeros((2, 1, 3)),
        "wb97x_dz.energy": np.array([1, np.nan]),
    }
    assert AtomsDataset(path=write_hdf5({"H": ani})).labels == {
        "energy": "'wb97x_dz.energy' (Hartree)",
        "left out": "1 structures without labels (NaN)",
    }


def test_a_root_in_place_of_the_path_is_told(md17, write):
    path = write(md17)
    with pytest.raises(
        TypeError, match=re.escape(f"`path` must name the data, got none; write AtomsDataset(path='{path}')")
    ):
        AtomsDataset(path)
    with pytest.raises(TypeError, match=r"write AtomsDataset\(path='FILE'\)"):
        AtomsDataset()


def test_a_root_that_is_a_file_is_refused(md17, write):
    path = write(md17)
    with pytest.raises(
        ValueError, match=re.escape(f"`root` must be a folder, got the file {path}; name data with")
    ):
        AtomsDataset(path, path=path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.npz.*no such"):
        AtomsDataset(path=tmp_path / "no.npz")


def test_without_a_root_nothing_is_written(md17, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(md17)
    AtomsDataset(path=path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def reads(monkeypatch):
    """Count how often files are read."""
    from pyg_schnet.datasets import atoms

    calls = []

    def counted(*args):
        calls.append(args)
        yield from original(*args)

    original = atoms.read_frames
    monkeypatch.setattr(atoms, "read_frames", counted)
    return calls


def test_a_file_is_processed_once(md17, write, tmp_path, reads):
    path = write(md17)
    first, second = (AtomsDataset(tmp_path / "root", path=path) for _ in range(2))
    assert len(reads) == 1
    assert (
        (first.units, first.labels)
        == (second.units, second.labels)
        == (
            Units("kcal/mol"),
            {"energy": "'E' (kcal/mol)", "forces": "'F' (kcal/mol/Å)"},
        )
    )
    for key in ("z", "pos", "energy", "forces", "idx"):
        assert torch.equal(first[1][key], second[1][key])
        assert torch.equal(first[1][key], AtomsDataset(path=path)[1][key])
    assert re.fullmatch(r"frames-[0-9a-f]{8}\.safetensors", os.path.basename(first.processed_paths[0]))


@pytest.mark.parametrize(
    "change",
    [
        lambda path, md17: np.savez(path, **{**md17, "E": md17["E"] + 1, "more": np.zeros(9)}),
        lambda path, md17: os.utime(path, ns=(0, 1)),
    ],
)
def test_a_changed_file_is_processed_again(md17, write, tmp_path, reads, change):
    path = write(md17)
    AtomsDataset(tmp_path / "root", path=path)
    change(path, md17)
    AtomsDataset(tmp_path / "root", path=path)
    assert len(reads) == 2


@pytest.mark.parametrize("options", [{"forces_key": "none"}, {"units": "eV"}, {"energy_key": "old_energies"}])
def test_other_labels_are_processed_beside(revised, write, tmp_path, reads, options):
    path, root = write(revised), tmp_path / "root"
    first = AtomsDataset(root, path=path)
    other = AtomsDataset(root, path=path, **options)
    again = AtomsDataset(root, path=path)
    assert len(reads) == 2
    assert other.processed_paths != first.processed_paths
    assert torch.equal(again[0].energy, first[0].energy)


def test_files_of_one_name_do_not_meet(md17, write, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [write(md17), write({**md17, "E": md17["E"] + 100}, "other/frames.npz")]
    datasets = [AtomsDataset(tmp_path / "root", path=path) for path in paths]
    assert AtomsDataset(tmp_path / "root", path=paths[0])[0].energy == datasets[0][0].energy
    assert datasets[1][0].energy.item() == 0.0
    assert datasets[0].processed_paths != datasets[1].processed_paths


def test_a_file_that_was_processed_may_not_be_gone(md17, write, tmp_path):
    path = write(md17)
    AtomsDataset(tmp_path / "root", path=path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no such file"):
        AtomsDataset(tmp_path / "root", path=path)


def test_a_filter_leaves_structures_out(md17, write, tmp_path):
    kept = AtomsDataset(tmp_path / "root", path=write(md17), pre_filter=lambda item: item.energy > -4.3)
    assert [item.idx.item() for item in kept] == [1]


def test_a_list_of_files_is_one_set(md17, write, tmp_path):
    paths = [write(md17, "a.npz"), str(write(md17, "b.npz"))]
    for root in (None, tmp_path / "root"):
        dataset = AtomsDataset(root, path=paths)
        assert [item.idx.item() for item in dataset] == [0, 1, 2, 3]
        assert dataset.path == f"{paths[0]} and 1 more"


def test_a_folder_is_one_set(md17, write, tmp_path):
    (tmp_path / "data").mkdir()
    write(md17, "data/a.npz"), write(md17, "data/b.npz")
    dataset = AtomsDataset(tmp_path / "root", path=tmp_path / "data")
    assert (len(dataset), dataset.path) == (4, str(tmp_path / "data"))


@pytest.mark.parametrize("memory_map", [False, True])
def test_a_processed_file_is_opened_as_it_is(md17, write, tmp_path, reads, memory_map):
    made = AtomsDataset(tmp_path / "root", path=write(md17))
    opened = AtomsDataset(path=made.processed_paths[0], memory_map=memory_map)
    assert len(reads) == 1
    assert (opened.mapped is not None) == memory_map
    assert (opened.units, opened.labels) == (made.units, made.labels)
    assert all(torch.equal(opened[1][key], made[1][key]) for key in made.slices)
    assert opened[1].z.dtype == torch.int64


@pytest.fixture
def processed(tmp_path):
    """A processed file of another data set: energies, gaps and forces of OH and H."""
    fields = {
        "z": torch.tensor([8, 1, 1], dtype=torch.uint8),
        "pos": torch.eye(3, dtype=torch.float64),
        "energy": torch.tensor([-1.0, -2.0], dtype=torch.float64),
        "forces": torch.ones(3, 3, dtype=torch.float64),
        "gap": torch.tensor([0.25, 0.5]),  # float32
        "dipole": torch.zeros(2, 3),
        "gradient": 2 * torch.ones(3, 3),
        "name": ["OH", "H"],
        "idx": torch.arange(2),
    }
    counts = torch.tensor([2, 1])
    chunk = Chunk(fields, {key: counts for key in ("z", "pos", "forces", "gradient")})
    split = Split(torch.tensor([1]), torch.tensor([0]), torch.tensor([], dtype=torch.long))
    storage.write(tmp_path / "set.safetensors", [chunk], splits=lambda: {"official": split})
    return tmp_path / "set.safetensors"


@pytest.mark.parametrize("memory_map", [False, True])
def test_any_number_of_a_processed_file_may_be_the_energy(processed, memory_map):
    dataset = AtomsDataset(path=processed, energy_key="gap", memory_map=memory_map)
    assert [item.energy.item() for item in dataset] == [0.25, 0.5]
    assert dataset[0].energy.dtype == torch.float64
    assert dataset[0].gap.item() == 0.25
    assert dataset[1].name == "H"
    assert dataset.labels == {"energy": "'gap'"}
    assert not dataset.has_forces  # they belong to the other energy
    assert dataset.split("official").train.tolist() == [1]


def test_no_memory_is_taken_for_another_name(processed):
    dataset = AtomsDataset(path=processed, energy_key="energy", forces_key="forces")
    mapped = AtomsDataset(path=processed, energy_key="gap", memory_map=True)
    assert mapped._data.energy.data_ptr() == mapped._data.gap.data_ptr()
    assert dataset.has_forces


def test_forces_of_a_processed_file_may_be_others_or_none(processed):
    assert AtomsDataset(path=processed).has_forces
    assert "forces" not in AtomsDataset(path=processed, forces_key="none")[0]
    assert AtomsDataset(path=processed, forces_key="gradient")[0].forces[0, 0].item() == 2.0


def test_a_processed_file_of_another_set_is_in_ev(processed):
    dataset = AtomsDataset(path=processed)
    assert (dataset.units, dataset.labels) == (Units("eV"), {"energy": "'energy'"})


def test_labels_that_are_not_taken_are_not_told(md17, write, tmp_path):
    path = AtomsDataset(tmp_path / "root", path=write(md17)).processed_paths[0]
    assert AtomsDataset(path=path, forces_key="none").labels == {"energy": "'E' (kcal/mol)"}
    assert AtomsDataset(path=path, energy_key="energy", forces_key="forces").labels == {
        "energy": "'E' (kcal/mol)",
        "forces": "'forces'",
    }


def test_a_file_that_changes_while_it_is_read_is_read_again(md17, write, tmp_path, reads, monkeypatch):
    path = write(md17)

    def grow(item):
        os.utime(path, ns=(0, 1))
        return True

    AtomsDataset(tmp_path / "root", path=path, pre_filter=grow)
    AtomsDataset(tmp_path / "root", path=path, pre_filter=grow)
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"energy_key": "dipole"},
            "`energy_key` must name a field of the shape of energy, one of 'energy', 'gap'; got 'dipole'",
        ),
        (
            {"energy_key": "name"},
            "`energy_key` must name a field of the shape of energy, one of 'energy', 'gap'; got 'name'",
        ),
        (
            {"forces_key": "pos"},
            "`forces_key` must name a field of the shape of forces, one of 'forces', 'gradient'; got 'pos'",
        ),
        (
            {"stress_key": "stress"},
            "`stress_key` must name a field of the shape of stress, one of none; got 'stress'",
        ),
        ({"units": "kcal/mol"}, "is in eV and Å, as processed files are; leave `units` out"),
        (
            {"pre_filter": bool},
            "is processed already, so `pre_transform` and `pre_filter` must be left out; use `transform`, "
            "or a subset of the data set",
        ),
    ],
)
def test_what_a_processed_file_cannot_give_is_refused(processed, options, reason):
    with pytest.raises(ValueError, match=re.escape(f"{processed}: {reason}")):
        AtomsDataset(path=processed, **options)


def test_a_checkpoint_is_no_data(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a checkpoint is no data"):
        AtomsDataset(path=tmp_path / "model.safetensors")


@pytest.mark.parametrize("memory_map", [False, True])
def test_other_processes_get_the_same_labels(processed, memory_map):
    """As the workers of a data loader do."""
    dataset = AtomsDataset(path=processed, energy_key="gap", memory_map=memory_map)[[1]]
    copy = pickle.loads(pickle.dumps(dataset))
    assert (len(copy), copy[0].energy.item(), copy.labels) == (1, 0.5, {"energy": "'gap'"})


def test_reading_is_silent_when_all_is_well(md17, write, caplog):
    with caplog.at_level(logging.WARNING):
        AtomsDataset(path=write(md17))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"z": torch.tensor([200, 1], dtype=torch.uint8)},
            "`z`.*numbers.*1.*99",
        ),
        ({"z": torch.tensor([8.0, 1.0])}, "`z`.*numbers.*1.*99"),
        ({"pos": torch.zeros(2, 2)}, r"`pos`.*shape.*\(2, 3\).*row.*atom.*\(2, 2\)"),
    ],
)
def test_a_processed_file_that_is_no_set_of_molecules_is_refused(tmp_path, changes, message):
    pos = torch.eye(3, dtype=torch.float64)[:2]
    fields = {"z": torch.tensor([8, 1], dtype=torch.uint8), "pos": pos, "energy": torch.zeros(1).double()}
    two = torch.tensor([2])
    storage.write(tmp_path / "a.safetensors", [Chunk({**fields, **changes}, {"z": two, "pos": two})])
    with pytest.raises(ValueError, match=message):
        AtomsDataset(path=tmp_path / "a.safetensors")
