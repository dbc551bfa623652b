"""Headers of extended xyz are split as ASE splits them, and checked before they are used."""

import pytest
from ase.io.extxyz import key_val_str_to_dict
from hypothesis import given
from hypothesis import strategies as st

from pyg_schnet.io.formats.extxyz import header_pairs, parse_header

ATOMS = ["H 0.0 0.0 0.0\n", "H 0.0 0.0 0.7\n"]


@given(st.text(alphabet="abT1 =\t\"'{}[]\\", max_size=14))
def test_keys_are_those_that_ase_finds(header):
    try:
        wanted = [key for key in key_val_str_to_dict(header) if key]
    except IndexError:  # it begins with an equals sign
        return
    assert [key for key in dict(header_pairs(header)) if key] == wanted


@pytest.mark.parametrize(
    "header",
    [
        "energy=-1.5 pbc='T T T' Properties=species:S:1:pos:R:3 note=\"a=1 a=2\"",
        "i = 4, time = 2.0, E = -17.1",
        "step step step",
        "energy=1 charge=0 energy=1",
        "",
    ],
)
def test_a_sound_header_is_what_ase_reads(header):
    found, wanted = parse_header(header, ATOMS), key_val_str_to_dict(header)
    assert {key: str(value) for key, value in found.items()} == {k: str(x) for k, x in wanted.items()}


@pytest.mark.parametrize(
    "header",
    [
        "energy=-1.5 energy=-2.5",
        'energy=-1.5 "energy"=-2.5',
        "en\\ergy=-1.5 energy = -2.5",
        "uid a b energy=-1.5 energy=T",
        "Lattice=\"1 0 0 0 1 0 0 0 1\" energy=1 Lattice='2 0 0 0 2 0 0 0 2'",
    ],
)
def test_a_key_with_two_values_is_refused(header):
    with pytest.raises(ValueError, match=r"'(energy|Lattice)'"):
        parse_header(header, ATOMS)


@pytest.mark.parametrize("columns", ["species:S:1:pos:R:4", "species:S:1:pos:R:+4", "species:S:1:pos:R:0_4"])
@pytest.mark.parametrize(
    "key", ["Properties", '"Properties"', "Propert\\ies", "x=1 Properties", "{Properties}"]
)
def test_columns_that_atoms_do_not_have_are_refused(key, columns):
    with pytest.raises(ValueError, match=r"5.*columns.*`Properties`"):
        parse_header(f"{key}={columns}", ATOMS)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("units: kcal/mol", {"units": "kcal/mol"}),
        (
            "# CELL(abcABC): 10 10 10 90 90 90 Step: 0 positions{atomic_unit}",
            {"positions_units": "atomic_unit"},
        ),
        ("energy_units:Hartree energy=1", {"energy_units": "Hartree"}),
    ],
)
def test_units_in_free_text_are_found(header, named):
    found = parse_header(header, ATOMS)
    assert {key: found[key] for key in named} == named
