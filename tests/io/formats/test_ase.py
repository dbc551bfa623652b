"""What ASE reads becomes frames with the labels that are meant, or is refused with the reason."""

import gzip
import pickle
import re
import sqlite3

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write as ase_write

from pyg_schnet.io.formats import ase as ase_files
from pyg_schnet.io.formats import ase_db, records
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.units import Units

# Two frames of OH, in eV and Å.
PROPERTIES = "Properties=species:S:1:pos:R:3"
FRAME = f"""2
{PROPERTIES}:forces:R:3 energy=-1.5
O 0.0 0.0 0.5 0.0 0.0 2.0
H 0.0 0.0 1.5 0.0 0.0 -2.0
"""
OTHER = f"""2
{PROPERTIES}:forces:R:3 energy=-1.25
O 0.1 0.0 0.0 0.5 0.0 0.0
H 0.0 -0.9 0.0 -0.5 0.0 0.0
"""


def read(path, energy=None, forces=None, stress=None, units=None):
    return concatenate(list(ase_files.read(path, Keys(energy, forces, stress), units)))


def refused(path, *args, **kwargs):
    """Return the reason; all are ValueErrors that begin with the path."""
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read(path, *args, **kwargs)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def text(tmp_path):
    """Write a text and return its path."""

    def to_file(content, name="frames.xyz"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return to_file


@pytest.fixture
def database(tmp_path):
    """Write rows of structure, key-value pairs and data to a database and return its path."""

    def to_file(rows, name="frames.db"):
        with ase.db.connect(tmp_path / name) as file:
            for atoms, pairs, data in rows:
                file.write(atoms, key_value_pairs=pairs, data=data)
        return tmp_path / name

    return to_file


def exact(frames, structures):
    """Compare with the structures, to the last bit."""
    results = [atoms.calc.results for atoms in structures]
    wanted = {
        "numbers": np.concatenate([atoms.numbers for atoms in structures]),
        "positions": np.concatenate([atoms.positions for atoms in structures]),
        "energy": np.array([result["energy"] for result in results]),
        "forces": np.concatenate([result["forces"] for result in results]),
        "stress": np.array([atoms.get_stress(voigt=False) for atoms in structures]),
        "cell": np.array([atoms.cell.array for atoms in structures]),
        "pbc": np.array([atoms.pbc for atoms in structures]),
    }
    return {name for name, value in wanted.items() if not np.array_equal(getattr(frames, name), value)}


def test_a_trajectory_keeps_each_bit(labelled, tmp_path):
    structures = labelled(periodic=[1, 3], stress=True)
    ase_write(tmp_path / "frames.traj", structures)
    frames = read(tmp_path / "frames.traj")
    assert exact(frames, structures) == set()
    assert frames.counts.tolist() == [2, 3, 4, 2, 3]


@pytest.mark.parametrize("name", ["frames.db", "frames.json"])
def test_a_database_keeps_each_bit(labelled, database, name):
    structures = labelled(periodic=[1, 3], stress=True)
    assert exact(read(database([(atoms, {}, {}) for atoms in structures], name)), structures) == set()


def test_extended_xyz_keeps_the_digits_that_ase_writes(labelled, tmp_path):
    """Positions and forces with eight decimals, all else as it is."""
    structures = labelled(periodic=[1, 3], stress=True)
    ase_write(tmp_path / "frames.extxyz", structures)
    frames = read(tmp_path / "frames.extxyz")
    assert exact(frames, structures) == {"positions", "forces"}
    for name, value in (("positions", "positions"), ("forces", "forces")):
        wanted = [atoms.positions if value == "positions" else atoms.get_forces() for atoms in structures]
        np.testing.assert_allclose(getattr(frames, name), np.concatenate(wanted), atol=5.001e-9, rtol=0)


def test_extended_xyz_keeps_each_digit_that_is_there(labelled, text):
    structures = labelled(count=3, periodic=[0, 1, 2], stress=True)
    content = ""
    for atoms in structures:
        lattice, stress = (digits(array) for array in (atoms.cell.array, atoms.get_stress(voigt=False)))
        labels = f'stress="{stress}" energy={atoms.calc.results["energy"]!r}'
        content += f'{len(atoms)}\n{PROPERTIES}:forces:R:3 Lattice="{lattice}" pbc="T T F" {labels}\n'
        for symbol, row in zip(atoms.symbols, np.hstack([atoms.positions, atoms.get_forces()]), strict=True):
            content += f"{symbol} {digits(row)}\n"
    assert exact(read(text(content)), structures) == set()


def digits(array):
    return " ".join(map(repr, array.ravel().tolist()))


def test_labels_that_ase_moves_into_a_calculator_are_found(text):
    """ASE takes ``energy`` and ``forces`` of extended xyz out of ``info`` and ``arrays``."""
    frames = read(text(FRAME + OTHER))
    assert frames.energy.tolist() == [-1.5, -1.25]
    assert frames.forces[[0, 2]].tolist() == [[0.0, 0.0, 2.0], [0.5, 0.0, 0.0]]
    assert frames.labels == {"energy": "'energy' (calculator, eV)", "forces": "'forces' (calculator, eV/Å)"}
    assert frames.units == Units("eV")
    assert (frames.cell, frames.pbc, frames.stress) == (None, None, None)


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("total_energy", "atomic_forces"),
        ("Energy", "force"),
        ("TotEnergy", "F"),
        ("dft_total_energy", "DFT_forces"),
        ("E", "F"),
        ("U0", "Forces"),
    ],
)
def test_labels_are_found_under_usual_names(text, energy, forces):
    frames = read(text(FRAME.replace("energy=", f"{energy}=").replace("forces", forces)))
    assert frames.energy.tolist() == [-1.5]
    assert frames.forces[0].tolist() == [0.0, 0.0, 2.0]
    assert frames.labels["energy"] == f"'{energy}' (info, eV)"


