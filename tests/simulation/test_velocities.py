import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from pyg_schnet.simulation.velocities import (
    degrees_of_freedom,
    draw_momenta,
    kinetic_temperature,
    remove_drift,
)


def angular_momentum(atoms):
    return np.cross(atoms.positions - atoms.get_center_of_mass(), atoms.get_momenta()).sum(axis=0)


@pytest.mark.parametrize(
    ("name", "still", "turning"),
    [("H2O", 3, 6), ("CO2", 4, 6), ("N2", 1, 3), ("CH3CH2OH", 21, 24)],
)
def test_the_whole_takes_six_degrees_of_freedom_or_five_or_three(name, still, turning):
    atoms = molecule(name)
    assert degrees_of_freedom(atoms, rotation=False) == still
    assert degrees_of_freedom(atoms, rotation=True) == turning


def test_the_orientation_of_a_linear_molecule_does_not_matter():
    atoms = molecule("CO2")
    atoms.rotate(37, (1, 2, 3))
    assert degrees_of_freedom(atoms, rotation=False) == 4


def test_fixed_atoms_do_not_count(ethanol):
    ethanol.set_constraint(FixAtoms([0, 1]))
    assert degrees_of_freedom(ethanol, rotation=False) == 21


@pytest.mark.parametrize("name", ["H2O", "CO2", "CH3CH2OH"])
@pytest.mark.parametrize("seed", range(3))
def test_a_molecule_starts_at_its_temperature_without_moving_or_turning(name, seed):
    atoms = molecule(name)
    atoms.rotate(37, (1, 2, 3))
    draw_momenta(atoms, 300, np.random.default_rng(seed), rotation=False)
    count = degrees_of_freedom(atoms, rotation=False)
    assert kinetic_temperature(atoms, count) == pytest.approx(300, abs=1e-9)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(angular_momentum(atoms)).max() < 1e-12


def test_rotation_stays_where_it_is_wanted(ethanol):
    draw_momenta(ethanol, 300, np.random.default_rng(0), rotation=True)
    assert np.abs(angular_momentum(ethanol)).max() > 0.1
    assert kinetic_temperature(ethanol, 24) == pytest.approx(300, abs=1e-9)


def test_stopping_the_whole_leaves_the_distances_rates_unchanged(ethanol):
    draw_momenta(ethanol, 300, np.random.default_rng(0), rotation=True)

    def rates():
        arms = ethanol.positions[:, None] - ethanol.positions
        velocities = ethanol.get_velocities()
        return (arms * (velocities[:, None] - velocities)).sum(axis=2)

    before = rates()
    remove_drift(ethanol, rotation=False)
    assert np.abs(rates() - before).max() < 1e-12


def test_light_and_heavy_atoms_share_the_energy_evenly():
    atoms = bulk("NaCl", "rocksalt", a=5.6).repeat(8)
    draw_momenta(atoms, 300, np.random.default_rng(0), rotation=True)
    energy = (atoms.get_momenta() ** 2).sum(axis=1) / (2 * atoms.get_masses())
    light = energy[atoms.numbers == 11].mean()
    # Each of 512 atoms has a standard deviation of sqrt(2/3) of the mean: 3.6 % for the average.
    assert light == pytest.approx(1.5 * units.kB * 300, rel=0.11)


def test_absolute_zero_is_rest(ethanol):
    draw_momenta(ethanol, 0, np.random.default_rng(0), rotation=False)
    assert (ethanol.get_momenta() == 0).all()


def test_fixed_atoms_stay(ethanol):
    ethanol.set_constraint(FixAtoms([0, 1]))
    draw_momenta(ethanol, 300, np.random.default_rng(0), rotation=False)
    assert (ethanol.get_momenta()[:2] == 0).all()
    assert kinetic_temperature(ethanol, 21) == pytest.approx(300, abs=1e-9)


def test_a_center_of_mass_that_may_move_does_and_counts(ethanol):
    draw_momenta(ethanol, 300, np.random.default_rng(0), rotation=True, drift=True)
    assert np.abs(ethanol.get_momenta().sum(axis=0)).max() > 0.1
    assert degrees_of_freedom(ethanol, rotation=True, drift=True) == 27
    assert degrees_of_freedom(Atoms("O"), rotation=True, drift=True) == 3
    assert kinetic_temperature(ethanol, 27) == pytest.approx(300, abs=1e-9)


def test_one_atom_is_refused():
    with pytest.raises(ValueError, match=r"`atoms`.*free.*move"):
        degrees_of_freedom(Atoms("O"), rotation=True)
