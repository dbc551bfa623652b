"""Units that a file cannot be in show by bonds, their stiffness and the work of forces; no others do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.report.summary import summarize
from pyg_schnet.io.units import Units, conversion

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"  # valence energies, in kcal/mol and Å
SHARED = ROOT / "../shared/data"


@pytest.fixture(scope="module")
def ethanol():
    """Return the sample in eV and Å: every fifth frame."""
    with np.load(SAMPLE) as file:
        energy, forces = (conversion("kcal/mol", "eV") * file[key][::5] for key in "EF")
        return {"z": file["z"], "R": file["R"][::5], "E": energy.reshape(-1), "F": forces}


@pytest.fixture
def doubt(tmp_path, ethanol):
    """Write ethanol with MD17's keys in some units, and return what is doubted when it is read."""

    def of(written, read=None, shift=0.0):
        units, path = Units.parse(written), tmp_path / "frames.npz"
        arrays = {
            "z": ethanol["z"],
            "R": ethanol["R"] / units.length_in_angstrom,
            "E": (ethanol["E"] + shift) / units.energy_in_eV,
            "F": ethanol["F"] / units.forces_in_eV_per_angstrom,
        }
        np.savez(path, **arrays)
        return summarize(AtomsDataset(path=path, units=read)).unit_doubt

    return of


@pytest.mark.parametrize("shift", [0.0, 310.0])  # valence energies, and energies with references subtracted
@pytest.mark.parametrize(
    ("written", "evidence"),
    [
        ("Hartree, Bohr", "nearest neighbors"),
        ("kcal/mol, Bohr", "nearest neighbors"),
        ("kcal/mol, Bohr, kcal/mol/Å", "nearest neighbors"),
        ("Hartree, Hartree/Bohr", "work"),
        ("Hartree, eV/Å", "work"),
        ("kcal/mol, Hartree/Bohr", "work"),
        ("Hartree", "stiff"),
        ("eV", "stiff"),
        ("kJ/mol", "stiff"),
        ("eV, nm", "nearest neighbors"),
    ],
)
def test_units_that_keys_of_md17_cannot_be_in_are_reported_with_likely_ones(doubt, written, evidence, shift):
    told = doubt(written, shift=shift)
    assert evidence in told
    assert told.endswith(f'pass the units, "{written}".')


@pytest.mark.parametrize("units", ["kcal/mol", "eV", "Hartree, Bohr", "kJ/mol, nm", "Hartree, Hartree/Bohr"])
@pytest.mark.parametrize("shift", [0.0, 310.0, -4000.0])
def test_the_right_units_are_not_doubted(doubt, units, shift):
    assert doubt(units, units, shift) is None


@pytest.mark.parametrize("read", ["Hartree, Bohr", "eV, Bohr", "Hartree", "eV", "kJ/mol, nm"])
def test_wrong_units_that_are_given_are_doubted(doubt, read):
    assert doubt("kcal/mol", read).endswith('pass the units, "kcal/mol".')


def doubt_of(tmp_path, frames):
    ase_write(tmp_path / "frames.xyz", frames, format="extxyz")
    return summarize(AtomsDataset(path=tmp_path / "frames.xyz")).unit_doubt


def labelled(atoms, energy=0.0, forces=None):
    atoms.calc = SinglePointCalculator(
        atoms, energy=energy, forces=np.zeros((len(atoms), 3)) if forces is None else forces
    )
    return atoms


def morse(symbols, distances, depth=4.7, width=1.9, length=0.74):
    """Return dimers at some distances, with the energies and forces of Morse's curve."""
    frames = []
    for distance in distances:
        decay = np.exp(-width * (distance - length))
        pull = 2 * depth * width * decay * (1 - decay)
        forces = np.array([[0, 0, pull], [0, 0, -pull]])
        energy = depth * ((1 - decay) ** 2 - 1)
        frames.append(labelled(Atoms(symbols, [[0, 0, 0], [0, 0, distance]]), energy, forces))
    return frames


RNG = np.random.default_rng(0)


