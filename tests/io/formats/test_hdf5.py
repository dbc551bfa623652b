"""HDF5 files of ANI-1x, ANI-1, SPICE and one's own are read in eV and Å, or refused with the reason."""

import logging
import re

import h5py
import numpy as np
import pytest

from pyg_schnet.io.formats import hdf5
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.units import Units

HARTREE, BOHR = 27.211386245988, 0.529177210903
# Two conformations of OH and one of H2, in Hartree and Å, as ANI-1x has them.
ANI_1X = {
    "O1H1": {
        "atomic_numbers": np.array([8, 1], dtype=np.uint8),
        "coordinates": np.array([[[0, 0, 0.5], [0, 0, 1.5]], [[0.25, 0, 0], [0, -1, 0]]], dtype=np.float32),
        "wb97x_dz.energy": np.array([-75.0, -75.5]),
        "wb97x_dz.forces": np.array([[[0, 0, 0.5], [0, 0, -0.5]], [[1, 0, 0], [-1, 0, 0]]], dtype=np.float32),
        "ccsd(t)_cbs.energy": np.array([-75.25, np.nan]),
    },
    "H2": {
        "atomic_numbers": np.array([1, 1], dtype=np.uint8),
        "coordinates": np.array([[[0, 0, 0], [0, 0, 0.75]]], dtype=np.float32),
        "wb97x_dz.energy": np.array([-1.0]),
        "wb97x_dz.forces": np.array([[[0, 0, 0.25], [0, 0, -0.25]]], dtype=np.float32),
        "ccsd(t)_cbs.energy": np.array([np.nan]),
    },
}
# The same in SPICE's layout: Bohr, and gradients instead of forces.
SPICE_UNITS = {
    "conformations": "bohr",
    "dft_total_energy": "hartree",
    "formation_energy": "hartree",
    "dft_total_gradient": "hartree/bohr",
}
SPICE = {
    "[H]O": {
        "atomic_numbers": np.array([8, 1], dtype=np.int16),
        "conformations": np.array([[[0, 0, 0.5], [0, 0, 1.5]]], dtype=np.float32),
        "dft_total_energy": np.array([-75.0]),
        "formation_energy": np.array([-0.25]),
        "dft_total_gradient": np.array([[[0, 0, 0.5], [0, 0, -0.5]]], dtype=np.float32),
    }
}


def read(path, energy=None, forces=None, stress=None, units=None):
    return concatenate(list(hdf5.read(path, Keys(energy, forces, stress), units)))


def refused(path, *args, **kwargs):
    """Return the reason; all are ValueErrors that begin with the path."""
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read(path, *args, **kwargs)
    return str(caught.value).removeprefix(f"{path}: ")


def changed(groups, group, **arrays):
    return {**groups, group: {**groups[group], **arrays}}


def test_ani_1x_is_in_hartree_and_angstrom(write_hdf5):
    frames = read(write_hdf5(ANI_1X))
    assert frames.counts.tolist() == [2, 2, 2]  # H2 is first by name
    assert frames.numbers.tolist() == [1, 1, 8, 1, 8, 1]
    np.testing.assert_allclose(frames.energy, [-HARTREE, -75 * HARTREE, -75.5 * HARTREE], rtol=1e-15)
    assert frames.positions[3].tolist() == [0.0, 0.0, 1.5]
    np.testing.assert_allclose(frames.forces[2], [0, 0, 0.5 * HARTREE], rtol=1e-15)
    assert frames.units == Units("Hartree")
    assert frames.labels == {
        "energy": "'wb97x_dz.energy' (Hartree)",
        "forces": "'wb97x_dz.forces' (Hartree/Å)",
    }


def test_what_ani_1x_did_not_compute_is_left_out_counted_and_told(write_hdf5, caplog):
    groups = changed(ANI_1X, "O1H1", **{"wb97x_dz.forces": np.full((2, 2, 3), np.nan)})
    groups["O1H1"]["wb97x_dz.forces"][1] = 0.5
    path = write_hdf5(groups)
    with caplog.at_level(logging.WARNING):
        frames = read(path)
    np.testing.assert_allclose(frames.energy, [-HARTREE, -75.5 * HARTREE], rtol=1e-15)
    assert frames.skipped == 1
    assert caplog.messages == [f"{path}: left out 1 structures, whose labels are missing (NaN)"]