def test_the_calculators_energy_is_preferred_and_named(text):
    frames = read(text(FRAME.replace("energy=-1.5", "energy=-1.5 REF_energy=-1.5")))
    assert frames.energy.tolist() == [-1.5]
    assert frames.labels["energy"] == "'energy' (calculator, eV)"


def test_a_calculators_energy_beside_another_one_is_a_question(text):
    """A file that was evaluated by one method and holds the labels of another."""
    path = text(FRAME.replace("energy=-1.5", "energy=-1.5 REF_energy=-9.0"))
    assert refused(path) == (
        "frame 0: has several that could be energy, 'energy' (calculator), 'REF_energy' (info); choose with "
        "`energy_key`"
    )
    assert read(path, "energy").energy.tolist() == [-1.5]


def test_the_key_that_is_given_is_preferred_to_all(text):
    path = text(FRAME.replace("energy=-1.5", "energy=-1.5 REF_energy=-9.0"))
    assert read(path, "REF_energy", "none").energy.tolist() == [-9.0]
    assert read(path, "REF_energy", "forces").forces is not None


def test_forces_of_another_level_of_theory_are_a_question(text):
    path = text(FRAME.replace("energy=-1.5", "energy=-1.5 REF_energy=-9.0"))
    reason = refused(path, "REF_energy")
    assert reason.startswith("frame 0: has forces 'forces' (calculator)")
    assert "energy 'REF_energy' (info); set `forces_key` to 'forces', or to 'none'" in reason


def test_forces_of_the_same_level_of_theory_are_taken(text):
    comment = f"{PROPERTIES}:forces:R:3:REF_forces:R:3 energy=-1.5 REF_energy=-9.0"
    path = text(f"1\n{comment}\nO 0 0 0 1.0 1.0 1.0 2.0 2.0 2.0\n")
    assert read(path, "energy").forces.tolist() == [[1.0, 1.0, 1.0]]
    assert read(path, "REF_energy").forces.tolist() == [[2.0, 2.0, 2.0]]


