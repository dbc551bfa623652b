import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from pyg_schnet import Potential, SchNet, neighbor_list
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.velocities import draw_momenta
from pyg_schnet.transforms.ase_atoms import from_ase


def test_energy_and_forces_are_those_of_the_model(potential, calculator, ethanol):
    expected = potential(from_ase(ethanol))
    ethanol.calc = calculator
    assert ethanol.get_potential_energy() == pytest.approx(expected["energy"].item(), abs=1e-12)
    assert np.abs(ethanol.get_forces() - expected["forces"].numpy()).max() < 1e-12
    assert ethanol.get_potential_energy(force_consistent=True) == ethanol.get_potential_energy()


def test_forces_are_minus_the_energy_gradient(calculator, ethanol):
    ethanol.calc = calculator
    forces = ethanol.get_forces()
    h, energy = 1e-4, []  # Å
    for sign in (1, -1):
        moved = ethanol.copy()
        moved.calc = calculator
        moved.positions[4, 1] += sign * h
        energy.append(moved.get_potential_energy())
    assert forces[4, 1] == pytest.approx((energy[1] - energy[0]) / (2 * h), abs=1e-7)


def test_a_crystal_feels_its_images(potential, calculator, crystal):
    data = from_ase(crystal)
    data.edge_index, data.shift = neighbor_list(data.pos, 4.0, cell=data.cell, pbc=data.pbc)
    crystal.calc = calculator
    expected = potential(data)
    assert crystal.get_potential_energy() == pytest.approx(expected["energy"].item(), abs=1e-12)
    crystal.pbc = False
    assert abs(crystal.get_potential_energy() - expected["energy"].item()) > 0.01


def test_a_supercell_has_twice_the_energy(calculator, crystal):
    crystal.calc = calculator
    double = crystal.repeat((2, 1, 1))
    double.calc = calculator
    energy = crystal.get_potential_energy()
    assert double.get_potential_energy() == pytest.approx(2 * energy, abs=1e-9)


def test_what_is_known_is_not_computed_again(calculator, ethanol, evaluations):
    ethanol.calc = calculator
    ethanol.get_forces()
    ethanol.get_potential_energy()
    ethanol.get_potential_energy(force_consistent=True)
    ethanol.get_forces()
    assert len(evaluations) == 1


def test_energies_of_atoms_leave_what_is_known(calculator, crystal, evaluations):
    crystal.calc = calculator
    energy, forces, stress = crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    calls = len(evaluations)
    crystal.get_potential_energies()
    assert np.array_equal(crystal.get_forces(), forces)
    assert np.array_equal(crystal.get_stress(), stress)
    assert crystal.get_potential_energy() == energy
    assert len(evaluations) == calls  # energies of atoms are read inside of the model, without forward


def test_nothing_is_computed_where_that_is_not_allowed(calculator, crystal, evaluations):
    crystal.calc = calculator
    assert calculator.get_property("forces", crystal, allow_calculation=False) is None
    energy = crystal.get_potential_energy()
    assert calculator.get_property("energy", crystal, allow_calculation=False) == energy
    assert calculator.get_property("forces", crystal, allow_calculation=False) is None
    crystal.positions[0] += 0.1
    assert calculator.get_property("energy", crystal, allow_calculation=False) is None
    assert len(evaluations) == 1
    assert crystal.get_potential_energy() != energy


def test_a_calculator_without_a_structure_is_told(potential, crystal):
    with pytest.raises(ValueError, match=r"`atoms`.*calculator"):
        SchNetCalculator(potential).get_potential_energy()
    SchNetCalculator(potential, atoms=crystal)
    assert crystal.get_forces().shape == (2, 3)


@pytest.mark.parametrize("change", ["positions", "numbers", "cell", "pbc"])
def test_what_changed_is_computed_again(calculator, crystal, evaluations, change):
    crystal.calc = calculator
    crystal.get_forces()
    if change == "positions":
        crystal.positions[0, 0] += 1e-12
    elif change == "numbers":
        crystal.numbers[0] = 7
    elif change == "cell":
        crystal.cell[0, 0] += 0.1
    else:
        crystal.pbc = [True, True, False]
    crystal.get_forces()
    assert len(evaluations) == 2


