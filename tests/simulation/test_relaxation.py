import copy

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from ase.units import GPa

from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation import SchNetCalculator, StructureError, relax, relax_batched, relax_stream


@pytest.fixture
def molecule(ethanol, calculator):
    ethanol.calc = calculator
    return ethanol


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "FIRE"])
def test_springs_come_to_rest(ethanol, springs, optimizer):
    calculator = springs(ethanol)
    ethanol.rattle(0.05, seed=3)
    ethanol.calc = calculator
    result = relax(ethanol, fmax=1e-4, optimizer=optimizer)
    assert result.converged
    assert result.energy == pytest.approx(0, abs=1e-8)


def test_forces_vanish_at_a_minimum(molecule):
    result = relax(molecule, fmax=1e-3, steps=1000)
    assert result.converged
    assert result.fmax < 1e-3
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == result.fmax
    assert result.energy == result.atoms.get_potential_energy() < molecule.get_potential_energy()


def test_running_out_of_steps_is_told(molecule):
    result = relax(molecule, steps=1)
    assert not result.converged
    assert result.steps == 1
    assert result.fmax > 0.01


def test_a_minimum_needs_no_step(molecule):
    result = relax(molecule, fmax=1e3)
    assert result.converged
    assert result.steps == 0
    assert (result.atoms.positions == molecule.positions).all()


def test_the_callers_atoms_stay(molecule, calculator):
    before = molecule.copy()
    result = relax(molecule, steps=5)
    assert molecule == before
    assert molecule.calc is calculator
    assert result.atoms.calc is not calculator


def test_fixed_atoms_stay_and_do_not_count(molecule):
    molecule.set_constraint(FixAtoms([0, 3, 5]))
    result = relax(molecule, fmax=0.01)
    assert (result.atoms.positions[[0, 3, 5]] == molecule.positions[[0, 3, 5]]).all()
    assert result.converged
    assert result.fmax < 0.01
    raw = result.atoms.get_forces(apply_constraint=False)
    assert np.linalg.norm(raw, axis=1).max() > 0.01


def test_the_trajectory_holds_all_steps(molecule, tmp_path):
    result = relax(molecule, steps=4, trajectory=tmp_path / "path.traj")
    frames = read(result.trajectory, ":")
    assert [frame.info["step"] for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].get_potential_energy() == molecule.get_potential_energy()
    assert frames[-1].get_potential_energy() == result.energy


def test_an_existing_file_is_refused_before_work(molecule, evaluations, tmp_path):
    (tmp_path / "path.traj").touch()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        relax(molecule, trajectory=tmp_path / "path.traj")
    assert len(evaluations) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmax": 0.0}, "`fmax`.*positive.*eV/Å.*0.0"),
        ({"fmax": float("nan")}, "`fmax`.*positive.*eV/Å.*nan"),
        ({"steps": 0}, "`steps`.*at least 1.*0"),
        ({"pressure": 1.0}, r"`pressure`.*1.0.*`cell`.*\(--cell\)"),
        ({"pressure": float("nan"), "cell": True}, "`pressure`.*finite.*nan"),
        ({"optimizer": "Adam"}, "`optimizer`.*'Adam'"),
    ],
)
def test_arguments_out_of_range_are_refused(molecule, options, message):
    with pytest.raises(ValueError, match=message):
        relax(molecule, **options)


def test_atoms_without_a_calculator_are_refused(ethanol):
    with pytest.raises(ValueError, match=r"`atoms.calc`"):
        relax(ethanol)


def test_a_list_of_atoms_is_refused(molecule):
    with pytest.raises(TypeError, match=r"`atoms`.*ase.Atoms"):
        relax([molecule])


def not_numbers(calculator):
    calculator.results["forces"][0] = np.nan


def hole(calculator):
    calculator.results["energy"] -= 1000


def refusal(calculator):
    raise ValueError("`pos` must not place two atoms at one point")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (not_numbers, "energy and forces must be finite"),
        (hole, "its energy fell by 111 eV"),
        (refusal, "two atoms at one point"),
    ],
)
def test_a_search_that_fails_ends_with_its_last_good_frame(ethanol, springs, spoil, reason, tmp_path):
    class Broken(springs):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            if self.calls >= 3:
                spoil(self)

    calculator = Broken(ethanol)
    ethanol.rattle(0.05, seed=3)
    ethanol.calc = calculator
    ethanol.info["step"] = "mine"
    result = relax(ethanol, fmax=1e-8, trajectory=tmp_path / "path.traj")
    assert not result.converged
    assert reason in result.stopped
    assert result.steps == 1
    frames = read(tmp_path / "path.traj", ":")
    assert len(frames) == 2
    assert np.isfinite(result.atoms.get_forces()).all()
    assert np.abs(result.atoms.positions - frames[1].positions).max() == 0
    assert result.atoms.info == {"step": "mine"}


def test_a_start_that_is_refused_is_the_callers_mistake(molecule):
    molecule.positions[1] = molecule.positions[0]
    with pytest.raises(ValueError, match=r"atoms.*point"):
        relax(molecule)


@pytest.fixture(scope="module")
def lennard_jones():
    return LennardJones(sigma=2.5, epsilon=0.1, rc=8.0, smooth=True)


