"""Constraints of dynamics: selections of fixed atoms, and rigid bonds of hydrogen."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixBondLengths

import pyg_schnet
from pyg_schnet.simulation import run_md
from pyg_schnet.simulation.constraints import RigidBonds, fix_atoms


@pytest.mark.parametrize(
    ("selection", "indices"),
    [("0", [0]), ("-1", [8]), ("2:4,0", [0, 2, 3]), ("C, O", [0, 1, 2]), ("C,0", [0, 1]), ("7:", [7, 8])],
)
def test_atoms_are_selected_by_index_slice_and_element(ethanol, selection, indices):
    assert fix_atoms(ethanol, selection).index.tolist() == indices


@pytest.mark.parametrize("selection", ["9", "Si", "", "one", "3:2"])
def test_a_selection_of_no_atom_is_refused(ethanol, selection):
    with pytest.raises(ValueError, match=r"`fix`.*0 to 8.*0,5:10,Si"):
        fix_atoms(ethanol, selection)


def test_each_hydrogen_has_one_bond(ethanol):
    pairs = RigidBonds(ethanol).pairs
    assert sorted(pairs[:, 1]) == np.flatnonzero(ethanol.numbers == 1).tolist()
    assert (ethanol.numbers[pairs[:, 0]] > 1).all()


def test_the_bond_of_a_hydrogen_molecule_is_found_once():
    assert RigidBonds(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])).pairs.tolist() == [[0, 1]]


def test_a_structure_without_bonds_of_hydrogen_is_refused():
    with pytest.raises(ValueError, match=r"`rigid_hydrogens`.*CO2"):
        RigidBonds(molecule("CO2"))


def test_positions_and_momenta_are_those_of_ase(ethanol):
    """ASE takes one bond after the other until all are right within 1e-13."""
    rng = np.random.default_rng(0)
    ours, theirs = RigidBonds(ethanol), FixBondLengths(RigidBonds(ethanol).pairs)
    positions = [ethanol.positions + 0.05 * rng.standard_normal((9, 3))] * 2
    momenta = [rng.standard_normal((9, 3))] * 2
    moved, driven = ([each.copy() for each in both] for both in (positions, momenta))
    for constraint, new, p in zip((ours, theirs), moved, driven, strict=True):
        constraint.adjust_positions(ethanol, new)
        constraint.adjust_momenta(ethanol, p)
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-11)
    np.testing.assert_allclose(driven[0], driven[1], atol=1e-11)


def test_a_bond_across_the_boundary_is_kept():
    water = molecule("H2O")
    water.set_cell(8 * np.eye(3))
    water.pbc = True
    water.positions += 0.1 - water.positions[0]
    water.wrap()
    lengths = RigidBonds(water).bondlengths
    assert lengths == pytest.approx(0.9686, abs=1e-3)
    new = water.positions + 0.03 * np.random.default_rng(0).standard_normal((3, 3))
    RigidBonds(water).adjust_positions(water, new)
    water.positions = new
    assert water.get_distances(0, [1, 2], mic=True) == pytest.approx(lengths, abs=1e-12)


@pytest.fixture
def rigid(ethanol, springs):
    ethanol.calc = springs(ethanol, 0.5)
    ethanol.set_constraint(RigidBonds(ethanol))
    return ethanol


def lengths(atoms, pairs):
    return np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)


def test_bonds_keep_their_lengths_and_the_energy_is_conserved(rigid):
    pairs = rigid.constraints[0].pairs
    frames = []
    result = run_md(rigid, timestep=1.0, duration=0.1, on_step=lambda _, frame: frames.append(frame))
    for frame in frames:
        np.testing.assert_allclose(lengths(frame, pairs), lengths(rigid, pairs), atol=1e-11)
        bonds = frame.positions[pairs[:, 1]] - frame.positions[pairs[:, 0]]
        velocities = frame.get_velocities()
        rates = ((velocities[pairs[:, 1]] - velocities[pairs[:, 0]]) * bonds).sum(axis=1)
        assert np.abs(rates).max() < 1e-12
    assert abs(result.drift) < 0.05  # meV per atom and ps
    assert result.fluctuation < 0.05
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert np.abs(result.atoms.get_angular_momentum()).max() < 1e-8


@pytest.mark.parametrize(
    ("thermostat", "count"),
    [
        ("bussi", 21 - 6),
        pytest.param("langevin", 24 - 6, marks=pytest.mark.process),
    ],
)
def test_rigid_bonds_have_no_kinetic_energy_in_a_bath(rigid, thermostat, count):
    kinetic = []
    run_md(
        rigid,
        thermostat=thermostat,
        temperature=500,
        timestep=2.0,
        duration=0.5,
        friction=0.1,
        on_step=lambda _, frame: kinetic.append(frame.get_kinetic_energy()),
    )
    # With the six bonds it would be 40 % and 33 % more.
    assert np.mean(kinetic) == pytest.approx(0.5 * count * 500 * units.kB, rel=0.2)


def test_a_resumed_run_with_rigid_bonds_ends_with_the_same_bits(rigid, tmp_path):
    options = {"timestep": 1.0, "interval": 2, "thermostat": "bussi"}
    straight = run_md(rigid, duration=0.02, trajectory=tmp_path / "straight.traj", **options)
    run_md(rigid, duration=0.008, trajectory=tmp_path / "parts.traj", **options)
    resumed = run_md(rigid, duration=0.02, trajectory=tmp_path / "parts.traj", resume=True, **options)
    assert resumed.atoms.positions.tobytes() == straight.atoms.positions.tobytes()


def test_ases_bonds_resume_to_the_same_bits(rigid, tmp_path):
    rigid.set_constraint(FixBondLengths([(0, 1)]))
    options = {"timestep": 1.0, "interval": 2}
    straight = run_md(rigid, duration=0.02, trajectory=tmp_path / "straight.traj", **options)
    run_md(rigid, duration=0.008, trajectory=tmp_path / "parts.traj", **options)
    resumed = run_md(rigid, duration=0.02, trajectory=tmp_path / "parts.traj", resume=True, **options)
    assert resumed.atoms.positions.tobytes() == straight.atoms.positions.tobytes()


def test_a_step_that_is_too_long_explodes(rigid):
    with pytest.raises(RuntimeError, match="exploded"):
        run_md(rigid, timestep=40.0, duration=1.0, temperature=5000)


def test_options_of_the_function_set_the_constraints(potential, ethanol):
    result = pyg_schnet.md(potential, ethanol, fix="O", rigid_hydrogens=True, duration=0.005)
    oxygen = int(ethanol.symbols.search("O")[0])
    assert (result.atoms.positions[oxygen] == ethanol.positions[oxygen]).all()
    pairs = RigidBonds(ethanol).pairs
    np.testing.assert_allclose(lengths(result.atoms, pairs), lengths(ethanol, pairs), atol=1e-11)
    assert result.ns_per_day > 0
    with pytest.raises(ValueError, match=r"--fix.*one structure"):
        pyg_schnet.md(potential, [ethanol], fix="O")
