"""TorchSim moves systems by the energies, forces and stresses of ASE's calculator."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from pyg_schnet import Potential, SchNet
from pyg_schnet.simulation import SchNetCalculator, SchNetModel
from pyg_schnet.simulation.engines import torchsim
from pyg_schnet.simulation.statistics import fit_drift

CPU = torch.device("cpu")


@pytest.fixture
def ts():
    return pytest.importorskip("torch_sim", reason="needs TorchSim: pip install 'pyg-schnet[torchsim]'")


@pytest.fixture
def any_element(potential):
    known = copy.deepcopy(potential)
    known.allowed[:] = True
    return known


@pytest.fixture
def crystals():
    """Two crystals of different sizes and cells, one smaller than the cutoff."""
    sheared = bulk("Si", cubic=True)
    sheared.set_cell(sheared.cell.array @ [[1, 0, 0], [0.2, 1.02, 0], [-0.1, 0.1, 0.98]], scale_atoms=True)
    structures = [sheared, bulk("Cu")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    return structures


@pytest.fixture
def molecules():
    structures = [molecule(name) for name in ("H2O", "CH3OH", "NH3", "CH4")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    return structures


def assert_equal_to_ase(ts, model, potential, structures, stress):
    state = ts.io.atoms_to_state(structures, CPU, torch.float64)
    out = model(state)
    for number, atoms in enumerate(structures):
        expected = atoms.copy()
        expected.calc = SchNetCalculator(potential)
        own = state.system_idx == number
        assert out["energy"][number].item() == pytest.approx(expected.get_potential_energy(), abs=1e-8)
        assert np.abs(out["forces"][own].numpy() - expected.get_forces()).max() < 1e-9
        if stress:
            difference = out["stress"][number].numpy() - expected.get_stress(voigt=False)
            assert np.abs(difference).max() < 1e-10


def test_torchsims_validator_accepts_the_model(ts, any_element):
    from torch_sim.models.interface import validate_model_outputs

    validate_model_outputs(SchNetModel(any_element), CPU, torch.float64)


# Measured 0; 1e-5 is the bound of all engines.
def test_results_of_crystals_and_molecules_are_ases(ts, any_element, crystals, molecules):
    model = SchNetModel(any_element)
    assert_equal_to_ase(ts, model, any_element, crystals, stress=True)
    assert_equal_to_ase(ts, model, any_element, molecules, stress=False)


def test_results_are_ases_when_systems_change_places_and_move_beyond_the_skin(ts, any_element, crystals):
    model = SchNetModel(any_element, skin=0.3)
    assert_equal_to_ase(ts, model, any_element, crystals, stress=True)
    assert_equal_to_ase(ts, model, any_element, crystals[::-1], stress=True)
    for atoms in crystals:
        atoms.rattle(0.3, seed=7)
    assert_equal_to_ase(ts, model, any_element, crystals[::-1], stress=True)


# Positions that hardly differ, with the same number of atoms, in other molecules.
def test_neighbors_follow_the_division_into_systems(ts, potential):
    line = np.outer(np.arange(4), [1.5, 0, 0])
    model = SchNetModel(potential)
    for sizes in ((2, 2), (1, 3)):
        parts = np.split(line, [sizes[0]])
        structures = [Atoms("C" * size, part) for size, part in zip(sizes, parts, strict=True)]
        assert_equal_to_ase(ts, model, potential, structures, stress=False)


def test_energy_is_conserved(ts, potential, molecules):
    model = SchNetModel(potential, compile=True)
    total = []
    state = ts.io.atoms_to_state(molecules, CPU, torch.float64)
    start, step = ts.nve(
        model=model, dt=torch.tensor(0.0005 * ts.units.MetalUnits.time), kT=torch.tensor(0.02)
    )
    state = start(state, seed=1)
    for _ in range(30):
        for _ in range(10):
            state = step(state)
        kinetic = ts.calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        total.append((state.energy + kinetic).numpy())
    for energies, atoms in zip(np.transpose(total), molecules, strict=True):
        drift, fluctuation = fit_drift(energies, 5.0, len(atoms))
        assert abs(drift) < 0.2
        assert fluctuation < 1.0


# Springs of a random network: what matters is that cell and positions move downhill to zero stress.
def test_cells_are_relaxed_to_zero_pressure(ts, any_element, crystals):
    model = SchNetModel(any_element)
    before = model(ts.io.atoms_to_state(crystals, CPU, torch.float64))
    converged = ts.generate_force_convergence_fn(0.01, include_cell_forces=True)
    state = ts.optimize(
        system=crystals,
        model=model,
        optimizer=ts.frechet_cell_fire,
        convergence_fn=converged,
        max_steps=400,
    )
    assert bool((state.energy < before["energy"]).all())
    for atoms in state.to_atoms():
        atoms.calc = SchNetCalculator(any_element)
        assert np.abs(atoms.get_stress()).max() * atoms.get_volume() < 0.1
        assert np.abs(atoms.get_forces()).max() < 0.02


def test_batches_of_systems_that_come_and_go_end_where_each_ends_alone(ts, potential, molecules):
    converged = ts.generate_force_convergence_fn(0.05, include_cell_forces=False)
    options = {"optimizer": ts.optimizers.fire, "convergence_fn": converged, "max_steps": 2000}
    model = SchNetModel(potential)
    few = ts.InFlightAutoBatcher(model, memory_scales_with="n_atoms", max_memory_scaler=12)
    together = ts.optimize(system=molecules, model=model, autobatcher=few, **options)
    alone = [ts.optimize(system=[atoms], model=model, **options).energy.item() for atoms in molecules]
    assert together.energy.tolist() == pytest.approx(alone, abs=1e-3)


def test_a_stress_of_molecules_is_refused_by_its_name(ts, potential, molecules):
    for run in (
        lambda: ts.static(system=molecules, model=SchNetModel(potential)),
        lambda: ts.optimize(
            system=molecules, model=SchNetModel(potential, compute_stress=False), optimizer=ts.unit_cell_fire
        ),
    ):
        with pytest.raises(ValueError, match=r"`stress` needs periodic systems.*compute_stress"):
            run()


def test_wrong_systems_are_refused_in_the_words_of_the_potential(ts, potential, crystals, molecules):
    with pytest.raises(ValueError, match=r"`z` contains.*absent from training"):
        SchNetModel(potential)(ts.io.atoms_to_state(crystals, CPU, torch.float64))
    with pytest.raises(ValueError, match="`pbc` must be false for a SchNet without cutoff"):
        SchNetModel(Potential(SchNet.paper()))(ts.io.atoms_to_state(crystals, CPU, torch.float64))
    state = ts.io.atoms_to_state(molecules, CPU, torch.float64)
    state.positions[3] = np.nan
    with pytest.raises(ValueError, match="`pos` must be finite"):
        SchNetModel(potential)(state)
    with pytest.raises(ValueError, match="`skin` must be at least 0"):
        SchNetModel(potential, skin=-1.0)


def test_without_torchsim_the_command_that_installs_it_is_stated(potential, monkeypatch):
    monkeypatch.setattr(torchsim, "ModelInterface", None)
    with pytest.raises(ImportError, match=r"pip install 'pyg-schnet\[torchsim\]'"):
        SchNetModel(potential)
