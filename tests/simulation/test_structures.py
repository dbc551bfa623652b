import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms, FixBondLength

from pyg_schnet.simulation.structures import (
    StructureError,
    check_structure,
    copy_with_calculator,
    snapshot,
    with_results,
)


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
    copy = copy_with_calculator(ethanol)
    before = ethanol.positions.copy()
    copy.positions += 1
    assert copy.calc is ethanol.calc
    assert (ethanol.positions == before).all()


@pytest.mark.parametrize("constraint", [FixAtoms([9]), FixAtoms([-10]), FixBondLength(0, 9)])
def test_a_constraint_of_an_atom_that_is_not_there_is_refused(ethanol, springs, constraint):
    ethanol.calc = springs(ethanol)
    ethanol.set_constraint(constraint)
    with pytest.raises(StructureError, match=r"`atoms.constraints`.*.*9.*atoms"):
        check_structure(ethanol, 0)
    with pytest.raises(ValueError, match=r"`atoms.constraints`.*.*9.*atoms"):
        copy_with_calculator(ethanol)


def test_a_constraint_of_the_last_atom_is_none_of_a_missing_one(ethanol):
    ethanol.set_constraint([FixAtoms([8, -9]), FixBondLength(0, 8), FixAtoms([])])
    check_structure(ethanol, 0)