def test_whole_molecules_without_labels_are_left_out_too(write_hdf5):
    frames = read(write_hdf5(ANI_1X), "ccsd(t)_cbs.energy")
    assert frames.energy.tolist() == [-75.25 * HARTREE]
    assert frames.skipped == 2
    assert frames.forces is None  # they were not computed at this level


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        (np.zeros(3), "'/O1H1': 'wb97x_dz.energy' must have shape (2,), got (3,)"),
        (np.array(1.0), "'/O1H1': 'wb97x_dz.energy' must have shape (2,), got (1,)"),
        (np.array([b"a", b"b"]), "'/O1H1': 'wb97x_dz.energy' must hold numbers, got |S1"),
    ],
)
def test_wrong_arrays_of_ani_1x_are_refused(write_hdf5, energy, reason):
    assert refused(write_hdf5(changed(ANI_1X, "O1H1", **{"wb97x_dz.energy": energy}))) == reason


def test_a_file_without_any_label_is_refused(write_hdf5):
    groups = changed(ANI_1X, "O1H1", **{"ccsd(t)_cbs.energy": np.full(2, np.nan)})
    assert refused(write_hdf5(groups), "ccsd(t)_cbs.energy") == (
        "must hold structures with labels, got 3 without (NaN)"
    )


@pytest.mark.parametrize("species", [np.array([b"O", b"H"]), np.array(["O", "H"], dtype=h5py.string_dtype())])
def test_ani_1_has_nested_groups_and_symbols(write_hdf5, species):
    molecule = {
        "species": species,
        "coordinates": ANI_1X["O1H1"]["coordinates"],
        "energies": np.array([-75.0, -75.5]),
        "coordinatesHE": np.zeros((1, 2, 3)),
    }
    path = write_hdf5({"gdb11_s01/gdb11_s01-1": molecule, "gdb11_s01/gdb11_s01-0": molecule})
    frames = read(path)
    assert frames.numbers.tolist() == [8, 1] * 4
    np.testing.assert_allclose(frames.energy, [-75 * HARTREE, -75.5 * HARTREE] * 2, rtol=1e-15)
    assert frames.forces is None


@pytest.mark.parametrize("units", [SPICE_UNITS, None])
def test_spice_is_in_hartree_and_bohr_and_has_gradients(write_hdf5, units):
    frames = read(write_hdf5(SPICE, units=units))
    assert frames.energy[0] == pytest.approx(-75 * HARTREE, rel=1e-15)
    assert frames.positions[1, 2] == pytest.approx(1.5 * BOHR, rel=1e-15)
    assert frames.forces[0, 2] == pytest.approx(-0.5 * HARTREE / BOHR, rel=1e-15)  # minus the gradient
    assert frames.units == Units("Hartree", "Bohr")
    assert frames.labels["forces"] == "'dft_total_gradient' (Hartree/Bohr, sign changed)"


def test_formation_energies_of_spice_have_the_same_gradient(write_hdf5):
    frames = read(write_hdf5(SPICE), "formation_energy")
    assert frames.energy[0] == pytest.approx(-0.25 * HARTREE, rel=1e-15)
    assert frames.forces[0, 2] == pytest.approx(-0.5 * HARTREE / BOHR, rel=1e-15)


def test_units_of_the_arrays_hold_in_any_layout(write_hdf5):
    units = {"conformations": "angstrom", "dft_total_energy": "eV", "dft_total_gradient": "eV/angstrom"}
    frames = read(write_hdf5(SPICE, units=units))
    assert frames.energy.tolist() == [-75.0]
    assert frames.positions[1, 2] == 1.5
    assert frames.forces[0, 2] == -0.5


def test_units_that_are_given_hold_before_all(write_hdf5):
    frames = read(write_hdf5(SPICE, units=SPICE_UNITS), units=Units("eV"))
    assert (frames.energy[0], frames.positions[1, 2]) == (-75.0, 1.5)


