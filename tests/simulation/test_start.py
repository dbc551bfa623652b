"""Tests that unphysical initial structures are rejected with any calculator."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT

from pyg_schnet.simulation import run_md
from pyg_schnet.simulation.structures import check_initial_structure


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    return atoms


def _no_number(name):
    def change(atoms):
        values = getattr(atoms, f"get_{name}")()
        values[2] = [0, np.nan, 0]
        getattr(atoms, f"set_{name}")(values)

    return change


def _cell(cell):
    return lambda atoms: atoms.set_cell(cell)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_number("positions"), r"`atoms`.*finite.*positions.*\[0\.0, nan, 0\.0\].*atom.*2"),
        (_no_number("momenta"), r"`atoms`.*finite.*momenta.*\[0\.0, nan, 0\.0\].*atom.*2"),
        (lambda atoms: atoms.set_masses([1, 0, 1, 1]), r"positive.*0\.0.*atom.*1"),
        (_cell(np.zeros((3, 3))), r"`atoms\.cell`.*lattice.*vector.*periodic"),
        (_cell([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), r"`atoms\.cell`.*lattice.*vector"),
        (_cell([[0, 4, 0], [4, 0, 0], [0, 0, 4]]), r"`atoms\.cell`.*make_supercell"),
        (
            lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0] + 0.01),
            "overlap.*atoms",
        ),
        (lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0]), r"atoms? 0 and 1|0 .* 1"),
    ],
)
def test_a_start_that_cannot_be_meant_is_refused(copper, change, message):
    change(copper)
    with pytest.raises(ValueError, match=message):
        run_md(copper)


def test_no_atoms_are_refused():
    atoms = Atoms()
    atoms.calc = EMT()
    with pytest.raises(ValueError, match=r"`atoms`.*at least.*atom"):
        run_md(atoms)


def test_the_advice_for_a_left_handed_cell_is_good(copper):
    copper.set_cell([[0, 4, 0], [4, 0, 0], [0, 0, 4]])
    check_initial_structure(make_supercell(copper, [[0, 1, 0], [1, 0, 0], [0, 0, 1]]))