def test_different_energies_without_a_calculators_are_a_question(text):
    path = text(FRAME.replace("energy=-1.5", "total_energy=-1.5 REF_energy=-9.0"))
    assert refused(path) == (
        "frame 0: has several that could be energy, 'total_energy' (info), 'REF_energy' (info); choose with "
        "`energy_key`"
    )


def test_equal_energies_under_two_names_are_none(text):
    path = text(FRAME.replace("energy=-1.5", "total_energy=-1.5 E=-1.5"))
    assert read(path).labels["energy"] == "'total_energy' (info, eV)"


@pytest.mark.parametrize(
    "other", ["free_energy=-1.5", "formation_energy=-1.5", "energy_per_atom=-1", "step=3"]
)
def test_other_numbers_are_no_energy(text, other):
    reason = refused(text(FRAME.replace("energy=-1.5", other)))
    assert reason.startswith("frame 0: has no energy that is recognized, but calculator: ")
    assert f"'{other.split('=')[0]}'" in reason
    assert reason.endswith("; name it with `energy_key` ('none' reads no energies)")


def test_a_free_energy_is_read_if_it_is_asked_for(text):
    path = text(FRAME.replace("energy=-1.5", "free_energy=-1.5"))
    assert read(path, "free_energy", "forces").energy.tolist() == [-1.5]


def test_plain_xyz_has_no_energy(text):
    assert refused(text("1\nwater 5\nO 0 0 0\n")) == (
        "frame 0: has no energy that is recognized, but info: '5', 'water'; name it with `energy_key` "
        "('none' reads no energies)"
    )


@pytest.mark.parametrize("kind", ["energy", "forces", "stress"])
def test_a_key_that_is_not_there_is_named(text, kind):
    assert refused(text(FRAME), **{kind: "nothing"}) == (
        f"frame 0: has no {kind} 'nothing', but calculator: 'energy', 'forces'; choose another with "
        f"`{kind}_key`"
    )


def test_labels_of_a_database_may_be_pairs_and_data(database):
    """As ISO17 has them."""
    rows = [
        (
            Atoms("OH", [[0, 0, 0], [0, 0, 1]]),
            {"total_energy": -3.5 - number},
            {"atomic_forces": [[1, 2, 3], [4, 5, 6]]},
        )
        for number in range(2)
    ]
    frames = read(database(rows))
    assert frames.energy.tolist() == [-3.5, -4.5]
    assert frames.forces.tolist() == [[1, 2, 3], [4, 5, 6]] * 2
    assert frames.labels == {
        "energy": "'total_energy' (key_value_pairs, eV)",
        "forces": "'atomic_forces' (data, eV/Å)",
    }


SCHNETPACK = {
    "_distance_unit": "Ang",
    "_property_unit_dict": {
        "energy": "Ha", "forces": "Ha/Bohr", "gap": "Ha", "mu": "Debye", "alpha": "a0 a0 a0"
    },
}  # fmt: skip


@pytest.fixture
def schnetpack(database):
    """Write a database as SchNetPack does: properties as arrays in ``data``, units in the metadata."""

    def to_file(metadata=None, **changes):
        atoms = Atoms("OH", positions=[[0.0, 0.0, 0.5], [0.0, 0.0, 1.5]])
        data = {
            "energy": np.array([-1.5]), "forces": np.array([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]]),
            "gap": np.array([0.25]), "mu": np.array([1.8]), "alpha": np.array([6.0]),
        } | changes  # fmt: skip
        path = database([(atoms, {}, data)])
        with ase.db.connect(path) as opened:
            opened.metadata = SCHNETPACK if metadata is None else metadata
        return path

    return to_file


HARTREE, BOHR = 27.211386245988, 0.529177210903


def test_a_database_of_schnetpack_is_read_in_the_units_that_it_states(schnetpack):
    frames = read(schnetpack())
    assert frames.units == Units("Hartree", "Å", "Hartree/Bohr")
    assert frames.energy[0] == pytest.approx(-1.5 * HARTREE, rel=1e-14)
    assert frames.positions[1].tolist() == [0.0, 0.0, 1.5]
    assert frames.forces[0, 2] == pytest.approx(2 * HARTREE / BOHR, rel=1e-14)
    assert frames.labels["forces"] == "'forces' (data, Hartree/Bohr)"