@pytest.mark.parametrize(
    "units",
    [
        {"conformations": "furlong", "dft_total_energy": "eV"},
        {"conformations": "bohr", "dft_total_energy": "eV", "dft_total_gradient": "hartree"},
    ],
)
def test_units_that_nobody_knows_are_refused(write_hdf5, units):
    reason = refused(write_hdf5(SPICE, units=units))
    assert ", ".join(units[name] for name in ("dft_total_energy", "conformations")) in reason
    assert "set `units`" in reason


def test_forces_are_in_the_unit_that_their_array_states(write_hdf5):
    units = {"conformations": "angstrom", "dft_total_energy": "eV", "dft_total_gradient": "hartree/bohr"}
    frames = read(write_hdf5(SPICE, units=units))
    assert frames.energy.tolist() == [-75.0]
    assert frames.forces[0, 2] == pytest.approx(-0.5 * HARTREE / BOHR, rel=1e-15)


OWN = {
    "a": {
        "atomic_numbers": np.array([17, 1]),
        "positions": np.array([[[0, 0, 0], [0, 0, 1.25]]]),
        "energy": np.array([1.0]),
        "forces": np.ones((1, 2, 3)),
    },
    "b": {
        "atomic_numbers": np.array([1]),
        "positions": np.zeros((2, 1, 3)),
        "energy": np.array([2.0, 3.0]),
        "forces": np.zeros((2, 1, 3)),
    },
}


def test_a_file_of_ones_own_needs_units(write_hdf5):
    path = write_hdf5(OWN)
    assert refused(path) == (
        "'/a': the unit of 'energy' is not known; set `units`, for example \"kcal/mol\" or \"Hartree, Bohr\""
    )
    assert read(path, units=Units("eV")).energy.tolist() == [1.0, 2.0, 3.0]
    units = {"positions": "Å", "energy": "kcal/mol"}
    assert read(write_hdf5(OWN, "b.h5", units)).units == Units("kcal/mol")


def test_arrays_may_lie_in_no_group(write_hdf5):
    assert read(write_hdf5({"/": OWN["b"]}), units=Units("eV")).counts.tolist() == [1, 1]


def test_one_structure_needs_no_dimension_of_frames(write_hdf5):
    """As in QM7-X: one group for each conformation."""
    own = {key: value if key == "atomic_numbers" else value[0] for key, value in OWN["a"].items()}
    frames = read(write_hdf5({"mol/conf": own}), units=Units("eV"))
    assert (frames.energy.tolist(), frames.forces.shape) == ([1.0], (2, 3))


def test_periodic_structures_are_read(write_hdf5):
    path = write_hdf5(changed({"a": OWN["a"]}, "a", cell=np.eye(3)))
    assert read(path, units=Units("eV")).pbc.tolist() == [[True] * 3]
    assert hdf5.is_periodic(path)
    assert not hdf5.is_periodic(write_hdf5(OWN, "b.h5"))


def test_many_conformations_are_read_in_parts(write_hdf5, monkeypatch):
    rng = np.random.default_rng(0)
    own = {
        "atomic_numbers": np.array([8, 1, 1]),
        "positions": rng.normal(size=(7, 3, 3)),
        "energy": rng.normal(size=7),
        "forces": rng.normal(size=(7, 3, 3)),
        "cell": np.eye(3),
    }
    path = write_hdf5({"a": own})
    monkeypatch.setattr(hdf5, "_ATOMS_AT_ONCE", 6)
    pieces = list(hdf5.read(path, Keys(), Units("eV")))
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]
    whole = concatenate(pieces)
    assert np.array_equal(whole.energy, own["energy"])
    assert np.array_equal(whole.forces, own["forces"].reshape(-1, 3))


def test_structures_behind_each_other_are_read_at_once(write_hdf5, monkeypatch):
    own = {
        "numbers": np.array([8, 1, 1]),
        "positions": np.eye(3),
        "energy": np.ones(2),
        "n_atoms": np.array([2, 1]),
    }
    monkeypatch.setattr(hdf5, "_ATOMS_AT_ONCE", 1)
    assert read(write_hdf5({"a": own}), units=Units("eV")).counts.tolist() == [2, 1]


