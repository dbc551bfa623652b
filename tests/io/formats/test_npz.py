"""npz files are read in eV and Å: MD17's, revised MD17's and one's own; or refused with the reason."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_schnet.datasets import AtomsDataset, read_npz
from pyg_schnet.io.units import Units

SHARED = Path(__file__).parents[3] / "../shared/data/rmd17"


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
    frames = read_npz(write(request.getfixturevalue(layout)))
    # 1 kcal/mol is 0.0433641042418009 eV.
    np.testing.assert_allclose(frames.energy, [-4.33641042418009, -4.29304631993829], rtol=1e-14)
    np.testing.assert_allclose(
        frames.forces[[0, 2]], [[0, 0, 0.0867282084836018], [0.0216820521209005, 0, 0]], rtol=1e-14
    )
    assert frames.positions[[1, 3]].tolist() == [[0.0, 0.0, 1.5], [0.0, -0.9, 0.0]]
    assert frames.numbers.tolist() == [8, 1, 8, 1]
    assert frames.counts.tolist() == [2, 2]
    assert (frames.numbers.dtype, frames.counts.dtype) == (np.uint8, np.int64)
    assert {frames.energy.dtype, frames.forces.dtype, frames.positions.dtype} == {np.dtype("f8")}
    assert frames.units == Units("kcal/mol")


def test_labels_tell_from_where_they_are(revised, write):
    assert read_npz(write(revised), "old_energies").labels == {
        "energy": "'old_energies' (kcal/mol)",
        "forces": "'old_forces' (kcal/mol/Å)",
    }


def test_old_energies_come_with_old_forces(revised, write):
    frames = read_npz(write(revised), "old_energies")
    assert frames.energy[0] == pytest.approx(-8.67282084836018, rel=1e-14)
    assert frames.forces[0, 2] == pytest.approx(-0.0867282084836018, rel=1e-14)


def test_forces_may_be_chosen_against_the_layout(revised, write):
    frames = read_npz(write(revised), "energies", "old_forces")
    assert frames.energy[0] == pytest.approx(-4.33641042418009, rel=1e-14)
    assert frames.forces[0, 2] == pytest.approx(-0.0867282084836018, rel=1e-14)


def test_forces_of_another_energy_are_not_taken_without_a_word(md17, write):
    reason = refused(write({**md17, "ccsd": np.zeros(2)}), "ccsd", units=Units("eV"))
    assert reason.startswith("has forces 'F', which may not belong to the energy 'ccsd'; set `forces_key`")


def test_a_file_of_energies_alone_has_no_forces(md17, write):
    del md17["F"]
    assert read_npz(write(md17)).forces is None


def test_energies_without_partner_have_no_forces(revised, write):
    del revised["old_forces"]
    assert read_npz(write(revised), "old_energies").forces is None


def test_forces_none_reads_no_forces(md17, write):
    assert read_npz(write(md17), forces_key="none").forces is None


def test_hartree_and_bohr_are_converted(md17, write):
    frames = read_npz(write(md17), units=Units.parse("Hartree, Bohr"))
    assert frames.energy[0] == pytest.approx(-2721.1386245988, rel=1e-14)
    assert frames.forces[0, 2] == pytest.approx(102.844134952652, rel=1e-13)
    assert frames.positions[1, 2] == pytest.approx(0.7937658163545, rel=1e-14)


def test_labels_of_any_key_are_read_where_their_units_are_given(md17, write):
    path = write({**md17, "ccsd": np.array([-1.0, -2.0]), "grad": 2 * md17["F"]})
    frames = read_npz(path, "ccsd", "grad", Units("eV"))
    assert frames.energy.tolist() == [-1.0, -2.0]
    assert frames.forces[0, 2] == 4.0


def test_an_energy_of_the_size_of_aspirins_keeps_its_digits(md17, write):
    path = write(replaced(md17, "E", [[-406757.1234567], [-406757.1234568]]))
    energy = AtomsDataset(path=path)[0].energy.item()
    assert energy == pytest.approx(-17638.6583026714311, rel=1e-15)
    assert energy / 0.0433641042418009 == pytest.approx(-406757.1234567, rel=1e-14)


def test_float32_and_integers_are_read(md17, write):
    path = write({**md17, "R": md17["R"].astype("f4"), "E": np.array([[-100], [-99]])})
    assert read_npz(path).positions.dtype == np.float64
    assert read_npz(path).energy[0] == pytest.approx(-4.33641042418009, rel=1e-14)


def test_atomic_numbers_may_be_floats_with_integer_values(md17, write):
    assert read_npz(write(replaced(md17, "z", [8.0, 1.0]))).numbers.tolist() == [8, 1, 8, 1]


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
    frames = read_npz(paths[0])
    # PBE/def2-SVP of C2H6O: -154.9 Hartree; forces of some eV/Å.
    assert frames.energy.mean() == pytest.approx(-154.9 * 27.2114, rel=5e-3)
    assert 0.5 < np.sqrt((frames.forces**2).mean()) < 2.0


@pytest.mark.parametrize(
    ("energy_key", "forces_key", "foreign"), [("ccsd", "none", "ccsd"), (None, "grad", "grad")]
)
def test_labels_of_other_keys_need_units(md17, write, energy_key, forces_key, foreign):
    path = write({**md17, "ccsd": np.zeros(2), "grad": md17["F"]})
    assert refused(path, energy_key, forces_key) == (
        f'the unit of \'{foreign}\' is not known; set `units`, for example "kcal/mol" or "Hartree, Bohr"'
    )


def test_unknown_keys_are_refused_with_those_that_are_there(write):
    path = write({"positions": np.zeros((1, 2, 3)), "charges": np.ones(2)})
    assert refused(path) == (
        "must have atomic numbers, as 'z', 'nuclear_charges', 'atomic_numbers', 'numbers', 'species' or 'Z', "
        "and positions, as 'R', 'coords', 'coordinates', 'positions', 'pos', 'xyz', 'conformations' or "
        "'geometry'; got 'charges', 'positions'"
    )


def test_a_file_without_arrays_is_refused(write):
    assert refused(write({})).endswith("; got no arrays")


@pytest.mark.parametrize(("kind", "keys"), [("energy", ("ccsd",)), ("forces", (None, "grad"))])
def test_a_missing_key_is_named(md17, write, kind, keys):
    assert refused(write(md17), *keys) == (
        f"has no {kind} '{keys[-1]}', but 'E', 'F', 'R', 'theory', 'z'; choose another with `{kind}_key`"
    )


def test_a_file_without_energies_is_refused(md17, write):
    del md17["E"]
    assert refused(write(md17)) == (
        "has no energy that is recognized, but 'F', 'R', 'theory', 'z'; name it with `energy_key` "
        "('none' reads no energies)"
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("R", np.zeros((2, 2)), "'R' must have shape (frames, 2, 3), got (2, 2)"),
        ("R", np.zeros((2, 3, 3)), "'R' must have shape (2, 2, 3), got (2, 3, 3)"),
        ("E", np.zeros(3), "'E' must have shape (2,), got (3,)"),
        ("E", np.zeros((1, 2)), "'E' must have shape (2,), got (1, 2)"),
        ("F", np.zeros((2, 6)), "'F' must have shape (2, 2, 3), got (2, 6)"),
        ("F", np.zeros((1, 2, 3)), "'F' must have shape (2, 2, 3), got (1, 2, 3)"),
        ("z", [[[8, 1]]], "'z' must have shape (atoms,) or (frames, atoms), got (1, 1, 2)"),
        ("z", [[8, 1]], "'R' must have shape (1, 2, 3), got (2, 2, 3)"),
        ("z", [0, 1], "'z' must hold atomic numbers 1 to 99, got 0"),
        ("z", [-8, 1], "'z' must hold atomic numbers 1 to 99, got -8"),
        ("z", [8, 119], "'z' must hold atomic numbers 1 to 99, got 119"),
        ("z", [8, 257], "'z' must hold atomic numbers 1 to 99, got 257"),  # 1 in eight bits
        ("z", [8, 6.5], "'z' must hold atomic numbers 1 to 99, got 6.5"),
        ("z", [8, np.nan], "'z' must hold atomic numbers 1 to 99, got nan"),
        ("z", ["O", "Q"], "'z' must hold symbols of elements, got 'Q'"),
        ("E", [True, False], "'E' must hold numbers, got bool"),
        ("E", ["1", "2"], "'E' must hold numbers, got <U1"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_with_key_and_reason(md17, write, key, value, reason):
    assert refused(write(replaced(md17, key, value))) == reason


def test_no_frames_are_refused(write):
    path = write({"z": [8, 1], "R": np.zeros((0, 2, 3)), "E": np.zeros(0)})
    assert refused(path) == "must hold at least one structure, got none"


def test_frames_without_atoms_are_refused(write):
    path = write({"z": np.zeros(0), "R": np.zeros((1, 0, 3)), "E": np.zeros(1)})
    assert refused(path) == "'z' must hold atomic numbers 1 to 99, got none"


@pytest.mark.parametrize(
    ("key", "what"),
    [("R", "positions"), ("E", "energy ('E' (kcal/mol))"), ("F", "forces ('F' (kcal/mol/Å))")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_that_is_not_finite_is_named(md17, write, key, what, value):
    array = md17[key].copy()
    array[1].flat[0] = value
    assert refused(write(replaced(md17, key, array))) == (
        f"must have finite {what}, got NaN or infinity in frame 1; remove the frame"
    )


@pytest.mark.parametrize("key", ["z", "R", "E", "F"])
def test_pickled_objects_are_refused_and_not_executed(md17, tmp_path, key):
    trap = tmp_path / "executed"
    array = np.empty(1, dtype=object)
    array[0] = Creates(trap)
    np.savez(tmp_path / "trap.npz", allow_pickle=True, **{**md17, key: array})
    assert refused(tmp_path / "trap.npz") == (
        f"'{key}' holds pickled objects, which are never loaded because they may run code; "
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
        "must be an npz file, got another or a damaged file (it starts otherwise); download or write it again"
    )
    assert not trap.exists()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.npz.*no such.*npz.*structures"):
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
        f"must be an npz file, got another or a damaged file ({reason}); download or write it again"
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
    assert "must be an npz file, got another or a damaged file" in refused(path)


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
    assert refused(path, "E") == "'E' must hold numbers, got no array"


def test_atoms_at_one_point_are_named_with_their_frame(tmp_path):
    positions = np.random.default_rng(0).normal(size=(5, 3, 3))
    positions[3, 2] = positions[3, 0]
    np.savez(tmp_path / "a.npz", z=[8, 1, 1], R=positions, E=np.zeros(5), F=np.zeros((5, 3, 3)))
    with pytest.raises(ValueError, match=r"atoms.*point.*atoms.*0.*2.*frame.*3"):
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
    with pytest.raises(ValueError, match=r"units.*`units`"):
        read_npz(tmp_path / "a.npz")


def own(**arrays):
    """Two frames of HCl under names of somebody's own, in eV."""
    positions = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.3]], [[0.0, 0.0, 0.0], [0.0, 1.2, 0.0]]])
    return {"numbers": np.array([17, 1]), "positions": positions, "energy": np.array([1.0, 2.0]), **arrays}


