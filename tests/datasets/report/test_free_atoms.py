"""Energies of free atoms, and the unit that they give away."""

import pytest
import torch
from ase.data import atomic_numbers

from pyg_schnet.datasets.report.unit_evidence import likely_unit, ratio_to_free_atoms

# Hartree, B3LYP/6-31G(2df,p): the atoms of QM9 as published with it.
QM9 = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
EV = 27.211386245988
ONE = torch.tensor([0])  # one structure, of the first composition


def atoms(*symbols):
    counts = torch.zeros(1, 256, dtype=torch.int64)
    for symbol in symbols:
        counts[0, atomic_numbers[symbol]] += 1
    return counts


@pytest.mark.parametrize("symbol", QM9)
def test_free_atoms_of_another_method_are_within_a_hundredth(symbol):
    ratio = ratio_to_free_atoms(atoms(symbol), ONE, torch.tensor([QM9[symbol] * EV], dtype=torch.float64))
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("symbols", "hartree"),
    [
        ("CHHHH", -40.47893),  # QM9's first molecule, B3LYP
        (["Al", "Cl", "Cl", "Cl"], -1620.693),  # Hartree-Fock, def2-TZVP
        (["Kr"], -2752.05),
    ],
)
def test_molecules_are_within_a_few_hundredths(symbols, hartree):
    assert ratio_to_free_atoms(atoms(*symbols), ONE, torch.tensor([hartree * EV])) == pytest.approx(
        1, abs=0.03
    )


def test_beyond_krypton_nothing_is_said():
    assert ratio_to_free_atoms(atoms("Rb", "H"), ONE, torch.tensor([-1.0])) is None
    assert ratio_to_free_atoms(atoms("X"), ONE, torch.tensor([-1.0])) is None


@pytest.mark.parametrize("read_as", ["eV", "kcal/mol", "kJ/mol", "Hartree", "meV"])
def test_the_right_unit_is_not_doubted(read_as):
    assert likely_unit(1.01, read_as) is None


@pytest.mark.parametrize(
    ("ratio", "read_as", "unit"),
    [
        (1 / 27.2114, "eV", "Hartree"),
        (23.06, "eV", "kcal/mol"),
        (96.49, "eV", "kJ/mol"),
        (27.2114, "Hartree", "eV"),
        (4.184, "kcal/mol", "kJ/mol"),
        (627.5 * 0.97, "Hartree", "kcal/mol"),
        (23.06 * 1.06, "eV", None),
        (0.0743, "eV", None),
        (0.007, "eV", None),
    ],
)
def test_another_unit_is_named_where_it_fits(ratio, read_as, unit):
    assert likely_unit(ratio, read_as) == unit
