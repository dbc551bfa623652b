"""The generator of organic molecules: folds, geometries, labels, and shards that go on after a kill."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from ase.calculators.lj import LennardJones
from ase.data import covalent_radii
from rdkit import Chem, RDLogger
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers

from pyg_schnet.datasets import AtomsDataset

FOLDER = Path(__file__).parents[2] / "datasets" / "organic"
QM9 = ["CCO", "CC(C)=O", "C1CC2OC12C#N", "NC1=NC=NO1", "CC#CC(C=O)C(C)O", "OC1CC2CC2C2NC12", "Cc1cocc1CO"]


def load(name):
    """Import a script, which imports its neighbors, as if it was run."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look for their annotations
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module", autouse=True)
def quiet():
    RDLogger.DisableLog("rdApp.*")
    yield
    RDLogger.EnableLog("rdApp.*")


@pytest.fixture(scope="module")
def script():
    return load("make_frames")


@pytest.fixture(scope="module")
def molecules(script):
    return sys.modules["molecules"]


@pytest.fixture(scope="module")
def geometry(script):
    return sys.modules["geometries"]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def distances(positions):
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


def test_a_molecule_has_one_fold_however_it_is_written(molecules):
    for smiles in molecules.read_tested()["qm9"][:40]:
        isomer = next(iter(EnumerateStereoisomers(Chem.MolFromSmiles(smiles))))
        assert molecules.fold_of(Chem.MolToSmiles(isomer)) == "test"
        assert molecules.fold_of(Chem.MolToSmiles(isomer, canonical=False, rootedAtAtom=1)) == "test"


def test_folds_are_disjoint_and_have_their_shares(molecules, rng):
    some = [*QM9, *filter(None, (molecules.grow(rng, 6) for _ in range(100)))]
    drawn = {fold: {molecules.draw(rng, some, fold)[0] for _ in range(20)} for fold in molecules.FOLDS}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    grown = {molecules.grow(rng, 12) for _ in range(200)} - {""}
    shares = {fold: sum(molecules.fold_of(s) == fold for s in grown) / len(grown) for fold in molecules.FOLDS}
    assert shares["train"] == pytest.approx(0.88, abs=0.1)  # 88 ± 2.5 %


def test_the_molecules_for_tests_are_never_trained_on(molecules):
    tested = molecules.read_tested()
    assert {name: len(set(found)) for name, found in tested.items()} == {"qm9": 100, "large": 100}
    for name, found in tested.items():
        assert {molecules.fold_of(smiles) for smiles in found} == {"test"}
        heavy = [Chem.MolFromSmiles(smiles).GetNumHeavyAtoms() for smiles in found]
        assert (min(heavy) >= 12 and max(heavy) <= 20) if name == "large" else max(heavy) <= 9


def test_grown_molecules_are_neutral_of_the_size_asked_for_and_without_unstable_bonds(molecules, rng):
    grown = [s for s in (molecules.grow(rng, 14) for _ in range(60)) if s]
    assert len(grown) > 30
    peroxide = Chem.MolFromSmarts("[OX2][OX2]")
    for smiles in grown:
        mol = Chem.MolFromSmiles(smiles)
        assert 14 <= mol.GetNumHeavyAtoms() <= 17
        assert Chem.GetFormalCharge(mol) == 0
        assert {a.GetSymbol() for a in mol.GetAtoms()} <= set("CNOFS") | {"Cl"}
        assert not mol.HasSubstructMatch(peroxide)


def test_a_varied_molecule_has_one_atom_of_sulfur_chlorine_or_fluorine(molecules, rng):
    symbols = {"S", "Cl", "F"}
    for smiles in filter(None, (molecules.vary("CCOC", rng) for _ in range(12))):
        atoms = [a.GetSymbol() for a in Chem.MolFromSmiles(smiles).GetAtoms()]
        assert sum(symbol in symbols for symbol in atoms) == 1