def test_the_energy_alone_needs_no_gradient(calculator, ethanol, no_gradient):
    ethanol.calc = calculator
    ethanol.get_potential_energy()


def test_a_step_of_dynamics_is_one_evaluation(calculator, ethanol, evaluations):
    ethanol.calc = calculator
    VelocityVerlet(ethanol, 0.5 * units.fs).run(10)
    ethanol.get_total_energy()
    assert len(evaluations) == 11  # the start and ten steps


def test_velocity_verlet_is_reversible(calculator, ethanol):
    start = ethanol.copy()
    ethanol.calc = calculator
    draw_momenta(ethanol, 300, np.random.default_rng(0), rotation=False)
    for _ in range(2):
        VelocityVerlet(ethanol, 0.5 * units.fs).run(50)
        ethanol.set_momenta(-ethanol.get_momenta())
    # Measured 1e-14: the rounding of a hundred steps.
    assert np.abs(ethanol.positions - start.positions).max() < 1e-11


def test_bfgs_finds_a_minimum(calculator, ethanol):
    ethanol.calc = calculator
    before = ethanol.get_potential_energy()
    assert BFGS(ethanol, logfile=None).run(fmax=0.01, steps=300)
    assert ethanol.get_potential_energy() < before


def test_copies_of_atoms_agree(calculator, ethanol):
    ethanol.calc = calculator
    twin = ethanol.copy()
    twin.calc = calculator
    assert twin.get_potential_energy() == ethanol.get_potential_energy()


def test_a_file_serves_as_well(potential, ethanol, calculator, tmp_path):
    path = tmp_path / "model.safetensors"
    save(potential, path)
    energies = []
    for source in (path, str(path), potential):
        ethanol.calc = SchNetCalculator(source)
        energies.append(ethanol.get_potential_energy())
    assert energies[0] == energies[1] == energies[2]


def test_the_callers_potential_stays_in_training_mode(potential, ethanol):
    mine = copy.deepcopy(potential).train()
    ethanol.calc = SchNetCalculator(mine)
    before = ethanol.get_forces()
    assert mine.training
    assert mine.model.training
    assert all(parameter.requires_grad for parameter in mine.parameters())
    with torch.no_grad():
        mine.model.embedding.weight.zero_()
    ethanol.positions += 1  # not from the cache
    assert np.abs(ethanol.get_forces() - before).max() < 1e-10


def test_results_are_the_callers_to_change(calculator, ethanol):
    ethanol.calc = calculator
    forces = ethanol.get_forces()
    forces += 1
    assert np.abs(ethanol.get_forces() - forces).max() > 0.5


def test_positions_enter_in_float64_whatever_the_networks_precision(potential, ethanol):
    ethanol.calc = SchNetCalculator(copy.deepcopy(potential).float())
    energy = ethanol.get_potential_energy()
    ethanol.positions += 1e6  # float32 would lose all but two digits of an ångström
    assert ethanol.get_potential_energy() == pytest.approx(energy, abs=1e-5)


def test_foreign_elements_are_refused(calculator):
    atoms = molecule("SiH4")
    atoms.calc = calculator
    with pytest.raises(ValueError, match=r"`z`.*14.*absent.*1.*6.*7.*8"):
        atoms.get_potential_energy()


def test_no_atoms_are_refused(calculator):
    atoms = Atoms(calculator=calculator)
    with pytest.raises(ValueError, match=r"`atoms`.*at least.*atom"):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.set_cell([0, 0, 0]),
            "`atoms.cell`.*lattice.*vector.*periodic",
        ),
        (lambda a: a.set_cell([[1, 1, 0], [0, 1, 1], [1, 2, 1]]), "`atoms.cell`.*lattice.*vector"),
        (
            lambda a: a.set_cell([5, 5, np.nan]),
            r"`atoms.cell`.*finite.*\[\[5.0, 0.0, 0.0\]",
        ),
        (
            lambda a: a.set_cell([0.001] * 3),
            "`cell`.*cutoff.*4.75",
        ),
        (
            lambda a: a.positions.__setitem__(1, np.nan),
            r"`pos`.*finite.*\[nan, nan, nan\].*atom.*1",
        ),
        (lambda a: a.positions.__setitem__(1, a.positions[0] + a.cell[1]), "atoms.*0.*1.*distance.*0"),
        (
            lambda a: a.positions.__setitem__(1, 1e16),
            r"`pos`.*atom.*7.1e\+15",
        ),
    ],
)
def test_a_crystal_that_is_none_is_refused_and_the_calculator_goes_on(calculator, crystal, change, message):
    crystal.calc = calculator
    forces, good = crystal.get_forces(), crystal.copy()
    change(crystal)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            crystal.get_forces()
    good.calc = calculator
    assert np.array_equal(good.get_forces(), forces)