def metal(name, strain=1.0, noise=0.05, **options):
    atoms = bulk(name, cubic=True, **options)
    atoms.set_cell(strain * atoms.cell, scale_atoms=True)
    atoms.positions += RNG.normal(0, noise, atoms.positions.shape)
    atoms.calc = EMT()
    return labelled(atoms, atoms.get_potential_energy(), atoms.get_forces())


def scattered(name, number=40, noise=0.05):
    frames = []
    for _ in range(number):
        atoms = molecule(name) if isinstance(name, str) else name.copy()
        atoms.positions += RNG.normal(0, noise, atoms.positions.shape)
        frames.append(labelled(atoms, RNG.normal()))
    return frames


def gas(symbol, spacing, number=30):
    """Return atoms on a cubic lattice."""
    atoms = Atoms(symbol, cell=[spacing] * 3, pbc=True).repeat(2)
    return scattered(atoms, number)


SOUND = {
    "hydrogen from short to far": morse("H2", np.linspace(0.4, 6, 80)),
    "hydrogen far apart": morse("H2", np.linspace(3, 6, 80)),
    "carbon far apart": morse("C2", np.linspace(3, 6, 80), length=1.24),
    "atoms alone": [labelled(Atoms(symbol), -10.0) for symbol in 20 * "HCNO"],
    "hydrogen molecules": scattered("H2"),
    "dense hydrogen": gas("H", 1.2),
    "argon": gas("Ar", 3.8),
    "nitrogen": scattered("N2"),
    "carbon monoxide and dioxide": scattered("CO") + scattered("CO2"),
    "chlorides": scattered("CCl4") + scattered("LiF"),
    "copper": [metal("Cu") for _ in range(20)],
    "gold": [metal("Au") for _ in range(20)],
    "aluminium at all volumes": [metal("Al", x) for x in np.linspace(0.8, 1.3, 20)],
    "lead": scattered(bulk("Pb", cubic=True)),
    "compressed copper": [metal("Cu", 0.82, 0.02) for _ in range(20)],
    "potassium under pressure": scattered(bulk("K", "bcc", a=3.0, cubic=True), 20),
    "caesium": scattered(bulk("Cs", cubic=True), 20),
    "silicon": scattered(bulk("Si", cubic=True)),
    "salt": scattered(bulk("NaCl", "rocksalt", a=5.64, cubic=True)),
    "magnesium oxide": scattered(bulk("MgO", "rocksalt", a=4.21, cubic=True)),
    "tungsten": scattered(bulk("W", cubic=True)),
    "hydrides": scattered("SiH4") + scattered("LiH") + scattered("PH3") + scattered("SH2"),
    "molecules without hydrogen": scattered("C2Cl4") + scattered("SO2") + scattered("O3") + scattered("P2"),
    "molecules at rest": scattered("CH3CH2OH", 20, 1e-4) + scattered("C6H6", 20, 1e-4),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_structures_are_not_doubted(tmp_path, name):
    assert doubt_of(tmp_path, SOUND[name]) is None


@pytest.mark.parametrize("scale", [1 / 0.529177, 0.529177])
@pytest.mark.parametrize("name", ["copper", "silicon", "molecules at rest", "molecules without hydrogen"])
def test_positions_in_another_unit_are_doubted(tmp_path, name, scale):
    frames = []
    for atoms in SOUND[name]:
        own = atoms.copy()
        own.set_cell(scale * own.cell, scale_atoms=False)
        own.positions *= scale
        frames.append(labelled(own, atoms.get_potential_energy()))
    assert "nearest neighbors" in doubt_of(tmp_path, frames)


MOLECULES = [
    "aspirin",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "salicylic",
    "toluene",
    "uracil",
]
PUBLISHED = [
    *(
        (f"rmd17/rmd17_{name}_train_01.npz", key)
        for name in MOLECULES
        for key in ("energies", "old_energies")
    ),
    *((f"periodic/Si/{name}.json", None) for name in ("training", "test")),
    *((f"periodic/water/{name}", None) for name in ("data_0", "data_1")),
]


@pytest.mark.parametrize(("name", "key"), PUBLISHED)
def test_published_files_are_not_doubted(name, key):
    if not (SHARED / name).exists():
        pytest.skip("needs the shared reference data")
    assert summarize(AtomsDataset(path=SHARED / name, energy_key=key)).unit_doubt is None