def test_the_force_field_s_gradient_is_that_of_its_energy_also_the_second_time(geometry, rng):
    mol = geometry.embed("CCO", rng, 1)
    gradient, positions = geometry.gradient_of(mol), mol.GetConformer().GetPositions()
    energy, step = geometry.force_field(mol), 1e-4
    for _ in range(2):  # RDKit keeps distances of the call before
        shaken = positions + 0.05 * rng.standard_normal(positions.shape)
        way = rng.standard_normal(positions.shape)
        ends = [energy.CalcEnergy((shaken + sign * step * way).ravel().tolist()) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step) * units.kcal / units.mol
        assert (gradient(shaken) * way).sum() == pytest.approx(slope, rel=1e-5)


def test_dynamics_have_the_temperature_that_is_asked_for(geometry, rng):
    """A harmonic oscillator at 300 K has <k x²> = kT in each direction."""
    stiffness, numbers = 5.0, np.full(200, 6)
    positions = geometry.dynamics(
        numbers, np.zeros((200, 3)), lambda pos: stiffness * pos, 300.0, steps=400, rng=rng
    )
    assert stiffness * positions.var() == pytest.approx(units.kB * 300, rel=0.2)  # 600 values: ± 6 %


def test_dynamics_that_explode_yield_nothing(geometry, rng):
    assert geometry.dynamics(np.array([6]), np.ones((1, 3)), lambda pos: 1e6 * pos, 300.0, 5, rng) is None


def test_a_torsion_keeps_bonds_and_angles(geometry, rng):
    mol = geometry.embed("CCO", rng, 1)
    before = mol.GetConformer().GetPositions()
    after = geometry.rotate(mol, before, geometry.rotatable_bonds(mol)[0], 77.0)
    near = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    angles = [(0, 2)]
    for first, second in near + angles:
        assert distances(after)[first, second] == pytest.approx(distances(before)[first, second], abs=1e-6)
    assert np.abs(distances(after) - distances(before)).max() > 0.1


@pytest.mark.parametrize(("smiles", "in_ring"), [("CCO", False), ("C1CC1", True)])
def test_a_stretched_bond_has_its_new_length(smiles, in_ring, geometry, rng):
    mol = geometry.embed(smiles, rng, 1)
    before, bond = mol.GetConformer().GetPositions(), mol.GetBondBetweenAtoms(0, 1)
    assert bond.IsInRing() == in_ring
    after = geometry.stretch(mol, before, bond, 1.4)
    assert distances(after)[0, 1] == pytest.approx(1.4 * distances(before)[0, 1], abs=1e-9)
    if not in_ring:  # C–O moves as a whole
        assert distances(after)[1, 2] == pytest.approx(distances(before)[1, 2], abs=1e-9)


def test_a_dimer_has_two_molecules_at_the_range_of_contacts(geometry, rng):
    mol = geometry.embed("CCO", rng, 1)
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    for _ in range(5):
        both = geometry.dimer(numbers, mol.GetConformer().GetPositions(), rng)
        radii = covalent_radii[both.numbers]
        gaps = distances(both.positions)[:9, 9:] / (radii[:9, None] + radii[None, 9:])
        assert 0.9 - 1e-3 < gaps.min() < 2.6 + 1e-3


def test_overlapping_atoms_are_found(geometry):
    near = np.array([[0.0, 0, 0], [0.5, 0, 0]])
    carbon = np.array([6, 6])
    assert geometry.overlaps(geometry.Geometry("bond", carbon, near))
    assert not geometry.overlaps(geometry.Geometry("bond", carbon, 3 * near))