def test_a_left_handed_cell_has_the_energy_forces_and_stress_of_its_crystal(calculator, crystal):
    other = crystal.copy()
    other.set_cell(crystal.cell.array[[1, 0, 2]])
    crystal.calc = other.calc = calculator
    assert other.cell.handedness == -crystal.cell.handedness
    assert other.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), abs=1e-9)
    assert np.abs(other.get_forces() - crystal.get_forces()).max() < 1e-12
    assert np.abs(other.get_stress() - crystal.get_stress()).max() < 1e-12


def test_the_paper_s_network_refuses_crystals(crystal):
    crystal.calc = SchNetCalculator(Potential(SchNet.paper()))
    for ask in (crystal.get_potential_energy, crystal.get_forces, crystal.get_stress):
        with pytest.raises(ValueError, match=r"`pbc`.*cutoff"):
            ask()


def test_moving_atoms_add_the_pressure_of_an_ideal_gas(calculator, crystal):
    crystal.calc = calculator
    draw_momenta(crystal, 300, np.random.default_rng(0), rotation=True)
    gas = crystal.get_stress(include_ideal_gas=True) - crystal.get_stress()
    assert gas[:3].sum() == pytest.approx(-2 * crystal.get_kinetic_energy() / crystal.get_volume())


def test_stress_is_ases(calculator, crystal):
    crystal.calc = calculator
    crystal.set_cell(crystal.cell.array @ [[1, 0.02, 0], [0, 1, 0.01], [0, 0.03, 1.04]], scale_atoms=True)
    stress = crystal.get_stress()
    assert np.abs(stress).max() > 1e-3
    # Measured 1e-8: differences of step 1e-6, of energies of 2,000 eV.
    assert np.abs(stress - calculate_numerical_stress(crystal)).max() < 1e-7
    own = calculator.potential(from_ase(crystal), stress=True)["stress"][0].numpy()
    assert np.abs(crystal.get_stress(voigt=False) - own).max() < 1e-14


# Differences of step 1e-6 Å; in the open directions ASE strains a cell that no atom sees.
@pytest.mark.parametrize("pbc", [(1, 1, 0), (0, 1, 0)])
@pytest.mark.parametrize("change", [np.eye(3), [[1, 0, 0], [3, 1, 0], [0, -2, 1]]])
def test_stress_of_slabs_wires_and_skewed_cells_is_ases(calculator, crystal, pbc, change):
    crystal.calc, crystal.pbc = calculator, pbc
    crystal.set_cell(change @ crystal.cell.array)
    stress = crystal.get_stress()
    assert np.abs(stress).max() > 1e-4
    assert np.abs(stress - calculate_numerical_stress(crystal)).max() < 1e-7


def test_stress_of_a_molecule_is_refused(calculator, ethanol):
    ethanol.calc = calculator
    with pytest.raises(ValueError, match=r"`stress`.*periodic"):
        ethanol.get_stress()


def test_after_the_first_stress_one_evaluation_gives_all(calculator, crystal, evaluations):
    crystal.calc = calculator
    crystal.get_forces()
    crystal.get_stress()
    assert len(evaluations) == 2
    crystal.positions[0] += 0.01
    crystal.get_forces()
    crystal.get_stress()
    crystal.get_potential_energy()
    assert len(evaluations) == 3


def test_a_molecule_after_a_crystal_has_no_stress_with_its_forces(calculator, crystal, ethanol):
    crystal.calc = ethanol.calc = calculator
    crystal.get_stress()
    assert np.isfinite(ethanol.get_forces()).all()
    assert "stress" not in calculator.results