def test_each_property_of_schnetpack_has_its_own_unit(schnetpack):
    path = schnetpack(SCHNETPACK | {"_distance_unit": "Bohr"})
    gap = read(path, "gap", "none")
    assert gap.energy[0] == pytest.approx(0.25 * HARTREE, rel=1e-14)
    assert gap.positions[1, 2] == pytest.approx(1.5 * BOHR, rel=1e-14)
    assert read(path, "mu", "none").energy.tolist() == [1.8]
    assert read(path, "mu", "none").labels == {"energy": "'mu' (data, D)"}
    assert read(path, "alpha", "none").energy[0] == pytest.approx(6 * BOHR**3, rel=1e-14)


def test_units_of_schnetpack_may_be_numbers(schnetpack):
    units = {"energy": 0.0433641153087705, "forces": 1.0}
    frames = read(schnetpack({"_distance_unit": 1.0, "_property_unit_dict": units}))
    assert frames.units == Units("kcal/mol", "Å", "eV/Å")


def test_stress_of_schnetpack_has_its_own_unit(schnetpack):
    units = {"energy": "Ha", "forces": "eV/Ang", "stress": "eV/Ang/Ang/Ang"}
    stress = read(schnetpack({"_property_unit_dict": units}, stress=np.eye(3))).stress
    assert stress[0].tolist() == np.eye(3).tolist()


def test_units_that_are_given_hold_before_those_of_the_database(schnetpack):
    frames = read(schnetpack(), units=Units("eV", "Å", "Hartree/Bohr"))
    assert frames.energy.tolist() == [-1.5]
    assert frames.forces[0, 2] == pytest.approx(2 * HARTREE / BOHR, rel=1e-14)


@pytest.mark.parametrize("metadata", [{}, {"_property_unit_dict": 7}, {"other": "Ha"}])
def test_a_database_that_states_no_units_is_in_ev(schnetpack, metadata):
    frames = read(schnetpack(metadata))
    assert (frames.energy.tolist(), frames.units) == ([-1.5], Units("eV"))


def test_an_unknown_unit_of_a_database_is_refused(schnetpack):
    reason = refused(schnetpack({"_property_unit_dict": {"energy": "furlong"}}))
    assert "furlong" in reason
    assert "set `units`" in reason


INPUT_DATA = """begin
comment two atoms
lattice 5.0 0.0 0.0
lattice 0.0 5.0 0.0
lattice 0.0 0.0 5.0
atom 0.0 0.0 0.5 O 0.0 0.0 0.0 0.0 2.0
atom 0.0 0.0 1.5 H 0.0 0.0 0.0 0.0 -2.0
energy -1.5
charge 0.0
end
"""


def test_input_data_of_n2p2_is_in_hartree_and_bohr_unless_units_are_given(text):
    path = text(INPUT_DATA, "input.data")
    frames = read(path)
    assert frames.units == Units("Hartree", "Bohr")
    assert frames.energy[0] == pytest.approx(-1.5 * HARTREE, rel=1e-14)
    assert frames.positions[1, 2] == pytest.approx(1.5 * BOHR, rel=1e-14)
    frames = read(path, units=Units("eV"))
    assert frames.energy[0] == pytest.approx(-1.5, rel=1e-14)
    assert frames.positions[1, 2] == pytest.approx(1.5, rel=1e-14)
    assert frames.forces[0, 2] == pytest.approx(2.0, rel=1e-14)
    assert frames.cell[0, 0, 0] == pytest.approx(5.0, rel=1e-14)


def test_structures_with_a_charge_are_counted(text):
    charged = FRAME.replace("energy=", "charge=-1 energy=") + OTHER.replace(
        "energy=", "total_charge=2.0 energy="
    )
    neutral = FRAME.replace("energy=", "charge=0 energy=") + OTHER
    assert read(text(charged + neutral)).charged == 2
    assert read(text(neutral)).charged == 0