def test_a_cell_relaxes_to_where_the_stress_is_the_pressure(lennard_jones):
    atoms = bulk("Ar", "fcc", a=3.7)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.02 * np.diag([1, 0, -1])), scale_atoms=True)
    atoms.calc = lennard_jones
    free = relax(atoms, fmax=1e-4, cell=True)
    assert free.converged
    assert np.abs(free.atoms.get_stress()).max() < 1e-4
    pressed = relax(atoms, fmax=1e-4, cell=True, pressure=2.0)
    expected = [-2 * GPa] * 3 + [0] * 3
    assert np.abs(pressed.atoms.get_stress() - expected).max() < 1e-4
    assert pressed.atoms.cell.volume < free.atoms.cell.volume
    fixed = relax(atoms, fmax=1e-4)
    assert (fixed.atoms.cell == atoms.cell).all()


def test_a_molecule_has_no_cell_to_relax(molecule):
    with pytest.raises(ValueError, match=r"`cell`.*periodic.*\[False"):
        relax(molecule, cell=True)


def test_each_step_is_told(molecule):
    told = []
    relax(molecule, steps=3, on_step=lambda step, frame: told.append((step, frame.get_potential_energy())))
    assert [step for step, _ in told] == [0, 1, 2, 3]
    assert told[3][1] < told[0][1]


@pytest.fixture
def known(potential):
    """Return the potential as if it had been trained on ordinary ethanol."""
    own = copy.deepcopy(potential)
    pairs = {(1, 1): 1.4, (1, 6): 1.0, (1, 8): 0.9, (6, 6): 1.4, (6, 8): 1.3}
    own.domain = TrainingDomain(pairs)
    return own


def collapsed(ethanol):
    """Return ethanol with a hydrogen 0.6 Å from its carbon: no minimum of any molecule."""
    closer = ethanol.copy()
    hydrogen, carbon = 3, int(ethanol.get_distances(3, [0, 1]).argmin())
    closer.set_distance(carbon, hydrogen, 0.6, fix=0)
    return closer


def test_a_minimum_beyond_what_the_potential_knows_is_not_converged(known, ethanol):
    """With this bound on forces each structure is at rest."""
    calculator = SchNetCalculator(known)
    ethanol.calc = calculator
    assert relax(ethanol, fmax=1e3).converged
    closer = collapsed(ethanol)
    closer.calc = calculator
    alone = relax(closer, fmax=1e3)
    beside = relax_batched(known, [ethanol, closer], fmax=1e3)
    assert [result.converged for result in (alone, *beside)] == [False, True, False]
    for result in (alone, beside[1]):
        assert "0.600 Å apart" in result.stopped


def stretched(ethanol):
    """Return ethanol whose carbons are three times as far from each other."""
    apart = ethanol.copy()
    oxygen = int(apart.symbols.search("O")[0])
    inner, outer = sorted((0, 1), key=lambda carbon: apart.get_distance(oxygen, carbon))
    methyl = apart.get_all_distances()[outer] < 1.4
    apart.positions[methyl] += 2 * (apart.positions[outer] - apart.positions[inner])
    return apart


@pytest.mark.parametrize("separation", [1.2, None])
def test_fragments_are_no_minimum(known, ethanol, separation):
    """With this bound on forces each structure is at rest."""
    known.domain = TrainingDomain(known.domain.shortest, separation=separation)
    apart = stretched(ethanol)
    apart.calc = SchNetCalculator(known)
    alone = relax(apart, fmax=1e3)
    beside = relax_batched(known, [ethanol, apart], fmax=1e3)
    assert [result.converged for result in (alone, *beside)] == [False, True, False]
    assert beside[0].start_outside is None
    for result in (alone, beside[1]):
        assert "in 2 fragments" in result.stopped
        assert "in 2 fragments" in result.start_outside
        assert result.steps == 0


def test_a_start_outside_of_the_training_is_relaxed(springs, ethanol, known):
    calculator = springs(ethanol, stiffness=0.1)
    calculator.potential = known
    apart = stretched(ethanol)
    apart.calc = calculator
    result = relax(apart, fmax=1e-3)
    assert result.converged
    assert "in 2 fragments" in result.start_outside


def test_starts_are_looked_at_in_the_order_of_a_stream(known, ethanol):
    known.domain = TrainingDomain(known.domain.shortest, separation=1.2)
    stream = [ethanol, stretched(ethanol), ethanol, collapsed(ethanol)]
    results = list(relax_stream(known, stream, fmax=1e3, max_pairs=1))
    assert [result.start_outside is None for result in results] == [True, False, True, False]


def test_atoms_that_overlap_are_refused(known):
    atoms = Atoms("OH2", [[0, 0, 0], [0, 0, 0.01], [0, 1, 0]], calculator=SchNetCalculator(known))
    with pytest.raises(ValueError, match="must not overlap"):
        relax(atoms)
    with pytest.raises(StructureError, match="must not overlap"):
        relax_batched(known, [atoms])
    refused = []
    assert list(relax_stream(known, [atoms], on_refused=refused.append)) == []
    assert [error.number for error in refused] == [0]
