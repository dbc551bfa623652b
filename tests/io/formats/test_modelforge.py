"""Files of modelforge are read in the units that their arrays state, or refused with the reason.

The layout is that of ``SourceDataset.to_hdf5`` and, for older files, of ``dict_to_hdf5`` in
https://github.com/choderalab/modelforge, written here by plain h5py.
"""

import logging

import h5py
import numpy as np
import pytest

from pyg_schnet.datasets import AtomsDataset, read_frames
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.units import Units

KJ = 0.010364269656262174  # eV, of one kJ/mol
NM = "nanometer"
ENERGY, FORCE = "kilojoule_per_mole", "kilojoule_per_mole / nanometer"
# Two configurations of OH: name of the array, values, unit, format, property type.
POSITIONS = np.array([[[0, 0, 0.05], [0, 0, 0.15]], [[0.025, 0, 0], [0, -0.1, 0]]])
FORCES = np.array([[[0, 0, 1000.0], [0, 0, -1000.0]], [[250.0, 0, 0], [-250.0, 0, 0]]])
OH = {
    "atomic_numbers": (np.array([[8], [1]]), None, "atomic_numbers", "atomic_numbers"),
    "positions": (POSITIONS, NM, "per_atom", "length"),
    "energies": (np.array([[-1000.0], [-900.0]]), ENERGY, "per_system", "energy"),
    "forces": (FORCES, FORCE, "per_atom", "force"),
    "total_charge": (np.zeros((2, 1)), "elementary_charge", "per_system", "charge"),
    "smiles": ("[OH]", "dimensionless", "meta_data", "meta_data"),
}