def test_energies_of_atoms_are_no_energy(text):
    """ASE counts a column ``energies`` among the calculator's results."""
    path = text(FRAME.replace(":forces:R:3", ":energies:R:1:forces:R:2").replace("energy=-1.5", ""))
    assert refused(path).startswith("frame 0: has no energy that is recognized, but calculator: 'energies', ")


def test_a_gradient_is_minus_the_forces(text):
    path = text(FRAME.replace("forces", "my_gradient"))
    assert read(path, forces="my_gradient").forces[0].tolist() == [0.0, 0.0, -2.0]


def test_frames_are_counted_through_all_parts(text, monkeypatch):
    monkeypatch.setattr(records, "_STRUCTURES_AT_ONCE", 2)
    content = FRAME + OTHER + FRAME + OTHER.replace("-0.9", "nan")
    assert refused(text(content)) == (
        "must have finite positions, got NaN or infinity in frame 3; remove the frame"
    )


def test_arrays_of_another_shape_in_a_json_database_are_refused(labelled, database):
    path = database([(labelled()[0], {}, {})], "a.json")
    path.write_text(
        path.read_text().replace(
            '"positions": {"__ndarray__": [[2, 3]', '"positions": {"__ndarray__": [[3, 2]'
        )
    )
    assert (
        refused(path) == "positions must be numbers of shape (2, 3), got float64 of shape (3, 2) in frame 0"
    )


def test_rows_of_a_database_are_read_in_parts(labelled, database, monkeypatch):
    monkeypatch.setattr(ase_db, "_ROWS_AT_ONCE", 2)
    structures = labelled(count=7)
    path = database([(atoms, {}, {}) for atoms in structures])
    with ase.db.connect(path) as file:
        file.delete([3, 4])
    del structures[2:4]
    assert read(path).energy.tolist() == [atoms.calc.results["energy"] for atoms in structures]


def test_forces_are_those_without_constraints(tmp_path):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], constraint=FixAtoms([0]))
    forces = np.array([[1.0, 2, 3], [4, 5, 6]])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    for name in ("a.traj", "a.extxyz", "a.db"):
        ase_write(tmp_path / name, atoms)
        assert np.array_equal(read(tmp_path / name).forces, forces)


def with_lattice(more):
    lattice = 'Lattice="2.0 0.0 0.0 0.0 2.0 0.0 0.0 0.0 2.0"'
    return FRAME.replace("energy=-1.5", f"energy=-1.5 {lattice} {more}")


def test_stress_is_ases(text):
    path = text(with_lattice('stress="1 6 5 6 2 4 5 4 3"'))
    assert read(path).stress.tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]
    assert read(path, stress="none").stress is None


def test_stress_of_six_numbers_has_ases_order(text):
    path = text(with_lattice('REF_stress="1 2 3 4 5 6"'))
    assert read(path, stress="REF_stress").stress.tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]


def test_stress_of_a_batch_of_one_structure_is_read(database):
    """SchNetPack stores it as (1, 3, 3)."""
    stress = np.array([[[0.5, 0.25, 0.0], [0.25, -1.0, 0.125], [0.0, 0.125, 2.0]]])
    atoms = Atoms("H", cell=[5, 5, 5], pbc=True)
    path = database([(atoms, {}, {"energy": np.array([-1.0]), "stress": stress})])
    assert read(path).stress.tolist() == stress.tolist()


@pytest.mark.parametrize("name", ["virial", "virials"])
def test_a_virial_is_minus_stress_times_volume(text, name):
    frames = read(text(with_lattice(f'{name}="8 0 0 0 16 0 0 0 24"')))  # eV; the volume is 8 Å³
    np.testing.assert_allclose(frames.stress[0], np.diag([-1.0, -2.0, -3.0]), rtol=1e-14)
    assert frames.labels["stress"] == f"'{name}' (info, eV, sign changed)"


def test_stress_is_preferred_to_a_virial(text):
    path = text(with_lattice('stress="1 0 0 0 1 0 0 0 1" virial="8 0 0 0 8 0 0 0 8"'))
    assert read(path).stress[0, 0, 0] == 1.0
    assert read(path, stress="virial").stress[0, 0, 0] == pytest.approx(-1.0, rel=1e-14)


