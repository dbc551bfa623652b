"""Lists of structures as pymatgen writes them are read with VASP's stress as ASE's."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pyg_schnet.io.formats import pymatgen as pymatgen_json
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.units import Units

OTHERWISE = "must have `structure` and `outputs` as pymatgen writes them"
FORCES = "forces 'forces' (outputs) must be numbers of shape"
SILICON = Path(__file__).parents[3] / "../shared/data/periodic/Si"


def site(element, xyz):
    return {"species": [{"element": element, "occu": 1}], "xyz": xyz, "label": element}


def entry(**outputs):
    return {
        "structure": {
            "lattice": {"matrix": [[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 6.0]]},
            "sites": [site("Si", [0.0, 0.0, 0.0]), site("C", [1.0, 1.5, 1.0])],
        },
        "outputs": {
            "energy": -10.5,
            "forces": [[0.0, 0.25, 0.0], [0.0, -0.25, 0.0]],
            "virial_stress": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
            **outputs,
        },
    }


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "a.json"

    return to_file


def read(path, *keys, units=None):
    return concatenate(list(pymatgen_json.read(path, Keys(*keys), units)))


def test_structures_and_labels_are_read(write):
    frames = read(write([entry(), entry(energy=-11.0)]))
    assert frames.numbers.tolist() == [14, 6, 14, 6]
    assert frames.positions[1].tolist() == [1.0, 1.5, 1.0]
    assert frames.energy.tolist() == [-10.5, -11.0]
    assert frames.forces[0].tolist() == [0.0, 0.25, 0.0]
    assert frames.cell[1].tolist() == [[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 6.0]]  # rows
    assert frames.pbc.all()
    assert frames.units == Units("eV")


def test_kilobars_of_compression_become_stress(write):
    """xx yy zz xy yz xz, 6.2415e-4 eV/Å³ in a kbar, positive under tension."""
    frames = read(write([entry()]))
    wanted = -6.241509074e-4 * np.array([[10, 40, 60], [40, 20, 50], [60, 50, 30]])
    np.testing.assert_allclose(frames.stress[0], wanted, rtol=1e-9)
    assert frames.labels["stress"] == "'virial_stress' (outputs, kbar, sign changed)"


def test_labels_may_be_chosen(write):
    path = write([entry(other=1.0)])
    assert read(path, "other", "forces").energy.tolist() == [1.0]
    assert read(path, None, "none", "none").labels == {"energy": "'energy' (outputs, eV)"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[{", "is damaged (Expecting property name enclosed in double quotes: line 1 column 3 (char 2)); "),
        ("[" * 100_000, "is damaged (maximum recursion depth exceeded"),
        ("[]", "must hold at least one structure, got none"),
        ([entry(), {"structure": 1}], f"frame 1 {OTHERWISE} (TypeError"),
        ([{**entry(), "outputs": {}}], "frame 0: has no energy that is recognized, but nothing that could"),
        ([entry(virial_stress=[1, 2])], f"frame 0 {OTHERWISE} (ValueError"),
        ([entry(forces=[[0, 0, 0]])], f"{FORCES} (2, 3), got int64 of shape (1, 3)"),
        ([entry(forces=[[0, 0], [0]])], f"{FORCES} (2, 3), got object of shape (0,)"),
        ([entry(), entry(energy=None)], "has energy 'energy' (outputs) in some structures only; 1 of 2 "),
        ('["text"]', f"frame 0 {OTHERWISE} (TypeError"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(write, content, reason):
    path = write(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {reason}")):
        read(path)


def test_a_site_of_two_elements_or_half_an_atom_is_refused(write):
    mixed, half = entry(), entry()
    mixed["structure"]["sites"][0]["species"].append({"element": "Ge", "occu": 0.5})
    half["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    with pytest.raises(ValueError, match=r"whole.*atom"):
        read(write([half]))
    with pytest.raises(ValueError, match=r"whole.*atom"):
        read(write([mixed]))


def test_other_units_are_refused(write):
    with pytest.raises(ValueError, match="`units`"):
        read(write([entry()]), units=Units("kcal/mol"))


@pytest.mark.skipif(
    not SILICON.is_dir(), reason="the reference data of silicon are not beside the repository"
)
def test_silicon_has_the_stress_of_vasp():
    frames = read(SILICON / "test.json")
    assert len(frames) == 25
    assert set(frames.numbers.tolist()) == {14}
    assert frames.stress.shape == (25, 3, 3)
    # PBE has -5.4 eV an atom in bulk silicon, and more in a melt; stresses are of some GPa.
    energies = frames.energy / frames.counts
    assert -5.45 < energies.min() < energies.max() < -4.5
    assert np.abs(frames.stress).max() < 20 / 160.2
