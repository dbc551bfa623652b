"""MD17's and revised MD17's files are read in eV and Å, or refused with the reason."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from pyg_schnet.datasets import AtomsDataset, read_npz
from pyg_schnet.units import Units

SHARED = Path(__file__).parents[2] / "../shared/data/rmd17"


class Creates:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refused(path, *args, **kwargs):
    """Return the reason; all are ValueErrors that begin with the path."""
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read_npz(path, *args, **kwargs)
    return str(caught.value).removeprefix(f"{path}: ")


def replaced(arrays, key, value):
    return {**arrays, key: np.asarray(value)}


@pytest.mark.parametrize("layout", ["md17", "revised"])
def test_energies_forces_and_positions_of_a_layout_are_in_ev_and_angstrom(layout, request, write):
    trajectory = read_npz(write(request.getfixturevalue(layout)))
    # 1 kcal/mol is 0.0433641042418009 eV.
    np.testing.assert_allclose(trajectory.energy, [-4.33641042418009, -4.29304631993829], rtol=1e-14)
    np.testing.assert_allclose(
        trajectory.forces[:, 0], [[0, 0, 0.0867282084836018], [0.0216820521209005, 0, 0]], rtol=1e-14
    )
    assert trajectory.positions[:, 1].tolist() == [[0.0, 0.0, 1.5], [0.0, -0.9, 0.0]]
    assert trajectory.numbers.tolist() == [8, 1]
    assert trajectory.numbers.dtype == np.int64
    assert {trajectory.energy.dtype, trajectory.forces.dtype, trajectory.positions.dtype} == {np.dtype("f8")}
    assert trajectory.units == Units("kcal/mol")


def test_old_energies_come_with_old_forces(revised, write):
    trajectory = read_npz(write(revised), "old_energies")
    assert trajectory.energy[0] == pytest.approx(-8.67282084836018, rel=1e-14)
    assert trajectory.forces[0, 0, 2] == pytest.approx(-0.0867282084836018, rel=1e-14)


def test_forces_may_be_chosen_against_the_layout(revised, write):
    trajectory = read_npz(write(revised), "energies", "old_forces")
    assert trajectory.energy[0] == pytest.approx(-4.33641042418009, rel=1e-14)
    assert trajectory.forces[0, 0, 2] == pytest.approx(-0.0867282084836018, rel=1e-14)


def test_a_file_of_energies_alone_has_no_forces(md17, write):
    del md17["F"]
    assert read_npz(write(md17)).forces is None


def test_energies_without_partner_have_no_forces(revised, write):
    del revised["old_forces"]
    assert read_npz(write(revised), "old_energies").forces is None


def test_forces_none_reads_no_forces(md17, write):
    assert read_npz(write(md17), forces_key="none").forces is None


def test_hartree_and_bohr_are_converted(md17, write):
    trajectory = read_npz(write(md17), units=Units.parse("Hartree, Bohr"))
    assert trajectory.energy[0] == pytest.approx(-2721.1386245988, rel=1e-14)
    assert trajectory.forces[0, 0, 2] == pytest.approx(102.844134952652, rel=1e-13)
    assert trajectory.positions[0, 1, 2] == pytest.approx(0.7937658163545, rel=1e-14)


def test_labels_of_any_key_are_read_where_their_units_are_given(md17, write):
    path = write({**md17, "ccsd": np.array([-1.0, -2.0]), "grad": 2 * md17["F"]})
    trajectory = read_npz(path, "ccsd", "grad", Units("eV"))
    assert trajectory.energy.tolist() == [-1.0, -2.0]
    assert trajectory.forces[0, 0, 2] == 4.0


def test_an_energy_of_the_size_of_aspirins_keeps_its_digits(md17, write):
    path = write(replaced(md17, "E", [[-406757.1234567], [-406757.1234568]]))
    energy = AtomsDataset(path)[0].energy.item()
    assert energy == pytest.approx(-17638.6583026714311, rel=1e-15)
    assert energy / 0.0433641042418009 == pytest.approx(-406757.1234567, rel=1e-14)


def test_float32_and_integers_are_read(md17, write):
    path = write({**md17, "R": md17["R"].astype("f4"), "E": np.array([[-100], [-99]])})
    assert read_npz(path).positions.dtype == np.float64
    assert read_npz(path).energy[0] == pytest.approx(-4.33641042418009, rel=1e-14)


def test_atomic_numbers_may_be_floats_with_integer_values(md17, write):
    assert read_npz(write(replaced(md17, "z", [8.0, 1.0]))).numbers.tolist() == [8, 1]


def test_compressed_files_are_read(md17, tmp_path):
    np.savez_compressed(tmp_path / "small.npz", **md17)
    assert len(read_npz(tmp_path / "small.npz").energy) == 2


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference data of revised MD17 are not beside the repository"
)
def test_revised_md17_itself_has_the_energies_of_dft():
    paths = sorted(SHARED.glob("*ethanol*.npz"))
    if not paths:
        pytest.skip("there is no ethanol among the reference data")
    trajectory = read_npz(paths[0])
    # PBE/def2-SVP of C2H6O: -154.9 Hartree; forces of some eV/Å.
    assert trajectory.energy.mean() == pytest.approx(-154.9 * 27.2114, rel=5e-3)
    assert 0.5 < np.sqrt((trajectory.forces**2).mean()) < 2.0


@pytest.mark.parametrize(
    ("energy_key", "forces_key", "foreign"), [("ccsd", None, "ccsd"), (None, "grad", "grad")]
)
def test_labels_of_other_keys_need_units(md17, write, energy_key, forces_key, foreign):
    path = write({**md17, "ccsd": np.zeros(2), "grad": md17["F"]})
    assert refused(path, energy_key, forces_key) == (
        f'the unit of \'{foreign}\' is not known; set the units, for example "kcal/mol" or "Hartree, Bohr"'
    )


def test_other_keys_than_the_layouts_are_refused_with_those_that_are_there(write):
    path = write({"positions": np.zeros((1, 2, 3)), "charges": np.ones(2)})
    assert refused(path) == (
        "must have the keys 'z' and 'R' (MD17) or 'nuclear_charges' and 'coords' (revised MD17); "
        "got 'charges', 'positions'"
    )


def test_a_file_without_arrays_is_refused(write):
    assert refused(write({})).endswith("; got none")


@pytest.mark.parametrize(
    ("energy_key", "forces_key", "missing"), [(None, None, "E"), ("energy", None, "energy"), (None, "f", "f")]
)
def test_a_missing_key_is_named(md17, write, energy_key, forces_key, missing):
    if missing == "E":
        del md17["E"]
    keys = ", ".join(f"'{key}'" for key in sorted(md17))
    assert refused(write(md17), energy_key, forces_key) == (
        f"has no key '{missing}'; its keys are {keys}; choose others with energy_key and forces_key"
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("R", np.zeros((2, 2)), "'R' must have shape (frames, 2, 3), got (2, 2)"),
        ("R", np.zeros((2, 3, 3)), "'R' must have shape (2, 2, 3), got (2, 3, 3)"),
        ("R", np.zeros((0, 2, 3)), "'R' must hold at least one frame, got 0"),
        ("E", np.zeros(3), "'E' must have shape (2), got (3,)"),
        ("E", np.zeros((1, 2)), "'E' must have shape (2), got (1, 2)"),
        ("F", np.zeros((2, 6)), "'F' must have shape (2, 2, 3), got (2, 6)"),
        ("F", np.zeros((1, 2, 3)), "'F' must have shape (2, 2, 3), got (1, 2, 3)"),
        ("z", [[8, 1], [8, 1]], "'z' must hold one atomic number for each atom, got shape (2, 2)"),
        ("z", [0, 1], "'z' must hold atomic numbers 1 to 99, got 0"),
        ("z", [-8, 1], "'z' must hold atomic numbers 1 to 99, got -8"),
        ("z", [8, 119], "'z' must hold atomic numbers 1 to 99, got 119"),
        ("z", [8, 6.5], "'z' must hold atomic numbers 1 to 99, got 6.5"),
        ("z", [8, np.nan], "'z' must hold atomic numbers 1 to 99, got nan"),
        ("z", np.zeros(0), "'z' must hold atomic numbers 1 to 99, got none"),
        ("z", ["O", "H"], "'z' must hold numbers, got <U1"),
        ("E", [True, False], "'E' must hold numbers, got bool"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_with_key_and_reason(md17, write, key, value, reason):
    assert refused(write(replaced(md17, key, value))) == reason


@pytest.mark.parametrize("key", ["R", "E", "F"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_that_is_not_finite_is_named(md17, write, key, value):
    array = md17[key].copy()
    array[1].flat[0] = value
    assert refused(write(replaced(md17, key, array))) == (
        f"'{key}' must be finite, got NaN or infinity in frame 1; remove the frame"
    )


@pytest.mark.parametrize("key", ["z", "R", "E", "F"])
def test_pickled_objects_are_refused_and_not_executed(md17, tmp_path, key):
    trap = tmp_path / "executed"
    array = np.empty(1, dtype=object)
    array[0] = Creates(trap)
    np.savez(tmp_path / "trap.npz", allow_pickle=True, **{**md17, key: array})
    assert refused(tmp_path / "trap.npz") == (
        f"'{key}' holds pickled objects, which are never loaded, for they may run code; "
        "save it as an array of numbers"
    )
    assert not trap.exists()


def test_pickled_objects_that_are_not_asked_for_do_no_harm(md17, tmp_path):
    trap = tmp_path / "executed"
    array = np.empty(1, dtype=object)
    array[0] = Creates(trap)
    np.savez(tmp_path / "trap.npz", allow_pickle=True, **md17, md5=array)
    assert len(read_npz(tmp_path / "trap.npz").energy) == 2
    assert not trap.exists()


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    import pickle

    trap, path = tmp_path / "executed", tmp_path / "frames.npz"
    path.write_bytes(pickle.dumps(Creates(trap)))
    assert refused(path) == (
        "must be an npz file, which it is not or no longer (it starts otherwise); download or write it again"
    )
    assert not trap.exists()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no\.npz: no such file; an npz file of structures is needed"
    ):
        read_npz(tmp_path / "no.npz")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_npz(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"9\nethanol\nC 0.0 0.0 0.0\n", "it starts otherwise"),
        (b"<html>404</html>", "it starts otherwise"),
        (b"\x80\x05", "it starts otherwise"),
        (b"PK\x03\x04 and nothing else", "File is not a zip file"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, reason):
    path = tmp_path / "frames.npz"
    path.write_bytes(content)
    assert refused(path) == (
        f"must be an npz file, which it is not or no longer ({reason}); download or write it again"
    )


def test_a_renamed_npy_file_is_refused(md17, tmp_path):
    with (tmp_path / "frames.npz").open("wb") as file:
        np.save(file, md17["R"])
    assert refused(tmp_path / "frames.npz") == "must be an npz file of several arrays, got one npy array"


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(md17, write, fraction):
    path = write(md17)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    assert "must be an npz file, which it is not or no longer" in refused(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_of_an_array_are_noticed(md17, tmp_path, compressed):
    path = tmp_path / "frames.npz"
    (np.savez_compressed if compressed else np.savez)(path, **md17)
    content = bytearray(path.read_bytes())
    start = content.index(b"E.npy") + 60  # within the member
    content[start : start + 4] = b"\xff\x00\xff\x00"
    path.write_bytes(content)
    assert re.fullmatch(r"'E' is damaged \(.*\); download the file again", refused(path), re.DOTALL)


@pytest.mark.parametrize(("offset", "value"), [(6, 99), (8, 1), (10, 97)])
def test_changed_bytes_of_the_directory_are_noticed(md17, write, offset, value):
    """The version, a flag of encryption and the method of compression, which zipfile does not know then."""
    path = write(md17)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    assert re.search(r"is damaged|must be an npz file", refused(path))


def test_a_text_in_place_of_an_array_is_refused(md17, write):
    import zipfile

    del md17["E"]
    path = write(md17)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("E", "minus one hundred")
    assert refused(path) == "'E' must hold numbers, got no array"


def test_atoms_at_one_point_are_named_with_their_frame(tmp_path):
    positions = np.random.default_rng(0).normal(size=(5, 3, 3))
    positions[3, 2] = positions[3, 0]
    np.savez(tmp_path / "a.npz", z=[8, 1, 1], R=positions, E=np.zeros(5), F=np.zeros((5, 3, 3)))
    with pytest.raises(
        ValueError, match=r"'R' must not place two atoms at one point, got atoms 0 and 2 of frame 3"
    ):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("given", "units", "energy"),
    [({"e_unit": "eV", "r_unit": "Ang"}, None, 2.0), ({"e_unit": "eV", "r_unit": "Ang"}, "meV", 0.002)],
)
def test_the_units_that_a_file_states_hold_unless_others_are_given(given, units, energy, tmp_path):
    positions = np.eye(3)[None]
    np.savez(tmp_path / "a.npz", z=[8, 1, 1], R=positions, E=[2.0], F=np.ones((1, 3, 3)), **given)
    read = read_npz(tmp_path / "a.npz", units=None if units is None else Units.parse(units))
    assert read.energy[0] == energy


def test_units_that_a_file_states_and_nobody_knows_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", z=[1], R=np.zeros((1, 1, 3)), E=[0.0], e_unit="furlong", r_unit="Ang")
    with pytest.raises(
        ValueError, match=r"says that its units are furlong and Ang, which are not known; set"
    ):
        read_npz(tmp_path / "a.npz")