class Fake:
    """A teacher of Lennard-Jones atoms, which fails at hydrogen peroxide."""

    name = "fake"

    def __init__(self, scale=1.0):
        self.scale = scale

    def calculator(self):
        return LennardJones(sigma=1.0, epsilon=0.1 * self.scale, rc=10)

    def label(self, numbers, positions):
        if sorted(numbers) == [1, 1, 8, 8]:
            raise CalculationFailed("not converged")
        atoms = Atoms(numbers, positions, calculator=self.calculator())
        return {
            "energy": np.array(atoms.get_potential_energy()),
            "forces": atoms.get_forces().astype(np.float32),
            "charges": np.zeros(len(numbers), dtype=np.float32),
            "dipole": np.float32(0.0),
        }


def test_frames_that_are_left_out_are_counted_by_reason(script, geometry):
    frames = script.Frames(Fake(scale=1e3))
    numbers, near = np.array([6, 6]), np.array([[0.0, 0, 0], [1.0, 0, 0]])
    frames.add(geometry.Geometry("bond", numbers, 0.3 * near), 0)
    frames.add(geometry.Geometry("bond", numbers, near), 0)  # 2400 eV/Å
    frames.add(geometry.Geometry("bond", numbers, 5 * near), 0)
    frames.add(geometry.Geometry("conformer", molecule("H2O2").numbers, molecule("H2O2").positions), 1)
    assert frames.left_out == {"overlap": 1, "large force": 1, "not converged": 1}
    assert len(frames.rows) == 1


def test_labels_belong_to_the_positions_that_are_stored(script, geometry, rng):
    frames = script.Frames(Fake())
    water = molecule("H2O")
    frames.add(geometry.Geometry("bond", water.numbers, water.positions + rng.random((3, 3)) / 7), 0)
    again = Fake().label(water.numbers, frames.arrays()["positions"].astype(float))
    assert frames.arrays()["energy"][0] == again["energy"]


@pytest.fixture
def make(script, monkeypatch, tmp_path):
    """Run the script in a folder, with a fake teacher and one molecule a shard."""
    monkeypatch.setattr(script, "Teacher", Fake)
    monkeypatch.setattr(script, "read_qm9", lambda: QM9)
    monkeypatch.setattr(script.importlib.metadata, "version", lambda name: "1.2.3")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_frames.py", str(tmp_path), "--molecules", "1", *arguments])
        script.main()
        return sorted((tmp_path / "train").glob("*.npz"))

    return run