@pytest.mark.parametrize("numbers", ["z", "nuclear_charges", "atomic_numbers", "numbers", "species", "Z"])
@pytest.mark.parametrize("positions", ["R", "coords", "coordinates", "positions", "pos", "xyz"])
def test_structures_are_found_under_usual_names(write, numbers, positions):
    arrays = own()
    arrays[numbers] = arrays.pop("numbers")
    arrays[positions] = arrays.pop("positions")
    frames = read_npz(write(arrays), units=Units("eV"))
    assert frames.numbers.tolist() == [17, 1, 17, 1]
    assert frames.positions[3].tolist() == [0.0, 1.2, 0.0]


def test_a_file_of_ones_own_needs_units(write):
    assert refused(write(own())) == (
        'the unit of \'energy\' is not known; set `units`, for example "kcal/mol" or "Hartree, Bohr"'
    )


def test_an_energy_of_another_name_needs_its_key(write):
    path = write(own(energy_of_reaction=np.ones(2)))
    assert read_npz(path, "energy_of_reaction", units=Units("eV")).energy.tolist() == [1.0, 1.0]
    arrays = own()
    arrays["b3lyp"] = arrays.pop("energy")
    assert refused(write(arrays, "b.npz"), units=Units("eV")) == (
        "has no energy that is recognized, but 'b3lyp', 'numbers', 'positions'; name it with `energy_key` "
        "('none' reads no energies)"
    )


