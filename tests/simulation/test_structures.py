import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from pyg_schnet.simulation.structures import own_copy, snapshot, with_results


def test_results_are_attached_to_a_copy(ethanol):
    frame = with_results(ethanol, energy=-1.0)
    assert frame.get_potential_energy() == -1.0
    assert ethanol.calc is None
    with pytest.raises(PropertyNotImplementedError):
        frame.get_forces()


def test_a_snapshot_keeps_what_its_calculator_said(ethanol, springs):
    ethanol.calc = springs(ethanol)
    ethanol.rattle(0.1, seed=5)
    energy, forces = ethanol.get_potential_energy(), ethanol.get_forces()
    frame = snapshot(ethanol)
    ethanol.rattle(0.1, seed=6)
    assert frame.get_potential_energy() == energy
    assert (frame.get_forces() == forces).all()


def test_an_own_copy_shares_the_calculator_and_not_the_positions(ethanol, springs):
    ethanol.calc = springs(ethanol)
    copy = own_copy(ethanol)
    before = ethanol.positions.copy()
    copy.positions += 1
    assert copy.calc is ethanol.calc
    assert (ethanol.positions == before).all()