def test_stress_of_another_level_of_theory_is_left_out(text):
    path = text(with_lattice('REF_virial="8 0 0 0 8 0 0 0 8"'))
    assert read(path).stress is None


def test_a_virial_without_a_cell_is_refused(text):
    path = text(FRAME.replace("energy=", 'virial="8 0 0 0 8 0 0 0 8" energy='))
    reason = refused(path)
    assert reason.startswith(
        "must have a cell to convert the virial 'virial' (info) to a stress, got none in frame 0"
    )
    assert "`stress_key`" in reason


def test_all_frames_have_a_lattice_if_one_is_periodic(text):
    frames = read(text(FRAME + with_lattice("") + OTHER))
    assert frames.pbc.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert frames.cell[:, 0, 0].tolist() == [0.0, 2.0, 0.0]


def test_units_may_be_others(text):
    frames = read(text(with_lattice('stress="1 0 0 0 1 0 0 0 1"')), units=Units("kcal/mol", "Bohr"))
    kcal, bohr = 0.0433641042418009, 0.529177210903
    assert frames.energy[0] == pytest.approx(-1.5 * kcal, rel=1e-14)
    assert frames.positions[1, 2] == pytest.approx(1.5 * bohr, rel=1e-14)
    assert frames.forces[0, 2] == pytest.approx(2.0 * kcal / bohr, rel=1e-14)
    assert frames.cell[0, 0, 0] == pytest.approx(2.0 * bohr, rel=1e-14)
    assert frames.stress[0, 0, 0] == pytest.approx(kcal / bohr**3, rel=1e-14)
    assert frames.labels["stress"] == "'stress' (calculator, kcal/mol/Bohr^3)"


ENERGY_ALONE = FRAME.replace(":forces:R:3", "")
FORCES_ALONE = FRAME.replace("energy=-1.5", "")


@pytest.mark.parametrize(
    ("content", "keys", "reason"),
    [
        (
            FRAME + FORCES_ALONE + OTHER + FORCES_ALONE,
            {},
            "has energy 'energy' (calculator) in some structures only; 2 of 4 have none, the first of them "
            "is frame 1; "
            "remove them, or choose another `energy_key`",
        ),
        (
            FRAME + OTHER + ENERGY_ALONE,
            {},
            "has forces 'forces' (calculator) in some structures only; 1 of 3 have none, the first of them "
            "is frame 2; "
            "remove them, or set `forces_key` to 'none'",
        ),
        (
            ENERGY_ALONE + ENERGY_ALONE + OTHER,
            {},
            "has forces in some structures only; 2 of 3 have none, the first of them is frame 0; remove "
            "them, or set "
            "`forces_key` to 'none'",
        ),
        (
            FRAME + with_lattice('stress="1 0 0 0 1 0 0 0 1"'),
            {},
            "has stress in some structures only; 1 of 2 have none, the first of them is frame 0; remove "
            "them, or set "
            "`stress_key` to 'none'",
        ),
    ],
)
def test_labels_of_some_frames_only_are_counted(text, content, keys, reason):
    assert refused(text(content), **keys) == reason