def test_several_energies_are_a_question(write):
    path = write(own(total_energy=np.zeros(2)))
    assert refused(path, units=Units("eV")) == (
        "has several that could be energy, 'energy', 'total_energy'; choose with `energy_key`"
    )
    assert read_npz(path, "total_energy", units=Units("eV")).energy.tolist() == [0.0, 0.0]


def test_a_gradient_is_minus_the_forces(write):
    forces = np.arange(12.0).reshape(2, 2, 3)
    frames = read_npz(write(own(my_gradient=forces)), forces_key="my_gradient", units=Units("eV"))
    assert np.array_equal(frames.forces, -forces.reshape(-1, 3))
    assert frames.labels["forces"] == "'my_gradient' (eV/Å, sign changed)"


@pytest.mark.parametrize("name", ["gradient", "Gradients"])
def test_a_gradient_is_recognized_as_the_forces_of_its_energy(name, write):
    forces = np.arange(12.0).reshape(2, 2, 3)
    frames = read_npz(write(own(**{name: forces})), units=Units("eV"))
    assert np.array_equal(frames.forces, -forces.reshape(-1, 3))


def test_forces_are_read_where_there_is_a_gradient_too(write):
    forces = np.arange(12.0).reshape(2, 2, 3)
    frames = read_npz(write(own(gradient=-forces, force=forces)), units=Units("eV"))
    assert frames.labels["forces"] == "'force' (eV/Å)"