def test_each_bit_is_kept(write_hdf5):
    rng = np.random.default_rng(0)
    positions, energy, forces = rng.normal(size=(4, 2, 3)), rng.normal(size=4), rng.normal(size=(4, 2, 3))
    own = {"atomic_numbers": np.array([8, 1]), "positions": positions, "energy": energy, "forces": forces}
    frames = read(write_hdf5({"a": own}), units=Units("eV"))
    assert np.array_equal(frames.positions, positions.reshape(-1, 3))
    assert np.array_equal(frames.energy, energy)
    assert np.array_equal(frames.forces, forces.reshape(-1, 3))


def without(groups, group, key):
    return {**groups, group: {name: value for name, value in groups[group].items() if name != key}}


@pytest.mark.parametrize(
    ("groups", "keys", "reason"),
    [
        (
            {"a": {"x": np.zeros((2, 3))}},
            {},
            "must have groups with atomic numbers and positions under usual names, got 'a/x' (2, 3)",
        ),
        ({}, {}, "must have groups with atomic numbers and positions under usual names, got no arrays"),
        (
            without(OWN, "a", "energy"),
            {},
            "'/a': has no energy that is recognized, but 'atomic_numbers' (2,), 'forces' (1, 2, 3), "
            "'positions' (1, 2, 3); "
            "name it with `energy_key` ('none' reads no energies)",
        ),
        (
            OWN,
            {"energy": "gap"},
            "'/a': has no energy 'gap', but 'atomic_numbers' (2,), 'energy' (1,), 'forces' (1, 2, 3), "
            "'positions' (1, 2, "
            "3); choose another with `energy_key`",
        ),
        (
            without(OWN, "b", "forces"),
            {},
            "must have the same arrays in all molecules, but 1 of 2 lack some, the first of them '/b' lacks "
            "'forces'; "
            "choose other labels",
        ),
        (changed(OWN, "b", energy=np.zeros(3)), {}, "'/b': 'energy' must have shape (2,), got (3,)"),
        (
            changed(OWN, "b", positions=np.zeros((2, 2, 3))),
            {},
            "'/b': 'positions' must have shape (2, 1, 3), got (2, 2, 3)",
        ),
        (
            changed(OWN, "b", atomic_numbers=np.array([0])),
            {},
            "'/b': 'atomic_numbers' must hold atomic numbers 1 to 99, got 0",
        ),
        (
            changed(OWN, "b", energy=np.array([1, np.nan])),
            {},
            "'/b': must have finite energy ('energy' (eV)), got NaN or infinity in frame 1; remove the frame",
        ),
        (
            changed(OWN, "a", positions=np.zeros((1, 2, 3))),
            {},
            "'/a': must not place two atoms at one point, got atoms 0 and 1 there in frame 0; remove the "
            "frame",
        ),
        (changed(OWN, "b", energy=np.array([b"x", b"y"])), {}, "'/b': 'energy' must hold numbers, got |S1"),
    ],
)
def test_wrong_files_are_refused_with_the_molecule(write_hdf5, groups, keys, reason):
    assert refused(write_hdf5(groups), units=Units("eV"), **keys) == reason


@pytest.mark.parametrize("content", [b"", b"2\n\nO 0 0 0\n", b"\x89HDF\r\n\x1a\n and nothing else"])
def test_a_file_that_is_no_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    reason = refused(path)
    assert reason.startswith("must be an HDF5 file, got another or a damaged file (")
    assert ("it is empty" in reason) == (not content)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(write_hdf5, fraction):
    path = write_hdf5(ANI_1X)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    assert "truncated" in refused(path) or "unable to open" in refused(path).lower()


def test_a_damage_that_hdf5_notices_is_told(write_hdf5):
    path = write_hdf5(without(OWN, "a", "energy"))
    with h5py.File(path, "a") as file:
        file["a"].create_dataset("energy", data=np.array([0.1234567]), chunks=(1,), fletcher32=True)
    content = path.read_bytes()
    path.write_bytes(content.replace(np.array([0.1234567]).tobytes(), np.array([0.7654321]).tobytes()))
    assert re.fullmatch(
        r"'/a/energy' is damaged \(.*\); download the file again", refused(path, units=Units("eV"))
    )


