"""Units that a file states are used, and unknown ones are refused."""

import pytest
from ase import Atoms

from pyg_schnet.io.formats.stated_units import require_angstrom, stated_units
from pyg_schnet.io.units import Units


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        ({"units": "kcal/mol"}, Units("kcal/mol")),
        ({"units": "Hartree, Bohr"}, Units("Hartree", "Bohr")),
        ({"Units": "hartree, hartree/bohr"}, Units("Hartree", "Å", "Hartree/Bohr")),
        ({"units": "eV/Å"}, Units("eV")),
        ({"units": "kcal/mol Ang"}, Units("kcal/mol")),
        ({"forces_unit": "Ha/Bohr"}, Units("eV", "Å", "Hartree/Bohr")),
        ({"units": "atomic"}, Units("Hartree", "Bohr")),
        ({"units": "metal"}, Units("eV")),
        ({"energy_unit": "Ha"}, Units("Hartree")),
        ({"energy_units": "kJ/mol", "positions_unit": "nm"}, Units("kJ/mol", "nm")),
        ({"units": 4, "energy": 1.0, "unit_cell": "fcc"}, None),
        ({}, None),
    ],
)
def test_units_are_recognized(info, wanted):
    assert stated_units(info) == wanted


@pytest.mark.parametrize("info", [{"units": "parsec"}, {"units": "eV kcal/mol"}, {"energy_units": "Bohr"}])
def test_unknown_units_are_refused(info):
    with pytest.raises(ValueError, match="set `units`"):
        stated_units(info)


def test_units_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"units.*energy"):
        stated_units({"units": "eV", "energy_units": "Hartree"})


def test_positions_in_another_unit_are_refused_where_only_structures_are_read():
    require_angstrom(Atoms("H", info={"units": "Hartree"}).info)
    with pytest.raises(ValueError, match="must be in Å"):
        require_angstrom({"units": "Hartree, Bohr"})
