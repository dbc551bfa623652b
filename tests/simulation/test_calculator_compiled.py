"""A calculator that compiles its potential."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.fd import calculate_numerical_stress

from pyg_schnet import Potential, SchNet
from pyg_schnet.nn import AtomicMean
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation import calculator as calculators


@pytest.fixture
def potential(randomize):
    small = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}
    return Potential(randomize(SchNet.paper(**small, zero_output=False).double()).float()).eval()


def shaken(atoms, seed):
    moved = atoms.copy()
    moved.positions += 0.05 * np.random.default_rng(seed).normal(size=moved.positions.shape)
    return moved


# 1e-5, here and below: STYLE's bound for float32.
def test_results_are_those_of_the_potential(potential):
    atoms = molecule("CH3CH2OH")
    compiled = SchNetCalculator(potential, compile=True)
    eager = SchNetCalculator(potential, compile=False)
    for seed in range(3):
        moved = shaken(atoms, seed)
        expected = eager.get_forces(moved)
        np.testing.assert_allclose(compiled.get_forces(moved), expected, atol=1e-5 * np.abs(expected).max())
        assert compiled.get_potential_energy(moved) == pytest.approx(
            eager.get_potential_energy(moved), rel=1e-5
        )
    assert compiled.potential.why_eager() is None
    assert eager.potential.compiled is None


# Eager and compiled, a network in float32 has the stress that ASE finds by differences in float64.
@pytest.mark.parametrize("compile", [True, False])
def test_stress_in_float32_is_the_numerical_one_in_float64(randomize, compile):
    model = SchNet(hidden_channels=16, num_filters=16, num_interactions=2, num_gaussians=12, cutoff=4.0)
    potential = Potential(randomize(model.double(), seed=1)).eval()
    atoms = bulk("C", "diamond", a=3.6)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.03, 0], [0, 0.99, 0.01], [0, 0.02, 1.01]], scale_atoms=True)
    atoms.positions[0] += [0.1, -0.05, 0.03]
    atoms.calc = SchNetCalculator(potential, dtype=torch.float32, compile=compile)
    stress = atoms.get_stress()
    atoms.calc = SchNetCalculator(potential)
    numerical = calculate_numerical_stress(atoms)
    assert np.abs(stress - numerical).max() < 1e-5 * np.abs(numerical).max()


def test_it_compiles_after_some_evaluations(potential, monkeypatch):
    monkeypatch.setattr(calculators, "_EVALUATIONS_TO_COMPILE_AFTER", 2)
    calculator = SchNetCalculator(potential)
    seen = []
    for seed in range(4):
        calculator.get_forces(shaken(molecule("H2O"), seed))
        seen.append(calculator.potential.compiled is not None)
    assert seen == [False, False, True, True]


def test_another_molecule_may_follow(potential):
    calculator = SchNetCalculator(potential, compile=True)
    for name in ("H2O", "CH3CH2OH", "H2O"):
        atoms = molecule(name)
        expected = SchNetCalculator(potential, compile=False).get_forces(atoms)
        np.testing.assert_allclose(calculator.get_forces(atoms), expected, atol=1e-5 * np.abs(expected).max())


def test_atoms_of_another_kind_at_the_same_places_are_noticed(potential):
    calculator = SchNetCalculator(potential, compile=True)
    atoms = molecule("CO")
    before = calculator.get_potential_energy(atoms)
    atoms.numbers = [7, 8]
    assert calculator.get_potential_energy(atoms) != before


def test_results_of_one_step_are_not_changed_by_the_next(potential):
    calculator = SchNetCalculator(potential, compile=True)
    first = calculator.get_forces(shaken(molecule("H2O"), 0))
    kept = first.copy()
    calculator.get_forces(shaken(molecule("H2O"), 1))
    np.testing.assert_array_equal(first, kept)


def test_the_callers_potential_is_not_compiled(potential):
    calculator = SchNetCalculator(potential, compile=True)
    calculator.get_forces(molecule("H2O"))
    assert potential.compiled is None


def test_another_word_for_compile_is_refused(potential):
    with pytest.raises(ValueError, match=r"^`compile`.*'auto'.*'yes'"):
        SchNetCalculator(potential, compile="yes")


def test_positions_enter_in_double_precision(potential):
    calculator = SchNetCalculator(potential, compile=True)
    atoms = molecule("H2O")
    far = atoms.copy()
    far.positions += 1000.0
    # Differences of positions are taken in float64; 1e-6 of the force is left of float32's network.
    expected = calculator.get_forces(atoms)
    np.testing.assert_allclose(calculator.get_forces(far), expected, atol=1e-5 * np.abs(expected).max())
    assert expected.dtype == np.float64
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("change", ["weights", "readout", "setting"])
def test_what_is_put_into_its_potential_counts_from_the_next_evaluation_on(potential, change):
    calculator = SchNetCalculator(potential, compile=True)
    atoms = molecule("H2O")
    calculator.get_forces(atoms)
    own = calculator.potential
    if change == "weights":
        own.load_state_dict({n: 0.5 * v if v.is_floating_point() else v for n, v in own.state_dict().items()})
    elif change == "readout":
        own.model.readout = AtomicMean(own.model.readout.network)
    else:
        own.model.readout.std = 2.0
    eager = copy.deepcopy(own)
    eager.compiled = None
    expected = SchNetCalculator(eager, compile=False).get_forces(shaken(atoms, 1))
    found = calculator.get_forces(shaken(atoms, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_calculators_of_one_band_make_programs_once(randomize):
    model = SchNet(8, 12, 1, 16, 4.5)  # of a structure that no other test has
    potential, seconds = Potential(randomize(model.double()).float()).eval(), []
    kept = [SchNetCalculator(potential, compile=True) for _ in range(3)]
    for calculator in kept:
        calculator.get_forces(molecule("CH3CH2OH"))
        seconds.append(calculator.potential.compiled.seconds)
    assert seconds[0] > 0
    assert seconds[1:] == [0, 0]