def test_texts_in_an_encoding_that_is_none_are_refused(write_hdf5):
    path = write_hdf5(without(OWN, "a", "energy"))
    with h5py.File(path, "a") as file:
        file["a"].create_dataset("energy", data=np.array([b"0.12345"]))
    content, length = path.read_bytes(), bytes([7, 0, 0, 0])
    assert content.count(b"\x13\x01\0\0" + length) == 1  # texts that end in zeros, in ASCII
    path.write_bytes(content.replace(b"\x13\x01\0\0" + length, b"\x13\x21\0\0" + length))
    assert re.fullmatch(
        r"'/a/energy' is damaged \(Unknown string encoding.*\); download the file again",
        refused(path, units=Units("eV")),
    )


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_file_that_is_open_elsewhere_in_the_process_is_read(write_hdf5, mode, locking):
    path = write_hdf5(ANI_1X)
    with h5py.File(path, mode, locking=locking):
        assert len(read(path)) == 3


def test_links_to_other_files_are_not_followed(write_hdf5, tmp_path):
    secret = write_hdf5(OWN, "secret.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = h5py.ExternalLink(secret, "/a")
    assert refused(tmp_path / "a.h5", units=Units("eV")) == (
        "'/a' must be in its place, got a link, which is not followed"
    )


@pytest.mark.parametrize("link", [h5py.ExternalLink("secret.h5", "/a/energy"), h5py.SoftLink("/b/energy")])
def test_links_to_arrays_are_not_followed(write_hdf5, link):
    write_hdf5(OWN, "secret.h5")
    path = write_hdf5(without(OWN, "a", "energy"))
    with h5py.File(path, "a") as file:
        file["a/energy"] = link
    assert refused(path, "energy", units=Units("eV")) == (
        "'/a/energy' must be in its place, got a link, which is not followed"
    )


def test_arrays_in_other_files_are_not_read(write_hdf5, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(8))
    layout = h5py.VirtualLayout(shape=(1,), dtype=float)
    layout[:] = h5py.VirtualSource(write_hdf5(OWN, "secret.h5"), "a/energy", shape=(1,))
    for number in range(2):
        path = write_hdf5(without(OWN, "a", "energy"), f"{number}.h5")
        with h5py.File(path, "a") as file:
            if number:
                file["a"].create_virtual_dataset("energy", layout)
            else:
                file["a"].create_dataset("energy", (1,), float, external=[(str(tmp_path / "secret"), 0, 8)])
        assert refused(path, units=Units("eV")) == (
            "'/a/energy' must be in this file, got a reference to another, which is not followed"
        )


def test_an_array_that_was_never_written_is_refused(write_hdf5):
    """A file of a kilobyte may declare a terabyte."""
    path = write_hdf5(without(OWN, "a", "positions"))
    with h5py.File(path, "a") as file:
        file["a"].create_dataset("positions", (10**10, 2, 3), float, chunks=(1000, 2, 3))
    assert refused(path, units=Units("eV")) == (
        "'/a/positions' must hold data, got an array that was never written"
    )


def test_a_group_within_itself_is_read_once(write_hdf5):
    path = write_hdf5({"x/a": OWN["a"]})
    with h5py.File(path, "a") as file:
        file["x/again"] = file["x"]
        file["x/a2"] = file["x/a"]
    assert len(read(path, units=Units("eV"))) == 1


def test_a_group_in_place_of_an_array_is_refused(write_hdf5):
    path = write_hdf5(without(OWN, "a", "energy"))
    with h5py.File(path, "a") as file:
        file["a"].create_group("energy")
    assert refused(path, "forces", "none", units=Units("eV")).startswith(
        "'/a': 'forces' must have shape (1,)"
    )
    assert refused(path, units=Units("eV")).startswith("'/a': has no energy that is recognized, but ")