def test_symbols_are_atomic_numbers_too(write):
    frames = read_npz(write(own(numbers=np.array(["Cl", "H"]))), units=Units("eV"))
    assert frames.numbers.tolist() == [17, 1, 17, 1]


@pytest.mark.parametrize("filling", [0, -1])
def test_structures_of_several_sizes_may_be_filled_up(write, filling):
    """HCl and one H: the third row of each array means nothing, not even where it is NaN."""
    numbers = np.array([[17, 1], [1, filling]])
    positions = own()["positions"]
    positions[1, 1] = np.nan
    forces = np.arange(12.0).reshape(2, 2, 3)
    frames = read_npz(write(own(numbers=numbers, positions=positions, forces=forces)), units=Units("eV"))
    assert frames.counts.tolist() == [2, 1]
    assert frames.numbers.tolist() == [17, 1, 1]
    assert frames.positions[2].tolist() == [0.0, 0.0, 0.0]
    assert frames.forces.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("sizes", [{"n_atoms": [2, 1]}, {"ptr": [0, 2, 3]}])
def test_structures_of_several_sizes_may_lie_behind_each_other(write, sizes):
    arrays = own(numbers=[17, 1, 1], positions=np.eye(3), forces=2 * np.eye(3), **sizes)
    frames = read_npz(write(arrays), units=Units("eV"))
    assert frames.counts.tolist() == [2, 1]
    assert frames.energy.tolist() == [1.0, 2.0]
    assert np.array_equal(frames.forces, 2 * np.eye(3))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"n_atoms": [2, 2]}, "'positions' must have shape (4, 3), got (3, 3)"),
        ({"n_atoms": [2.0, 1.0]}, "'n_atoms' must hold numbers of atoms, got float64 of shape (2,)"),
        ({"ptr": [0, 3, 2]}, "'ptr' must hold ascending offsets, got int64 of shape (3,)"),
        ({"n_atoms": [3, 0]}, "must hold at least one atom, got none in frame 1; remove the frame"),
    ],
)
def test_wrong_sizes_are_refused(write, sizes, reason):
    path = write(own(numbers=[17, 1, 1], positions=np.eye(3), **sizes))
    assert refused(path, units=Units("eV")) == reason


@pytest.mark.parametrize("each", [False, True])
def test_a_cell_makes_structures_periodic(write, each):
    cell = np.diag([4.0, 5.0, 6.0])
    frames = read_npz(write(own(cell=np.stack([cell] * 2) if each else cell)), units=Units("eV", "nm"))
    assert np.array_equal(frames.cell, np.stack([10 * cell] * 2))  # nm
    assert frames.pbc.all()


def test_open_directions_of_a_cell_are_kept(write):
    path = write(own(cell=np.diag([4.0, 5.0, 0.0]), pbc=np.array([True, True, False])))
    assert read_npz(path, units=Units("eV")).pbc.tolist() == [[True, True, False]] * 2


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (
            {"lattice": np.eye(3)},
            "has 'lattice', whose lattice vectors may be rows or columns; save it as 'cell', in rows",
        ),
        ({"pbc": np.array([True] * 3)}, "must have lattice vectors, as 'cell', where 'pbc' is true"),
        (
            {"cell": np.diag([4.0, 5.0, 0.0]), "pbc": np.array([True] * 3)},
            "must have a lattice vector for each periodic direction, got [[4.0, 0.0, 0.0], [0.0, 5.0, 0.0], "
            "[0.0, 0.0, 0.0]] in frame 0; remove the frame",
        ),
        ({"cell": np.eye(2)}, "'cell' must have shape (2, 3, 3), got (2, 2)"),
    ],
)
def test_unclear_lattices_are_refused(write, arrays, reason):
    assert refused(write(own(**arrays)), units=Units("eV")) == reason