def test_energies_alone_are_read_where_some_frames_have_forces(text):
    assert read(text(FRAME + ENERGY_ALONE), forces="none").forces is None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "energy=-1.5",
            'E="1 2 3"',
            "energy 'E' (info) must be numbers of shape (), got int64 of shape (3,) in frame 0",
        ),
        (
            "energy=-1.5",
            "E=low",
            "energy 'E' (info) must be numbers of shape (), got <U3 of shape () in frame 0",
        ),
        (
            "energy=-1.5",
            "E=T",
            "energy 'E' (info) must be numbers of shape (), got bool of shape () in frame 0",
        ),
        (
            "pos:R:3:forces:R:3",
            "pos:R:3:F:R:2:rest:R:1",
            "forces 'F' (arrays) must be numbers of shape (2, 3), got float64 of shape (2, 2) in frame 0",
        ),
        (
            "energy=-1.5",
            "energy=nan",
            "must have finite energy ('energy' (calculator, eV)), got NaN or infinity in frame 0; remove "
            "the frame",
        ),
        ("O 0.0", "X 0.0", "must hold atomic numbers 1 to 99, got 0 in frame 0; remove the frame"),
        (
            "O 0.0 0.0 0.5",
            "O 0.0 0.0 1.5",
            "must not place two atoms at one point, got atoms 0 and 1 there in frame 0; remove the frame",
        ),
    ],
)
def test_wrong_values_are_refused(text, old, new, reason):
    assert refused(text(FRAME.replace(old, new)), forces="F" if "F:R:2" in new else "forces") == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "must hold at least one structure, got none"),
        (
            FRAME + "three\n",
            "frame 1 cannot be read (it must begin with the number of its atoms, got 'three')",
        ),
        (
            FRAME + OTHER[: OTHER.index("9 0.0 -0.5")],
            "frame 1 cannot be read (it must have the 7 columns of its `Properties`, got 3)",
        ),
        (
            FRAME + "\n".join(OTHER.splitlines()[:-1]),
            "frame 1 cannot be read (it must have 2 atoms, the file ends after 1)",
        ),
        (
            FRAME + OTHER.replace("H 0.0 -0.9", "Hx 0.0 -0.9"),
            "frame 1 cannot be read ('Hx')",
        ),
        (
            FRAME + OTHER.replace("0.5 0.0 0.0", "0.5"),
            "frame 1 cannot be read (it must have the 7 columns of its `Properties`, got 5)",
        ),
        (
            FRAME.replace("pos:R:3", "pos:R:3000000000"),  # a column for each would not fit into any memory
            "frame 0 cannot be read (it must have the 3000000004 columns of its `Properties`, got 7)",
        ),
        (
            FRAME.replace("2\n", "99999999999999\n", 1),
            "frame 0 cannot be read (it must have 99999999999999 atoms, the file ends after 2)",
        ),
    ],
)
def test_broken_frames_are_named(text, content, reason):
    wanted = reason if reason.startswith("must") else f"{reason}; repair it or write it again"
    assert refused(text(content)) == wanted


def test_empty_lines_end_nothing(text):
    """ASE's own reader stops at the first one, and tells nobody."""
    assert len(read(text(f"{FRAME}\n\n{OTHER}\n \n"))) == 2


def test_extended_xyz_of_any_name_is_read(text):
    assert len(read(text(FRAME + OTHER, "frames"))) == 2


def test_compressed_texts_are_read(text, tmp_path):
    (tmp_path / "frames.xyz.gz").write_bytes(gzip.compress((FRAME + OTHER).encode()))
    assert len(read(tmp_path / "frames.xyz.gz")) == 2
    (tmp_path / "broken.xyz.gz").write_bytes(gzip.compress((FRAME + OTHER).encode())[:-20])
    assert "cannot be read (Compressed file ended before" in refused(tmp_path / "broken.xyz.gz")


def test_a_truncated_trajectory_is_refused(labelled, tmp_path):
    ase_write(tmp_path / "a.traj", labelled())
    content = (tmp_path / "a.traj").read_bytes()
    for size in (10, 100, len(content) // 2, len(content) - 100):
        (tmp_path / "a.traj").write_bytes(content[:size])
        assert re.match(r"frame \d cannot be read \(", refused(tmp_path / "a.traj"))


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE letters (text TEXT)")
    file.close()
    before = path.read_bytes()
    assert refused(path) == "must be a database of ASE, in SQLite (it has no table 'systems'); write it again"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"SQLite format 3\0 and nothing else" * 10, b"2\n\nO 0 0 0\n"])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "a.db"
    path.write_bytes(content)
    assert refused(path) == "must be a database of ASE, in SQLite (file is not a database); write it again"


