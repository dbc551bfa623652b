"""Baths keep the distribution of the kinetic energy, and the energy that they conserve."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths

from pyg_schnet.simulation import run_md


@pytest.fixture
def molecule(ethanol, springs):
    ethanol.calc = springs(ethanol, 0.5)
    return ethanol


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    return atoms


# Degrees of freedom of nine atoms: neither turning nor moving, and all.
@pytest.mark.parametrize(
    ("thermostat", "count"),
    [
        ("bussi", 21),
        pytest.param("nose-hoover", 21, marks=pytest.mark.process),
        pytest.param("baoab", 27, marks=pytest.mark.process),
    ],
)
def test_the_kinetic_energy_is_distributed_canonically(molecule, thermostat, count):
    kinetic = []
    result = run_md(
        molecule,
        thermostat=thermostat,
        temperature=500,
        timestep=2.0,
        duration=1.0,
        friction=0.1,
        on_step=lambda _, frame: kinetic.append(frame.get_kinetic_energy()),
    )
    mean = 0.5 * count * 500 * units.kB
    # Runs four times as long deviate by 4 % and 14 % at most; six degrees of freedom too many are 29 %.
    assert np.mean(kinetic) == pytest.approx(mean, rel=0.15)
    assert np.var(kinetic) == pytest.approx(mean * 500 * units.kB, rel=0.5)
    assert result.temperature == pytest.approx(np.mean(kinetic) / mean * 500, rel=1e-9)


@pytest.mark.parametrize("thermostat", ["bussi", "nose-hoover"])
def test_scaling_of_velocities_neither_turns_nor_moves_a_molecule(molecule, thermostat):
    result = run_md(molecule, thermostat=thermostat, duration=0.05)
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert np.abs(result.atoms.get_angular_momentum()).max() < 1e-8


def test_baoab_moves_the_center_of_mass(molecule):
    center = molecule.get_center_of_mass()
    result = run_md(molecule, thermostat="baoab", duration=0.05)
    assert np.abs(result.atoms.get_center_of_mass() - center).max() > 1e-3
    assert result.drift is None


@pytest.mark.parametrize("thermostat", ["bussi", "nose-hoover"])
def test_the_energy_of_molecule_and_bath_is_conserved_to_second_order(molecule, thermostat):
    coarse, fine = (
        run_md(molecule, thermostat=thermostat, timestep=step, duration=0.1, friction=0.05).fluctuation
        for step in (1.0, 0.5)
    )
    assert coarse < 0.5  # meV per atom; the energy of the molecule alone changes by tens
    assert fine == pytest.approx(coarse / 4, rel=0.3)


@pytest.mark.parametrize("barostat", ["isotropic", "full"])
def test_the_energy_of_crystal_chain_and_piston_is_conserved_to_second_order(copper, barostat):
    options = {"thermostat": "nose-hoover", "pressure": 1.0, "pressure_time": 100.0, "barostat": barostat}
    coarse, fine = (
        run_md(copper, friction=0.05, timestep=step, duration=0.04, **options).fluctuation
        for step in (4.0, 2.0)
    )
    assert fine == pytest.approx(coarse / 4, rel=0.3)


def test_a_full_barostat_changes_the_shape_and_an_isotropic_one_does_not(copper):
    options = {"thermostat": "nose-hoover", "pressure": 5.0, "pressure_time": 100.0, "timestep": 4.0}
    for barostat, changes in (("isotropic", False), ("full", True)):
        result = run_md(copper, barostat=barostat, duration=0.04, **options)
        shape = result.atoms.cell.array / result.atoms.cell.array[0, 0]
        assert bool(np.abs(shape - np.eye(3)).max() > 1e-6) is changes
        assert result.atoms.get_volume() < copper.get_volume()


@pytest.mark.nightly
@pytest.mark.parametrize("barostat", ["isotropic", "full"])
def test_copper_has_its_lattice_constant_at_a_pressure(copper, barostat):
    copper.set_cell(copper.cell.array * 1.01, scale_atoms=True)
    options = {"thermostat": "nose-hoover", "friction": 0.02, "pressure_time": 200.0, "timestep": 4.0}
    result = run_md(copper, pressure=5.0, barostat=barostat, equilibration=2.0, duration=6.0, **options)
    assert result.pressure == pytest.approx(5, abs=0.5)
    assert result.temperature == pytest.approx(300, rel=0.15)
    # As Langevin's barostat, see test_barostat.py.
    assert (result.volume / 8) ** (1 / 3) == pytest.approx(3.609 * (1 - 5 / (3 * 145)), abs=0.012)


SETTINGS = [
    {"thermostat": "bussi"},
    {"thermostat": "baoab"},
    {"thermostat": "nose-hoover"},
    {"thermostat": "nose-hoover", "pressure": 1.0},
    {"thermostat": "nose-hoover", "pressure": 1.0, "barostat": "full"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))
def test_a_resumed_run_ends_with_the_same_bits(copper, settings, tmp_path):
    options = {**settings, "timestep": 4.0, "interval": 2, "pressure_time": 100.0, "friction": 0.05}
    straight = run_md(copper, duration=0.04, trajectory=tmp_path / "straight.traj", **options)
    run_md(copper, duration=0.016, trajectory=tmp_path / "parts.traj", **options)
    resumed = run_md(copper, duration=0.04, trajectory=tmp_path / "parts.traj", resume=True, **options)
    assert resumed.atoms.positions.tobytes() == straight.atoms.positions.tobytes()
    assert resumed.atoms.get_momenta().tobytes() == straight.atoms.get_momenta().tobytes()
    assert resumed.atoms.cell.array.tobytes() == straight.atoms.cell.array.tobytes()
    assert (resumed.drift, resumed.temperature) == (straight.drift, straight.temperature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thermostat": "busi"}, "`thermostat`.*bussi.*'busi'.*bussi"),
        ({"thermostat": "bussi", "temperature": 0}, "`temperature`.*positive.*bussi.*0"),
        ({"thermostat": "nose-hoover", "temperature": 0}, "`temperature`.*positive.*nose-hoover.*0"),
        ({"thermostat": "bussi", "pressure": 1.0}, "`pressure`.*bussi.*langevin.*nose-hoover"),
        ({"thermostat": "langevin", "pressure": 1.0, "barostat": "full"}, "`barostat`.*full.*nose-hoover"),
        (
            {"thermostat": "langevin", "pressure": 1.0, "barostat": "ful"},
            "`barostat`.*isotropic, full.*'ful'",
        ),
        ({"thermostat": "nose-hoover", "barostat": "full"}, "`barostat`.*`pressure`"),
    ],
)
def test_baths_that_are_not_possible_are_refused(copper, options, message):
    with pytest.raises(ValueError, match=message):
        run_md(copper, **options)


def test_constraints_of_bonds_need_an_integrator_that_takes_them(molecule):
    molecule.set_constraint([FixAtoms([0]), FixBondLengths([(1, 2)])])
    with pytest.raises(ValueError, match=r"`thermostat`.*nose-hoover.*FixBondLengths"):
        run_md(molecule, thermostat="nose-hoover")