def test_stresses_and_virials_become_stress(write):
    voigt = np.arange(12.0).reshape(2, 6)
    path = write(own(stress=voigt, cell=2 * np.eye(3), virial=np.ones((2, 3, 3))))
    stress = read_npz(path, units=Units("eV")).stress
    assert stress[0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]  # xx yy zz yz xz xy
    virial = read_npz(path, units=Units("eV"), stress_key="virial").stress
    np.testing.assert_allclose(virial, -1 / 8, rtol=1e-14)  # minus virial by volume
    assert read_npz(path, units=Units("eV"), stress_key="none").stress is None


def test_stresses_may_have_a_dimension_of_one(write):
    stress = np.arange(18.0).reshape(2, 1, 3, 3)
    assert read_npz(write(own(stress=stress)), units=Units("eV")).stress.tolist() == stress[:, 0].tolist()


def test_stresses_have_the_units_of_the_file(write):
    path = write(own(stress=np.ones((2, 3, 3)), virial=np.ones((2, 3, 3)), cell=2 * np.eye(3)))
    assert read_npz(path, units=Units("eV", "nm")).stress[0, 0, 0] == pytest.approx(1e-3, rel=1e-15)
    virial = read_npz(path, units=Units("Hartree", "nm"), stress_key="virial").stress
    assert virial[1, 2, 2] == pytest.approx(-27.211386245988 / 8e3, rel=1e-14)


def test_two_arrays_of_one_name_are_refused(md17, write):
    path = write(md17)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("E.npy", file.read("E.npy"))
    assert "two named 'E'" in refused(path)


def test_an_array_that_unpacks_to_far_more_than_its_size_is_refused(md17, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{**md17, "E": np.zeros(2**23 + 1)})  # 64 MiB and 8 bytes
    assert "'E' must unpack to at most" in refused(tmp_path / "a.npz")


def test_a_virial_without_cell_is_refused(write):
    assert refused(write(own(virial=np.ones((2, 3, 3)))), units=Units("eV")) == (
        "'virial' is a virial, which needs a 'cell' in each frame to become a stress; set `stress_key` "
        "to 'none'"
    )


def test_arrays_of_the_other_byte_order_are_read(md17, write):
    swapped = {key: md17[key].astype(md17[key].dtype.newbyteorder(">")) for key in "zREF"}
    for name in ("energy", "positions", "forces"):
        assert np.array_equal(
            getattr(read_npz(write(swapped, "b.npz")), name), getattr(read_npz(write(md17)), name)
        )


def test_a_text_of_units_in_a_pickle_is_refused(md17, tmp_path):
    np.savez(tmp_path / "a.npz", allow_pickle=True, **md17, e_unit=np.array({}, dtype=object))
    assert "'e_unit' holds pickled objects" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_alike_however_they_are_stored(revised, tmp_path, save, order):
    rng = np.random.default_rng(0)
    arrays = {**revised, "coords": np.array(rng.normal(size=(2, 2, 3)), order=order)}
    save(tmp_path / "a.npz", **arrays)
    frames = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(frames.positions, arrays["coords"].reshape(-1, 3))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("old", "new"), [(b"'descr'", b"('desc'"), (b"NUMPY", b"NAMPY"), (b"{", b"}")])
def test_a_damaged_head_of_an_array_is_refused(md17, tmp_path, save, old, new):
    """NumPy raises an error of Python's tokenizer where a bracket is open."""
    save(tmp_path / "a.npz", **md17)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name, content in members.items():
            file.writestr(name, content.replace(old, new, 1) if name == "F.npy" else content)
    assert refused(tmp_path / "a.npz").startswith("'F' ")


def test_a_member_beyond_the_end_of_the_file_is_refused(md17, write):
    path = write(md17)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 42 : directory + 46] = (len(content) - 27).to_bytes(4, "little")  # where it begins
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_a_changed_byte_is_noticed_where_nothing_is_compressed(md17, write):
    path = write(md17)
    content = bytearray(path.read_bytes())
    content[content.index(md17["F"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert "'F' is damaged (Bad CRC-32" in refused(path)


def test_a_data_set_in_memory_does_not_change_with_its_file(md17, write):
    path = write(md17)
    dataset = AtomsDataset(path=path, dtype=torch.float64)
    before = dataset[1].pos.clone()
    path.write_bytes(b"")
    assert torch.equal(dataset._data.pos[2:], before)


def test_views_of_a_file_are_copied_where_it_may_be_replaced(md17, write):
    path = write(md17)
    frames = read_npz(path)
    assert isinstance(frames.positions, np.memmap)  # in Å as they are
    own = frames.loaded()
    path.unlink()
    assert type(own.positions) is np.ndarray
    np.testing.assert_array_equal(own.positions, md17["R"].reshape(-1, 3))
    assert own.forces is frames.forces  # converted, so in memory already
