import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.io import read

from pyg_schnet.simulation import relax


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
        ({"fmax": 0.0}, "`fmax` must be positive and in eV/Å, got 0.0"),
        ({"fmax": float("nan")}, "`fmax` must be positive and in eV/Å, got nan"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"optimizer": "Adam"}, "`optimizer` must be one of BFGS, LBFGS, FIRE; got 'Adam'"),
    ],
)
def test_arguments_out_of_range_are_refused(molecule, options, message):
    with pytest.raises(ValueError, match=message):
        relax(molecule, **options)


def test_atoms_without_a_calculator_are_refused(ethanol):
    with pytest.raises(ValueError, match=r"`atoms.calc` must be set, got None; .* SchNetCalculator"):
        relax(ethanol)


def test_a_list_of_atoms_is_refused(molecule):
    with pytest.raises(TypeError, match=r"`atoms` must be one ase.Atoms, got list"):
        relax([molecule])


def test_forces_that_are_not_numbers_stop_the_search(ethanol, springs):
    class Broken(springs):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            if self.calls == 3:
                self.results["forces"][0] = np.nan

    calculator = Broken(ethanol)
    ethanol.rattle(0.05, seed=3)
    ethanol.calc = calculator
    with pytest.raises(RuntimeError, match=r"energy and forces must be finite, got .* at step 2"):
        relax(ethanol, fmax=1e-8)