@pytest.fixture
def write(tmp_path):
    """Write groups, and return the path."""

    def to_file(groups, name="modelforge.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            for group, arrays in groups.items():
                file[f"{group}/n_configs"] = 2
                file[f"{group}/n_configs"].attrs["format"] = "meta_data"
                for key, (values, unit, layout, kind) in arrays.items():
                    file[f"{group}/{key}"] = values
                    attributes = file[f"{group}/{key}"].attrs
                    attributes.update({"format": layout, "property_type": kind})
                    if unit is not None:
                        attributes["u"] = unit
        return tmp_path / name

    return to_file


def with_unit(unit, **units):
    """Change the units of arrays, of those that are not named too where ``unit`` says so."""
    return {key: (array[0], units.get(key, array[1]), *array[2:]) for key, array in unit.items()}


def read(path, *keys, units=None):
    return concatenate(list(read_frames(path, *keys, units=units)))


def test_arrays_are_in_the_units_that_they_state(write):
    frames = read(write({"OH": OH}))
    assert frames.numbers.tolist() == [8, 1, 8, 1]
    np.testing.assert_allclose(frames.energy, [-1000 * KJ, -900 * KJ], rtol=1e-9)
    np.testing.assert_allclose(frames.positions[:2], [[0, 0, 0.5], [0, 0, 1.5]], rtol=1e-12)
    np.testing.assert_allclose(frames.forces[0], [0, 0, 100 * KJ], rtol=1e-9)  # eV/Å
    assert frames.units == Units("kJ/mol", "nm")
    assert frames.labels["energy"] == "'energies' (kJ/mol)"


@pytest.mark.parametrize(
    ("units", "energy", "position", "force"),
    [
        (("hartree", "bohr", "hartree / bohr"), 27.211386245988, 0.529177210903, 51.42206747632588),
        (("electron_volt", "angstrom", "electron_volt / angstrom"), 1.0, 1.0, 1.0),
        (
            ("kilocalorie_per_mole", "angstrom", "kilocalorie_per_mole / angstrom"),
            *(0.0433641, 1.0, 0.0433641),
        ),
        (("kilocalorie / mole", "angstrom", "kilocalorie / angstrom / mole"), *(0.0433641, 1.0, 0.0433641)),
        ((ENERGY, NM, "kilojoule_per_mole / angstrom"), KJ, 10.0, KJ),
        (("hartree", "angstrom", "hartree / bohr"), 27.211386245988, 1.0, 51.42206747632588),
    ],
)
def test_other_units_are_honoured_too(write, units, energy, position, force):
    names = dict(zip(("energies", "positions", "forces"), units, strict=True))
    frames = read(write({"OH": with_unit(OH, **names)}))
    assert frames.energy[0] == pytest.approx(-1000 * energy, rel=1e-6)
    assert frames.positions[1, 2] == pytest.approx(0.15 * position, rel=1e-6)
    assert frames.forces[0, 2] == pytest.approx(1000 * force, rel=1e-6)


@pytest.mark.parametrize("forces", ["dft_total_force", "dft_total_gradient"])
def test_spice_has_total_energies_and_forces(write, forces):
    arrays = {key: value for key, value in OH.items() if key not in ("energies", "forces")}
    arrays["dft_total_energy"], arrays[forces] = OH["energies"], OH["forces"]
    arrays["formation_energy"] = (np.array([[-1.0], [-2.0]]), *OH["energies"][1:])
    frames = read(write({"OH": arrays}))
    assert frames.energy[0] == pytest.approx(-1000 * KJ, rel=1e-9)
    sign = -1 if forces.endswith("gradient") else 1
    assert frames.forces[0, 2] == pytest.approx(sign * 100 * KJ, rel=1e-9)


def test_older_files_have_a_geometry(write):
    """And no forces: QM9, where each molecule has one configuration, without a dimension for it."""
    atoms = np.array([[0, 0, 0], [0, 0, 0.075]])
    arrays = {
        "atomic_numbers": (np.array([1, 1]), None, "single_atom", ""),
        "geometry": (atoms, NM, "single_atom", ""),
        "internal_energy_at_0K": (-3000.0, ENERGY, "single_rec", ""),
    }
    frames = read(write({"dsgdb9nsd_000001": arrays}))
    assert frames.positions[1].tolist() == [0, 0, 0.75]
    assert frames.energy.tolist() == pytest.approx([-3000 * KJ], rel=1e-9)


def test_ani_1x_has_forces_of_each_level_of_theory(write):
    arrays = {key: value for key, value in OH.items() if key not in ("energies", "forces")}
    for level, factor in {"wb97x_dz": 1, "wb97x_tz": 2}.items():
        arrays[f"{level}_energy"] = (factor * OH["energies"][0], *OH["energies"][1:])
        arrays[f"{level}_forces"] = (factor * OH["forces"][0], *OH["forces"][1:])
    path = write({"OH": arrays})
    for key, factor in {None: 1, "wb97x_dz_energy": 1, "wb97x_tz_energy": 2}.items():
        frames = read(path, key)
        assert frames.energy[0] == pytest.approx(-1000 * factor * KJ, rel=1e-9)
        assert frames.forces[0, 2] == pytest.approx(100 * factor * KJ, rel=1e-9)


def grouped(systems):
    """Two systems of two atoms in one group, whose third configuration is the first system's again."""
    return {
        "atomic_numbers": (np.array([[[8], [1]], [[6], [8]]]), None, "atomic_numbers_grouped", ""),
        "positions": (np.concatenate([POSITIONS, POSITIONS[:1]]), *OH["positions"][1:]),
        "energies": (np.array([[-1000.0], [-900.0], [-800.0]]), *OH["energies"][1:]),
        "forces": (np.concatenate([FORCES, FORCES[:1]]), *OH["forces"][1:]),
        "grouped_indices": (np.array(systems), None, "", ""),
        "grouped_n_configs": (np.array([2, 1]), None, "", ""),
    }


def test_systems_of_one_size_may_share_a_group(write):
    frames = read(write({"group_2": grouped([0, 1, 0])}))
    assert frames.numbers.tolist() == [8, 1, 6, 8, 8, 1]
    assert frames.energy.tolist() == pytest.approx([-1000 * KJ, -900 * KJ, -800 * KJ], rel=1e-9)


@pytest.mark.parametrize("systems", [[0, 1], [0, 2, 0], [0, -1, 0], [0.5, 1, 0], [[0, 1, 0]]])
def test_systems_that_are_none_are_refused(write, systems):
    with pytest.raises(ValueError, match=r"group_2'.*shape|group_2'.*systems"):
        read(write({"group_2": grouped(systems)}))


def test_large_groups_come_in_parts(write, monkeypatch):
    from pyg_schnet.io.formats import hdf5
    from pyg_schnet.io.formats.labels import Keys

    monkeypatch.setattr(hdf5, "_ATOMS_AT_ONCE", 2)
    for name, group in {"own": OH, "systems": grouped([0, 1, 0])}.items():
        path = write({"group": group}, f"{name}.h5")
        parts = list(hdf5.read(path, Keys(), None))
        assert [len(part) for part in parts] == [1] * len(group["positions"][0])
        assert concatenate(parts).numbers.tolist() == read(path).numbers.tolist()


@pytest.mark.parametrize("key", ["energies", "positions", "forces"])
def test_a_unit_that_is_not_known_is_refused(write, key):
    with pytest.raises(ValueError, match=r"furlong.*`units`"):
        read(write({"OH": with_unit(OH, **{key: "furlong"})}))


@pytest.mark.parametrize("key", ["energies", "positions"])
def test_a_unit_that_is_missing_is_asked_for(write, key):
    with pytest.raises(ValueError, match="`units`"):
        read(write({"OH": with_unit(OH, **{key: None})}))


@pytest.mark.parametrize("unit", ["hartree", None])
def test_groups_of_other_units_are_refused(write, unit):
    with pytest.raises(ValueError, match=r"'/b'.*'energies'.*unit.*'/a'"):
        read(write({"a": OH, "b": with_unit(OH, energies=unit)}))


def test_units_that_are_given_hold_and_a_contradiction_is_a_warning(write, caplog):
    path = write({"OH": OH})
    with caplog.at_level(logging.WARNING):
        assert read(path, units=Units("kJ/mol", "nm")).energy[0] == pytest.approx(-1000 * KJ, rel=1e-9)
        assert read(write({"OH": with_unit(OH, energies="furlong")}), units=Units("eV")).energy[0] == -1000
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        frames = read(write({"OH": OH}), units=Units("eV", "nm"))
    assert frames.energy[0] == -1000
    assert frames.positions[1, 2] == 1.5
    (message,) = caplog.messages
    assert "kJ/mol, nm" in message
    assert "eV, nm" in message


def test_a_data_set_is_in_ev_and_angstrom(write):
    item = AtomsDataset(path=write({"OH": OH}))[1]
    assert item.energy.item() == pytest.approx(-900 * KJ, rel=1e-9)
    assert item.pos.flatten().tolist() == pytest.approx([0.25, 0, 0, 0, -1, 0], abs=1e-6)
