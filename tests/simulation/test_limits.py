"""Tests that a run stops when it leaves the training domain of its potential."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation import SchNetCalculator, run_md
from pyg_schnet.simulation.limits import Limits


@pytest.fixture
def spring_molecule(ethanol, springs):
    """Springs of a potential that was trained on distances of the relaxed molecule, less 5 %."""

    class Trained(springs):
        class potential:
            domain = None

    ethanol.calc = Trained(ethanol, stiffness=0.5)
    near = {}
    for i, j in zip(*np.triu_indices(9, 1), strict=True):
        pair = tuple(sorted(map(int, ethanol.numbers[[i, j]])))
        near[pair] = min(near.get(pair, 9.0), 0.95 * ethanol.get_distance(i, j))
    ethanol.calc.potential.domain = TrainingDomain(near, largest_force=1.0)
    return ethanol


def test_a_distance_shorter_than_in_training_ends_the_run(spring_molecule, tmp_path):
    path = tmp_path / "run.traj"
    result = run_md(spring_molecule, temperature=2000, duration=1.0, trajectory=path, interval=4)
    found = re.fullmatch(
        r"at step (\d+) atoms (\d) and (\d) \(atomic numbers \d and \d\) are \d\.\d{3} Å apart; the shortest "
        r"such distance in training was (\d\.\d{3}) Å, and 0\.9 of it is allowed",
        result.stopped,
    )
    assert found, result.stopped
    step, i, j = (int(found[k]) for k in (1, 2, 3))
    assert result.steps == result.atoms.info["step"] == step - 1
    frames = read(path, ":")
    assert frames[-1].info["step"] == step - 1
    assert result.atoms.get_distance(i, j) >= 0.9 * float(found[4]) - 1e-3
    assert np.abs(frames[-1].positions - result.atoms.positions).max() == 0


def test_distances_are_allowed_by_hand(spring_molecule):
    options = {"temperature": 2000, "duration": 0.02, "max_force": None}
    assert run_md(spring_molecule, closest=None, **options).stopped is None
    assert run_md(spring_molecule, closest=0.3, **options).stopped is None


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (0.2, r"at step \d+ the force on atom \d is 0\.2\d* eV/Å, more than 0\.2$"),
        (
            "auto",
            r"at step \d+ the force on atom \d is 0\.\d+ eV/Å, more than 0\.15, 3 times the longest in",
        ),
    ],
)
def test_a_force_beyond_a_limit_ends_the_run(spring_molecule, limit, message):
    spring_molecule.calc.potential.domain = TrainingDomain({}, largest_force=0.05)
    result = run_md(spring_molecule, temperature=1000, duration=1.0, max_force=limit)
    assert re.match(message, result.stopped), result.stopped
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() <= (0.15 if limit == "auto" else limit)


def test_a_start_outside_is_refused_before_work(spring_molecule, tmp_path):
    spring_molecule.positions[8] = spring_molecule.positions[7] + [0.3, 0, 0]
    with pytest.raises(ValueError, match=r"`atoms`.*potential.*atoms.*7"):
        run_md(spring_molecule, trajectory=tmp_path / "run.traj", max_force=None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"force.*atom.*\d.*structure"):
        run_md(spring_molecule, max_force=0.1)


def test_an_equilibration_that_leaves_is_an_error(spring_molecule, tmp_path):
    with pytest.raises(RuntimeError, match=r"step.*\d+.*atoms"):
        run_md(
            spring_molecule,
            temperature=3000,
            equilibration=1.0,
            friction=0.1,
            trajectory=tmp_path / "run.traj",
        )
    assert len(read(tmp_path / "run.traj", ":")) == 1


def test_without_a_domain_there_is_no_limit(ethanol, calculator):
    ethanol.calc = calculator
    assert calculator.potential.domain is None
    ethanol.positions[8] = ethanol.positions[7] + [0.2, 0, 0]
    assert run_md(ethanol, duration=0.001, temperature=1).stopped is None


def test_the_domain_of_a_potential_reaches_its_calculator(potential, ethanol):
    potential.domain = TrainingDomain({(a, b): 1.5 for a in (1, 6, 8) for b in (1, 6, 8) if a <= b})
    try:
        ethanol.calc = SchNetCalculator(potential)
    finally:
        potential.domain = None
    with pytest.raises(ValueError, match=r"\(atomic numbers . and .\).*training.*1\.500"):
        run_md(ethanol)


def test_a_foreign_element_is_named(ethanol, calculator):
    ethanol.numbers[0] = 16
    ethanol.calc = calculator
    with pytest.raises(ValueError, match=r"`z`.*16.*absent.*training"):
        run_md(ethanol)


@pytest.mark.parametrize("number", [0, 105])
def test_an_element_beyond_the_table_is_named(spring_molecule, number):
    spring_molecule.numbers[0] = number
    with pytest.raises(ValueError, match=rf"`z`.*{number}.*numbers.*1.*99"):
        run_md(spring_molecule)


@pytest.mark.parametrize("system", ["molecule", "large", "crystal", "strained"])
def test_distances_that_are_not_looked_at_could_not_be_too_short(system):
    rng = np.random.default_rng(0)
    if system in ("molecule", "large"):
        atoms = bulk("Si", cubic=True).repeat(1 if system == "molecule" else (3, 3, 2))
        atoms.pbc = False
    else:
        atoms = bulk("Si", cubic=True).repeat(2)
    domain = TrainingDomain({(14, 14): 2.2})
    limits = Limits(_with_domain(atoms, domain), 0.9, None)
    seen = 0
    for step in range(60):
        atoms.positions += rng.normal(size=(len(atoms), 3)) * 0.02
        if system == "strained":
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.002 * rng.normal(size=(3, 3))), scale_atoms=True)
        shortest = _shortest(atoms)
        told = limits.violation(_with_domain(atoms, domain))
        assert (told is not None) == (shortest < 0.9 * 2.2), step
        seen += told is not None
    assert seen > 5
    assert limits.distance_checks < 55


def _shortest(atoms: Atoms) -> float:
    return float(atoms.get_all_distances(mic=True)[~np.eye(len(atoms), dtype=bool)].min())


def _with_domain(atoms, domain):
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=0.0, forces=np.zeros((len(frame), 3)))
    frame.calc.potential = type("Known", (), {"domain": domain})
    return frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"closest": 0.0}, r"`closest`.*positive.*distance.*training.*0\.0"),
        ({"max_force": -1.0}, r"`max_force`.*positive.*eV/Å.*-1\.0"),
        ({"max_force": "much"}, r"`max_force`.*'auto'.*\(null\).*force.*eV/Å.*'much'"),
    ],
)
def test_limits_out_of_range_are_refused(spring_molecule, options, message):
    with pytest.raises(ValueError, match=message):
        run_md(spring_molecule, **options)
