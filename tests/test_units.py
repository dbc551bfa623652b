import re

import pytest

from pyg_schnet import units
from pyg_schnet.units import Units


# Relative 1e-11: the literals have 12 digits.
@pytest.mark.parametrize(
    ("name", "in_eV"),
    [
        ("eV", 1.0),
        ("meV", 0.001),
        ("kcal/mol", 0.0433641042418),
        ("kJ/mol", 0.0103642696563),
        ("Hartree", 27.2113862460),
        ("mHartree", 0.0272113862460),
        ("Rydberg", 13.6056931230),
    ],
)
def test_an_energy_unit_has_its_published_value_in_electronvolts(name, in_eV):
    assert Units(name).energy_in_eV == pytest.approx(in_eV, rel=1e-11, abs=0)


@pytest.mark.parametrize(
    ("name", "in_angstrom"),
    [("Å", 1.0), ("Angstrom", 1.0), ("nm", 10.0), ("Bohr", 0.529177210903)],
)
def test_a_length_unit_has_its_published_value_in_angstrom(name, in_angstrom):
    assert Units("eV", name).length_in_angstrom == pytest.approx(in_angstrom, rel=1e-11, abs=0)


# CODATA 2018: the atomic unit of force is 8.2387234983e-8 N, of which 1 eV/Å is 1.602176634e-9 N.
def test_forces_in_hartree_per_bohr_are_the_atomic_unit_of_force():
    factor = Units("Hartree", "Bohr").forces_in_eV_per_angstrom
    assert factor == pytest.approx(8.2387234983e-8 / 1.602176634e-9, rel=1e-10, abs=0)


def test_forces_in_kcal_per_mol_and_angstrom_scale_like_energies():
    assert Units("kcal/mol").forces_in_eV_per_angstrom == units.kcal_per_mol


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("kcal/mol", Units("kcal/mol", "Å")),
        ("Hartree, Bohr", Units("Hartree", "Bohr")),
        ("eV,nm", Units("eV", "nm")),
        ("  meV ,  Angstrom ", Units("meV", "Angstrom")),
    ],
)
def test_units_are_read_from_text(text, parsed):
    assert Units.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kcal", "must name an energy unit out of eV, meV, kcal/mol, .*; got 'kcal'.*'kcal/mol'?"),
        ("hartree", r"got 'hartree'\. Did you mean 'Hartree'\?"),
        ("EV", r"got 'EV'\. Did you mean 'eV'\?"),
        (
            "Hartree, bor",
            r"must name a length unit out of Å, .*; got 'bor'\. Did you mean 'Bohr'\?",
        ),
        ("", "must name an energy unit .*; got ''"),
        ("eV, Å, s", re.escape('`units` must read "ENERGY" or "ENERGY, LENGTH", got \'eV, Å, s\'')),
    ],
)
def test_an_unknown_unit_is_refused_with_the_nearest_name(text, message):
    with pytest.raises(ValueError, match=message):
        Units.parse(text)


def test_a_unit_unlike_any_other_gets_no_hint():
    with pytest.raises(ValueError, match=r"got 'furlong'.$"):
        Units("furlong")


def test_units_are_immutable():
    with pytest.raises(AttributeError):
        Units("eV").energy = "meV"
