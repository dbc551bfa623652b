"""Systems of DeePMD-kit are read in eV and Å, or refused with the reason.

The layout is that of https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html, written here
by plain NumPy.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones

from pyg_schnet.datasets import AtomsDataset, read_frames
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.units import Units

WATER = Path(__file__).parents[3] / "../shared/data/periodic/water"
# Two frames of OH in a box of 4 × 5 × 6 Å, in eV and Å, float32 as dpdata writes them.
COORD = np.array([[0, 0, 0.5, 0, 0, 1.5], [0.25, 0, 0, 0, 1, 0]], dtype=np.float32)
BOX = np.array([[4, 0, 0, 0, 5, 0, 0, 0, 6]] * 2, dtype=np.float32)
FORCE = np.array([[0, 0, 2, 0, 0, -2], [0.5, 0, 0, -0.5, 0, 0]], dtype=np.float32)
VIRIAL = np.array([[120, 12, 0, 12, -240, 0, 0, 0, 60]] * 2, dtype=np.float32)
SET = {"coord": COORD, "box": BOX, "energy": np.array([-100.0, -99.5], dtype=np.float32), "force": FORCE}


@pytest.fixture
def system(tmp_path):
    """Write a system and return its folder."""

    def to_folder(name="water", sets=(SET,), types="1\n0\n", type_map="H\nO\n", nopbc=False):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "type.raw").write_text(types)
        if type_map is not None:
            (folder / "type_map.raw").write_text(type_map)
        if nopbc:
            (folder / "nopbc").touch()
        for number, arrays in enumerate(sets):
            (folder / f"set.{number:03d}").mkdir()
            for key, array in arrays.items():
                np.save(folder / f"set.{number:03d}" / f"{key}.npy", array)
        return folder

    return to_folder


def read(path, *keys, units=None):
    return concatenate(list(read_frames(path, *keys, units=units)))


def refused(path, *args, **kwargs):
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read(path, *args, **kwargs)
    return str(caught.value)


def test_a_system_is_in_ev_and_angstrom(system):
    frames = read(system())
    assert frames.numbers.tolist() == [8, 1, 8, 1]  # type 1 is the second line of type_map.raw
    assert frames.energy.tolist() == [-100.0, -99.5]
    assert frames.positions.tolist() == [[0, 0, 0.5], [0, 0, 1.5], [0.25, 0, 0], [0, 1, 0]]
    assert frames.forces[2].tolist() == [0.5, 0, 0]
    assert frames.cell[1].tolist() == [[4, 0, 0], [0, 5, 0], [0, 0, 6]]
    assert frames.pbc.all()
    assert frames.units == Units("eV")
    assert frames.labels == {"energy": "'energy' (eV)", "forces": "'force' (eV/Å)"}


def test_the_rows_of_a_box_are_lattice_vectors(system):
    """In the order XX XY XZ YX …: the first vector, then the second."""
    box = np.array([[4, 0, 0, 1, 5, 0, 2, 3, 6]] * 2)
    assert read(system(sets=[{**SET, "box": box}])).cell[0].tolist() == [[4, 0, 0], [1, 5, 0], [2, 3, 6]]


def test_a_virial_is_minus_stress_times_volume(system):
    frames = read(system(sets=[{**SET, "virial": VIRIAL}]))  # the volume is 120 Å³
    np.testing.assert_allclose(frames.stress[0], [[-1, -0.1, 0], [-0.1, 2, 0], [0, 0, -0.5]], rtol=1e-7)


def test_the_virial_of_a_compressed_crystal_is_positive(system):
    """DeePMD-kit's virial is minus the derivative by strain, computed here by differences of the energy."""
    crystal = bulk("Ar", "fcc", a=1.5, cubic=True)
    crystal.calc = LennardJones(rc=3.0, smooth=True)
    stretched = [crystal.copy(), crystal.copy()]
    for sign, atoms in zip((1, -1), stretched, strict=True):
        atoms.set_cell(crystal.cell * (1 + sign * 1e-5), scale_atoms=True)
        atoms.calc = crystal.calc
    trace = -(stretched[0].get_potential_energy() - stretched[1].get_potential_energy()) / 2e-5
    assert trace > 0
    arrays = {
        "coord": crystal.positions.reshape(1, -1),
        "box": crystal.cell.array.reshape(1, 9),
        "energy": [crystal.get_potential_energy()],
        "force": crystal.get_forces().reshape(1, -1),
        "virial": (np.eye(3) * trace / 3).reshape(1, 9),
    }
    frames = read(system(sets=[arrays], types="0 0 0 0", type_map="Ar"))
    np.testing.assert_allclose(frames.stress[0], crystal.get_stress(voigt=False), rtol=1e-6, atol=1e-9)


def test_without_a_lattice_there_is_no_box_and_no_stress(system):
    frames = read(system(sets=[{**SET, "box": 0 * BOX, "virial": VIRIAL}], nopbc=True))
    assert (frames.cell, frames.pbc, frames.stress) == (None, None, None)
    assert len(frames) == 2


