import re

import pytest

from pyg_schnet.io import units
from pyg_schnet.io.units import Units, conversion


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
        ("kcal", "energy.*unit.*kcal/mol.*'kcal'.*'kcal/mol'"),
        ("hartree", r"'hartree'.*'Hartree'"),
        ("EV", r"'EV'.*'eV'"),
        (
            "Hartree, bor",
            r"unit.*'bor'.*'Bohr'",
        ),
        ("", "energy.*unit.*''"),
        ("eV, Å, s", "`units`.*'eV, Å, s'"),
        ("eV, eV/A", r"force.*unit.*'eV/A'.*'eV/Å'"),
        ("eV, GPa, kbar", "`units`.*'eV, GPa, kbar'"),
        ("Bohr, Hartree", "`units` must .* got"),
    ],
)
def test_an_unknown_unit_is_refused_with_the_nearest_name(text, message):
    with pytest.raises(ValueError, match=message):
        Units.parse(text)


def test_a_unit_unlike_any_other_gets_no_hint():
    with pytest.raises(ValueError, match=r"got 'furlong'.$"):
        Units("furlong")


@pytest.mark.parametrize(
    ("text", "forces", "stress"),
    [
        ("Hartree, Hartree/Bohr", 51.42206747632588, 27.211386245988),
        ("Hartree, Bohr, eV/Å", 1.0, 183.6315364496949),
        ("Hartree,Bohr,eV/Å,GPa", 1.0, 0.006241509074460763),
        ("eV, kbar", 1.0, 6.241509074460763e-4),
    ],
)
def test_forces_and_stresses_may_have_units_of_their_own(text, forces, stress):
    parsed = Units.parse(text)
    assert parsed.forces_in_eV_per_angstrom == pytest.approx(forces, rel=1e-13, abs=0)
    assert parsed.stress_in_eV_per_cubic_angstrom == pytest.approx(stress, rel=1e-13, abs=0)


@pytest.mark.parametrize("text", ["kcal/mol", "Hartree, Bohr", "Hartree, Hartree/Bohr", "eV, nm, eV/Å, GPa"])
def test_units_are_written_as_they_are_read(text):
    assert str(Units.parse(text)) == text


def test_units_of_forces_that_follow_from_the_others_make_no_difference():
    assert Units.parse("Hartree, Bohr, Hartree/Bohr") == Units("Hartree", "Bohr")


@pytest.mark.parametrize(
    ("stated", "units"),
    [
        (("Ha", "Ang", "Ha/Bohr"), Units("Hartree", "Å", "Hartree/Bohr")),
        (("kcal/mol", "angstrom", "kcal/mol/Ang"), Units("kcal/mol")),
        (("HARTREE", "a0", "eV/Ang", "eV/Ang/Ang/Ang"), Units("Hartree", "Bohr", "eV/Å", "eV/Å^3")),
        (("eV", "nm", "eV / angstrom", "eV/Angstrom**3"), Units("eV", "nm", "eV/Å", "eV/Å^3")),
        (("a0 a0 a0",), Units("Bohr^3")),
        (("Debye",), Units("D")),
    ],
)
def test_units_are_read_in_the_spelling_of_other_programs(stated, units):
    found, expected = Units.stated(*stated), units
    for name in ("energy_in_eV", "length_in_angstrom", "forces_in_eV_per_angstrom"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.stress_in_eV_per_cubic_angstrom == expected.stress_in_eV_per_cubic_angstrom


@pytest.mark.parametrize("stated", [("furlong",), ("eV", "Ha"), ("eV", "Ang", "Ang"), ("Ha/Bohr",)])
def test_units_that_are_not_known_or_of_another_kind_are_refused(stated):
    with pytest.raises(ValueError, match="`units` must name"):
        Units.stated(*stated)


def test_units_are_immutable():
    with pytest.raises(AttributeError):
        Units("eV").energy = "meV"


# By hand from the SI of 2019 and CODATA 2018, to 25 digits, then rounded: relative 1e-14.
@pytest.mark.parametrize(
    ("published", "ours", "factor"),
    [
        ("Hartree", "eV", 27.211386245988),
        ("kcal/mol", "eV", 0.04336410424180093517),
        ("eV", "kcal/mol", 23.06054783061903),
        ("eV", "meV", 1000.0),
        ("Bohr", "Å", 0.529177210903),
        ("nm", "Å", 10.0),
        ("Bohr^2", "Å^2", 0.280028520539078142),
        ("Bohr^3", "Å^3", 0.148184711472162821),
        ("Å^3", "nm^3", 0.001),
        ("kcal/mol/Å", "eV/Å", 0.04336410424180093517),
        ("Hartree/Bohr", "eV/Å", 51.42206747632588536),
        ("kJ/mol/nm", "eV/Å", 0.001036426965626218),
        ("GPa", "eV/Å^3", 0.006241509074460762607),
        ("kbar", "eV/Å^3", 6.241509074460762607e-4),
        ("eV/Å^3", "GPa", 160.2176634),
        ("GPa", "kbar", 10.0),
        ("Hartree/Bohr^3", "eV/Å^3", 183.6315364496949734),
    ],
)
def test_a_conversion_is_the_factor_computed_by_hand(published, ours, factor):
    assert conversion(published, ours) == pytest.approx(factor, rel=1e-14, abs=0)


@pytest.mark.parametrize(
    "unit", ["eV", "kcal/mol/Å", "Bohr^3", "GPa", "D", "GHz", "cal/mol/K", "e", "1/cm", ""]
)
def test_a_unit_converts_to_itself_by_exactly_one(unit):
    assert conversion(unit, unit) == 1.0


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("Hartree", "Å"),
        ("Bohr^2", "Å"),
        ("Bohr^3", "Å^2"),
        ("kcal/mol", "eV/Å"),
        ("eV/Å", "eV/Å^3"),
        ("GPa", "eV"),
        ("D", "e"),
        ("cal/mol/K", "kcal/mol"),
        ("1/cm", "eV"),
        ("", "eV"),
    ],
)
def test_units_of_different_dimensions_do_not_convert(published, ours):
    message = f"`published` and `ours` must measure the same, got {published!r} and {ours!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        conversion(published, ours)


@pytest.mark.parametrize(
    ("published", "ours", "message"),
    [
        (
            "hartree",
            "eV",
            r"`published`.*unit.*'eV'.*'hartree'.*'Hartree'",
        ),
        ("Hartree", "ev", r"`ours`.*unit.*'ev'.*'eV'"),
        ("Bohr3", "Å^3", r"'Bohr3'.*'Bohr\^3'"),
        ("Bohr^4", "Å^3", r"'Bohr\^4'.*'Bohr\^3'"),
        ("kcal/mol/A", "eV/Å", r"'kcal/mol/A'.*'kcal/mol/Å'"),
        ("furlong", "Å", r"got 'furlong'\.$"),
    ],
)
def test_a_conversion_of_an_unknown_unit_is_refused_with_the_nearest_name(published, ours, message):
    with pytest.raises(ValueError, match=message):
        conversion(published, ours)