def test_shards_are_read_as_a_data_set(make, tmp_path):
    make("--shards", "2")
    data = AtomsDataset(path=tmp_path / "train", units="eV")
    counts = []
    for path in sorted((tmp_path / "train").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            counts.append(len(file["energy"]))
            assert len(file["smiles"]) == 1
    assert len(data) == sum(counts)
    assert data[0].forces.shape == data[0].pos.shape


def test_missing_shards_are_made_and_others_left_alone(make):
    first = make("--shards", "2")
    content = [path.read_bytes() for path in first]
    first[0].unlink()
    assert [path.read_bytes() for path in make("--shards", "2")] == content  # the same bytes again
    assert len(make("--shards", "3")) == 3


def test_the_sample_is_read_and_holds_validation_molecules(molecules):
    sample = FOLDER / "sample.npz"
    data = AtomsDataset(path=sample, units="eV")
    assert len(data) == 247
    assert data[0].pos.shape == data[0].forces.shape
    with np.load(sample, allow_pickle=False) as file:
        assert {molecules.fold_of(smiles) for smiles in file["smiles"].tolist()} == {"validation"}
        assert np.linalg.norm(file["forces"], axis=1).max() < 30


def test_a_folder_of_another_seed_is_refused(make):
    make("--shards", "1")
    with pytest.raises(SystemExit, match=r'was made with .*"seed": 23.* not .*"seed": 24.*another folder'):
        make("--shards", "1", "--seed", "24")


def test_a_pool_is_written_and_labeled(make, tmp_path):
    make("--shards", "1", "--unlabeled")
    pool = tmp_path / "train.xyz"
    (tmp_path / "train" / "00000.npz").unlink()
    labeled = make("--label", str(pool))
    with np.load(labeled[0], allow_pickle=False) as file:
        left_out = sum(json.loads(str(file["left_out"])).values())
        assert len(file["energy"]) + left_out == pool.read_text().count("Properties=")


def test_a_folder_is_described_by_kinds_and_elements(make, capsys):
    make("--shards", "1")
    capsys.readouterr()
    make("--describe")
    text = capsys.readouterr().out
    assert "of 1 molecules in 1 shards" in text
    assert "dynamics " in text
    assert "C: " in text


@pytest.fixture(scope="module")
def teacher(script):
    # tblite shares PyTorch's OpenMP threads, which wait for each other on a busy machine
    pytest.importorskip("tblite.ase", reason="tblite is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield script.Teacher()
    torch.set_num_threads(threads)


@pytest.mark.process
def test_forces_are_minus_the_gradient_of_the_energy(teacher, rng):
    water, step = molecule("H2O"), 2e-4  # Å
    positions = water.positions + 0.05 * rng.standard_normal((3, 3))
    way = rng.standard_normal((3, 3))
    ends = [teacher.label(water.numbers, positions + sign * step * way)["energy"] for sign in (1, -1)]
    forces = teacher.label(water.numbers, positions)["forces"]
    assert (forces * way).sum() == pytest.approx(-(ends[0] - ends[1]) / (2 * step), abs=5e-4)


def test_frames_of_other_elements_are_not_compared(script, tmp_path):
    compare = load("compare_teachers")  # torchani is imported when ANI is needed
    (tmp_path / "00000.npz").write_bytes((FOLDER / "sample.npz").read_bytes())
    frames = list(compare.frames_of(tmp_path, 300))
    assert 100 < len(frames) < 247
    assert all(np.isin(numbers, [1, 6, 7, 8]).all() for _, numbers, _, _ in frames)
    assert len(list(compare.frames_of(tmp_path, 20))) == 20


@pytest.mark.process
def test_the_sample_has_the_teacher_s_labels(teacher):
    with np.load(FOLDER / "sample.npz", allow_pickle=False) as file:
        for frame in (0, 100, 246):
            start = file["n_atoms"][:frame].sum()
            atoms = slice(start, start + file["n_atoms"][frame])
            labels = teacher.label(file["numbers"][atoms], file["positions"][atoms].astype(float))
            assert labels["energy"] == pytest.approx(file["energy"][frame], abs=1e-6)
            np.testing.assert_allclose(labels["forces"], file["forces"][atoms], atol=1e-4)
            np.testing.assert_allclose(labels["charges"], file["charges"][atoms], atol=1e-3)


@pytest.mark.process
def test_charges_sum_to_zero_and_water_s_dipole_is_right(teacher):
    water = molecule("H2O")
    labels = teacher.label(water.numbers, water.positions)
    assert labels["charges"].sum() == pytest.approx(0, abs=1e-5)
    assert labels["charges"][0] < -0.4
    assert labels["dipole"] == pytest.approx(2.2, abs=0.2)  # D; GFN2 is too high, experiment has 1.85


@pytest.mark.process
def test_water_has_three_vibrations_and_no_more(teacher):
    comparison = load("comparison")
    water = molecule("H2O")
    water.calc = teacher.calculator()
    from ase.optimize import LBFGS

    LBFGS(water, logfile=None).run(fmax=0.001)
    found = comparison.frequencies(water, teacher.calculator())
    assert found == pytest.approx([1539, 3643, 3651], abs=3)  # cm⁻¹, of GFN2-xTB; experiment 1595, 3657, 3756


def test_a_rotated_molecule_has_no_distance_and_a_mirror_image_has():
    comparison = load("comparison")
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    assert comparison.rmsd(first, first @ turn + 1.0) == pytest.approx(0, abs=1e-6)
    assert comparison.rmsd(first, first * [1, 1, -1]) > 0.1