def test_all_sets_are_read_in_the_order_of_their_names(system):
    sets = [{**SET, "energy": np.array([number, number + 0.5])} for number in range(3)]
    assert read(system(sets=sets)).energy.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_folder_of_systems_is_read_in_the_order_of_their_names(system, tmp_path):
    system("all/b/data_0", [{**SET, "energy": np.array([3.0, 4.0])}])
    system("all/a", [{**SET, "energy": np.array([1.0, 2.0])}], types="0 0")
    frames = read(tmp_path / "all")
    assert frames.energy.tolist() == [1, 2, 3, 4]
    assert frames.numbers.tolist() == [1, 1, 1, 1, 8, 1, 8, 1]


def test_the_mixed_layout_has_elements_of_each_frame_and_gaps(system):
    """dpdata fills smaller structures with -1 and zeros."""
    arrays = {
        "real_atom_types": np.array([[0, 1, -1], [1, 0, 0]]),
        "coord": np.arange(18.0).reshape(2, 9),
        "force": -np.arange(18.0).reshape(2, 9),
        "energy": np.array([[-1.0], [-2.0]]),
    }
    frames = read(system(sets=[arrays], types="0 0 0", nopbc=True))
    assert frames.counts.tolist() == [2, 3]
    assert frames.numbers.tolist() == [1, 8, 8, 1, 1]
    assert frames.positions[:, 0].tolist() == [0, 3, 9, 12, 15]
    assert frames.forces[:, 0].tolist() == [0, -3, -9, -12, -15]


def test_units_may_be_others(system):
    frames = read(system(sets=[{**SET, "virial": VIRIAL}]), units=Units("Hartree", "Bohr"))
    assert frames.energy[0] == pytest.approx(-100 * 27.211386245988, rel=1e-12)
    assert frames.positions[0, 2] == pytest.approx(0.5 * 0.529177210903, rel=1e-12)
    assert frames.forces[0, 2] == pytest.approx(2 * 27.211386245988 / 0.529177210903, rel=1e-12)
    assert frames.stress[0, 0, 0] == pytest.approx(-27.211386245988 / 0.529177210903**3, rel=1e-6)


def test_other_labels_may_be_named(system):
    path = system(sets=[{**SET, "energy_pbe": np.array([1.0, 2.0]), "force_pbe": 2 * FORCE}])
    frames = read(path, "energy_pbe", "force_pbe")
    assert frames.energy.tolist() == [1, 2]
    assert frames.forces[2].tolist() == [1, 0, 0]
    assert read(path, None, "none").forces is None
    assert "no energy 'energy_b3lyp'" in refused(path, "energy_b3lyp")


@pytest.mark.parametrize(
    "names",
    [
        {name: name for name in ("type", "type_map", "coord", "box", "energy", "force", "virial")},
        {
            **{"type": "atom_types", "type_map": "atom_names", "coord": "coords", "box": "cells"},
            **{"energy": "energies", "force": "forces", "virial": "virials"},
        },
    ],
)
def test_an_npz_file_may_have_the_names_of_a_system(write, names):
    """Or dpdata's own, of arrays in memory."""
    arrays = {**SET, "virial": VIRIAL, "type": np.array([1, 0]), "type_map": np.array(["H", "O"])}
    path = write({names[name]: array for name, array in arrays.items()})
    frames = read(path)
    assert frames.numbers.tolist() == [8, 1, 8, 1]
    assert frames.energy.tolist() == [-100.0, -99.5]
    assert frames.forces[2].tolist() == [0.5, 0, 0]
    assert frames.stress[0, 1, 1] == pytest.approx(2.0)
    assert frames.cell[0, 2].tolist() == [0, 0, 6]


@pytest.mark.parametrize("names", [("coord", "coords"), ("energy", "energies"), ("type", "atom_types")])
def test_an_npz_file_with_both_names_of_an_array_is_refused(write, names):
    """Which of them holds is not known."""
    arrays = {**SET, "type": np.array([1, 0]), "type_map": np.array(["H", "O"])}
    arrays[names[1]] = arrays[names[0]] * 0
    message = refused(write(arrays))
    assert all(f"'{name}'" in message for name in names)


def test_an_npz_file_with_one_energy_for_all_frames_is_refused(write):
    arrays = {**SET, "type": np.array([1, 0]), "type_map": np.array(["H", "O"]), "energy": np.array(-1.0)}
    assert "'energy' must have shape" in refused(write(arrays))


def test_an_npz_file_with_atomic_numbers_and_coord_needs_units(write):
    path = write({**SET, "z": np.array([8, 1])})
    assert "units" in refused(path)
    frames = read(path, units=Units("eV"))
    assert frames.positions.tolist() == COORD.reshape(-1, 3).tolist()
    assert frames.cell[0, 1].tolist() == [0, 5, 0]


def test_a_set_that_changed_is_read_again(system, tmp_path):
    path = system()
    assert AtomsDataset(tmp_path / "root", path).energy.tolist() == [-100.0, -99.5]
    np.save(path / "set.000" / "energy.npy", np.array([-1.0, -2.0]))
    assert AtomsDataset(tmp_path / "root", path).energy.tolist() == [-1.0, -2.0]