@pytest.mark.parametrize("system", ["ethanol", "crystal"])
def test_energies_of_atoms_add_up(calculator, request, system):
    atoms = request.getfixturevalue(system)
    atoms.calc = calculator
    energies = atoms.get_potential_energies()
    assert energies.shape == (len(atoms),)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    turned = atoms[::-1]
    turned.calc = calculator
    assert np.abs(turned.get_potential_energies() - energies[::-1]).max() < 1e-9


def test_energies_of_atoms_are_refused_where_they_do_not_add_up(ethanol):
    ethanol.calc = SchNetCalculator(Potential(SchNet(8, 8, 1, 12, readout="mean")))
    with pytest.raises(TypeError, match=r"`atomic_energies`.*readout='add'"):
        ethanol.get_potential_energies()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_takes_the_precision_that_is_asked_for(potential, ethanol, dtype):
    calculator = SchNetCalculator(potential, dtype=dtype)
    assert calculator.potential.model.embedding.weight.dtype == dtype
    assert potential.model.embedding.weight.dtype == torch.float64
    ethanol.calc = calculator
    assert ethanol.get_forces().dtype == np.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float16}, "`dtype`.*torch.float32.*torch.float64.*torch.float16"),
        ({"skin": -0.1}, "`skin`.*at least 0.*-0.1"),
        ({"skin": np.nan}, "`skin`.*at least 0.*nan"),
    ],
)
def test_wrong_options_are_refused(potential, options, message):
    with pytest.raises(ValueError, match=message):
        SchNetCalculator(potential, **options)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_calculators_are_copied_and_pickled(calculator, crystal, make):
    crystal.calc = calculator
    forces, stress = crystal.get_forces(), crystal.get_stress()
    other = crystal.copy()
    other.calc = make(calculator)
    assert np.abs(other.get_forces() - forces).max() < 1e-12
    assert np.abs(other.get_stress() - stress).max() < 1e-12
    other.positions[0] += 0.1
    assert np.abs(other.get_forces() - forces).max() > 1e-3
    assert np.abs(crystal.get_forces() - forces).max() == 0


def test_a_bare_model_is_refused():
    with pytest.raises(TypeError, match=r"`potential`.*Potential\(model\)"):
        SchNetCalculator(SchNet.paper())


def test_a_misspelled_argument_is_refused(potential):
    with pytest.raises(TypeError, match="no parameter 'devise'"):
        SchNetCalculator(potential, devise="cuda")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.safetensors.*no such.*checkpoint"):
        SchNetCalculator(tmp_path / "absent.safetensors")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_same_forces(potential, calculator, ethanol):
    ethanol.calc = calculator
    expected = ethanol.get_forces()
    ethanol.calc = SchNetCalculator(potential, device="cuda")
    assert np.abs(ethanol.get_forces() - expected).max() < 1e-10
    assert potential.scale.device.type == "cpu"


def test_the_package_does_not_import_ase():
    code = "import sys, pyg_schnet; sys.exit('ase' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["get_potential_energy", "get_forces"])
def test_a_prediction_that_is_not_finite_is_refused(overflowing, name):
    atoms = molecule("H2O")
    atoms.calc = SchNetCalculator(overflowing)
    with pytest.raises(ValueError, match=r"`(energy|forces)`.*finite"):
        getattr(atoms, name)()


@pytest.mark.parametrize("info", [{"charge": -1}, {"total_charge": np.float64(2.0)}])
def test_a_charge_is_told_to_be_ignored(calculator, ethanol, info):
    ethanol.info |= info
    ethanol.calc = calculator
    with pytest.warns(UserWarning, match=r"charge.*ignored"):
        ethanol.get_potential_energy()


@pytest.mark.parametrize(
    "info", [{"charge": 0}, {"charge": None}, {"charge": "none"}, {"charges": [0.5, -0.5]}]
)
def test_structures_without_a_charge_are_no_reason_to_warn(calculator, ethanol, info):
    ethanol.info |= info
    ethanol.calc = calculator
    ethanol.get_potential_energy()