def test_an_empty_file_is_no_database(tmp_path):
    path = tmp_path / "empty.db"
    path.write_bytes(b"")
    assert refused(path) == "must be a database of ASE, in SQLite (it has no table 'systems'); write it again"
    assert path.read_bytes() == b""


def test_a_database_without_rows_is_refused(labelled, database):
    path = database([(labelled()[0], {}, {})])
    with ase.db.connect(path) as file:
        file.delete([1])
    assert refused(path) == "must hold at least one structure, got none"


def test_outputs_of_other_programs_are_read(text):
    """Turbomole's gradient, in Hartree and Bohr; ASE converts it."""
    content = """$grad          cartesian gradients
  cycle =      1    SCF energy =      -75.0000000000   |dE/dxyz| =  0.012345
    0.00000000000000      0.00000000000000      0.00000000000000      o
    0.00000000000000      0.00000000000000      2.00000000000000      h
   0.0000000000D+00   0.0000000000D+00   0.1000000000D-01
   0.0000000000D+00   0.0000000000D+00  -0.1000000000D-01
$end
"""
    frames = read(text(content, "gradient"))
    assert frames.energy[0] == pytest.approx(-75 * 27.2113860, rel=1e-7)
    assert frames.positions[1, 2] == pytest.approx(2 * 0.5291772, rel=1e-7)
    assert frames.forces[0, 2] == pytest.approx(-0.01 * 27.2113860 / 0.5291772, rel=1e-7)


class Creates:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["a.traj", "a.pckl", "a.pickle", "a.pt", "a.gpw", "a.bundle", "a.py", "a"])
def test_pickles_are_refused_and_not_executed(tmp_path, name):
    path, trap = tmp_path / name, tmp_path / "executed"
    path.write_bytes(pickle.dumps(Creates(trap)))
    refused(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.py", "open('executed', 'w')", "'py'"),
        ("a.cif", "data_", "'cif'"),
        ("a.csv", "a,b", "'csv'"),
        ("a.gpw", "- of UlmGPAW", "'gpw'"),
    ],
)
def test_other_kinds_are_refused_with_those_that_are_read(text, name, content, kind):
    reason = refused(text(content, name))
    assert kind in reason
    assert "these are .npz, .h5, .hdf5, .xyz, " in reason
    assert "outputs of other programs: abinit-out, " in reason


def test_a_file_of_no_kind_is_refused(text):
    assert refused(text("", "a.dat")).startswith("ASE cannot read it (Empty file: ")


def test_no_format_that_is_read_is_added_by_a_plugin():
    from ase.io.formats import ioformats

    known = [ioformats[name] for name in ase_files.WITH_ENERGIES if name in ioformats]
    assert len(known) > 10
    assert all(one.module_name.startswith("ase.io.") for one in known)


def test_units_of_a_header_are_used(text):
    frames = read(text(FRAME.replace("energy", "units=kcal/mol energy")))
    assert frames.units == Units("kcal/mol")
    assert frames.energy[0] == pytest.approx(-1.5 * 0.0433641, rel=1e-6)
    assert frames.forces[0, 2] == pytest.approx(2.0 * 0.0433641, rel=1e-6)


def test_units_that_are_asked_for_win_over_those_of_a_header(text):
    path = text(FRAME.replace("energy", "units=parsec energy"))
    assert read(path, units=Units("Hartree", "Bohr")).units == Units("Hartree", "Bohr")
    assert "set `units`" in refused(path)


def test_units_of_some_frames_only_are_refused(text):
    path = text(FRAME.replace("energy", "units=kcal/mol energy") + OTHER)
    assert "frame 1 must state the units of frame 0" in refused(path)


def test_a_header_with_two_energies_is_refused(text):
    assert "one value for 'energy'" in refused(text(FRAME.replace("energy", "energy=-3 energy")))


def test_what_unpacks_to_far_more_than_it_is_refused(tmp_path):
    path = tmp_path / "frames.xyz.gz"
    path.write_bytes(gzip.compress(b"99999999\nenergy=1\n" + (b"H 0 0 0" + b" " * 1000 + b"\n") * 20_000))
    assert "must unpack to at most" in refused(path)