def test_many_frames_come_in_parts(system, monkeypatch):
    from pyg_schnet.io.formats import deepmd
    from pyg_schnet.io.formats.labels import Keys

    frames = 2**20 // 2 + 1
    coordinates = np.tile(
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0], (frames, 1)
    )  # atoms that share x take long to check
    arrays = {"coord": coordinates, "energy": np.arange(frames, dtype=np.float32)}
    path = system(sets=[arrays], nopbc=True)
    assert [len(part) for part in deepmd.read(path, Keys(), None)] == [frames - 1, 1]


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("coord", COORD[:, :5], r"'coord'.*shape.*\(2, 6\).*\(2, 5\)"),
        ("coord", COORD[:1], r"'energy'.*shape.*\(1, 1\).*\(2,\)"),
        ("force", FORCE.reshape(1, -1), r"'force'.*shape.*\(2, 6\).*\(1, 12\)"),
        ("box", BOX[:, :3], r"'box'.*shape.*\(2, 9\).*\(2, 3\)"),
        ("energy", np.zeros(3), r"'energy'.*shape.*\(2, 1\).*\(3,\)"),
        ("energy", np.array([0.0, np.nan]), "finite energy"),
        ("energy", np.array(1.0), "row.*frame"),
        ("energy", np.array(["a", "b"]), "must hold numbers"),
        ("energy", np.array([{}, {}], dtype=object), "npy.*numbers"),
        ("coord", np.zeros((0, 6)), "npy|structure|shape"),
        ("real_atom_types", np.array([[0, 2], [0, 1]]), "below 2"),
        ("real_atom_types", np.array([[0, -2], [0, 1]]), "below 2"),
        ("real_atom_types", np.array([[0.5, 0], [0, 1]]), "indices"),
    ],
)
def test_wrong_arrays_are_refused(system, name, array, reason):
    path = system(sets=[{**SET, name: array}])
    with pytest.raises(ValueError, match=reason):
        read(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"types": "0 2"}, "below 2"),
        ({"types": "0 -1"}, "negative"),
        ({"types": "H O"}, "whole number"),
        ({"types": ""}, "'coord'.*shape"),
        ({"types": "0 " + "9" * 30}, "whole number"),
        ({"type_map": None}, "type_map.raw"),
        ({"type_map": "H\nWater\n"}, "'Water'"),
        ({"type_map": ""}, "symbols"),
        ({"sets": ()}, r"set\.\*"),
        ({"sets": [{}]}, "'coord'"),
        ({"sets": [{name: SET[name] for name in ("coord", "energy")}]}, "nopbc"),
        ({"sets": [{name: SET[name] for name in ("coord", "box")}]}, "no energy"),
        ({"sets": [SET, {**SET, "energy": np.zeros(2), "virial": VIRIAL}]}, "stress"),
    ],
)
def test_wrong_systems_are_refused(system, options, reason):
    with pytest.raises(ValueError, match=reason):
        read(system(**options))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04pickle"])
def test_a_file_that_is_no_npy_is_refused(system, content):
    path = system()
    (path / "set.000" / "energy.npy").write_bytes(content)
    assert "npy file" in refused(path)


def test_a_file_that_is_shorter_than_its_header_says_is_refused(system):
    path = system()
    file = path / "set.000" / "coord.npy"
    file.write_bytes(file.read_bytes()[:-4])
    assert "npy file" in refused(path)


def test_links_to_other_folders_are_not_followed(system, tmp_path):
    np.save(tmp_path / "secret.npy", np.array([1.0, 2.0]))
    path = system("a")
    (path / "set.000" / "energy.npy").unlink()
    (path / "set.000" / "energy.npy").symlink_to(tmp_path / "secret.npy")
    assert " link" in refused(path)
    types = system("types") / "type.raw"
    types.unlink()
    types.symlink_to(tmp_path / "secret.npy")
    assert " link" in refused(types.parent)
    other = system("b")
    (other / "set.001").symlink_to(path / "set.000")
    assert " link" in refused(other)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "c").symlink_to(other)
    assert " link" in refused(tmp_path / "all")


def test_a_folder_without_systems_is_refused(tmp_path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    assert "DeePMD" in refused(tmp_path / "empty")


@pytest.mark.skipif(not WATER.exists(), reason="needs the shared reference data")
def test_liquid_water_is_as_published():
    """64 molecules in a cube of 12.4447 Å, 80 and 160 frames."""
    dataset = AtomsDataset(path=WATER)
    assert len(dataset) == 240
    first = dataset[0]
    assert first.z.bincount()[[1, 8]].tolist() == [128, 64]
    assert first.cell[0].diagonal().tolist() == pytest.approx([12.4447] * 3, abs=1e-4)
    assert first.energy.item() == pytest.approx(-29943.906, abs=1e-3)
    assert first.pos[0].tolist() == pytest.approx([7.538786, 2.05621, 4.5207386], abs=1e-6)
    assert first.forces[0].tolist() == pytest.approx([0.6219969, 0.1840098, -0.04290577], abs=1e-6)
    assert torch.linalg.norm(dataset[200].forces, dim=1).mean() < 5
