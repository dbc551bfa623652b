"""Bonds and features are those that a chemist would draw, in the order of the geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rdkit import Chem

from pyg_schnet.datasets.qm9_bonds import (
    bond_graph,
    molecule_from_block,
    molecule_from_smiles,
    smiles_from,
)

NUMBER = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
KINDS = "-=#:"  # single, double, triple, aromatic: the columns of edge_attr
# Symbols and positions, in Å.
METHANE = ("CHHHH", "0 0 0  0.6 0.6 0.6  -0.6 -0.6 0.6  0.6 -0.6 -0.6  -0.6 0.6 -0.6")
ETHYNE = ("CCHH", "0 0 0.6  0 0 -0.6  0 0 1.67  0 0 -1.67")
PROPENE = (
    "CCCHHHHHH",
    "0 0 0  1.5 0 0  2.2 1.1 0  -0.5 0.9 0  -0.5 -0.5 0.8  -0.5 -0.5 -0.8  2 -0.95 0  3.28 1.1 0  1.7 2.05 0",
)
GLYCINE = (
    "NCCOOHHHHH",
    "0 0 0  1.49 0 0  2 1.43 0  1.2 2.4 0  3.25 1.5 0  -0.35 0.95 0  -0.35 -0.5 0.83  "
    "-0.35 -0.5 -0.83  1.85 -0.52 0.89  1.85 -0.52 -0.89",
)
# The six molecules of QM9 whose SMILES order their heavy atoms otherwise than the geometry; positions as
# published, to three digits, and bonds as drawn by hand.
REORDERED = {
    "gdb_23": (
        "C#CC#C",
        ("CCCCHH", "0.681 0 0  -0.681 0 0  -1.888 0 0  1.888 0 0  -2.95 0 0  2.95 0 0"),
        "0-1 1#2 0#3 2-4 3-5",
    ),
    "gdb_24": (
        "C#CC#N",
        ("CCCHN", "0.015 0 1  1.382 0 1  -1.189 0 1  -2.252 0 1  2.543 0 1"),
        "0-1 0#2 1#4 2-3",
    ),
    "gdb_486": (
        "N#CC#CC#N",
        ("CCCCNN", "0.605 0 0  -0.605 0 0  -1.968 0 0  1.968 0 0  -3.129 0 0  3.129 0 0"),
        "0#1 1-2 0-3 2#4 3#5",
    ),
    "gdb_52466": (
        "CC#CC#CC#CC=O",
        (
            "OCHCCCCCCCHHH",
            "0.06 0.055 -0.018  0.006 -0.001 1.191  0.923 -0.058 1.812  -1.214 0.001 1.949  "
            "-2.23 0.001 2.62  -3.354 0.001 3.361  -4.375 0.001 4.031  -5.501 0.001 4.771  "
            "-6.516 0 5.437  -7.729 0 6.23  -8.318 -0.904 6.042  -8.356 0.865 5.987  "
            "-7.501 0.038 7.301",
        ),
        "0=1 1-2 1-3 3#4 4-5 5#6 6-7 7#8 8-9 9-10 9-11 9-12",
    ),
    "gdb_59818": (
        "CC(C)N=COCC#C",
        (
            "NCHCCHHHHHHCHOCHHCCH",
            "-0.208 0 -0.031  -0.037 0 1.417  1.035 0 1.688  -0.68 -1.267 1.994  -0.68 1.267 1.994  "
            "-1.743 -1.304 1.735  -1.743 1.304 1.735  -0.585 -1.286 3.084  -0.585 1.286 3.084  "
            "-0.203 -2.165 1.59  -0.203 2.165 1.59  0.825 0 -0.743  1.857 0 -0.357  0.732 0 -2.093  "
            "1.985 0 -2.783  2.572 -0.887 -2.501  2.572 0.887 -2.501  1.747 0 -4.217  1.586 0 -5.406  "
            "1.434 0 -6.457",
        ),
        "0-1 0=11 1-2 1-3 1-4 3-5 3-7 3-9 4-6 4-8 4-10 11-12 11-13 13-14 14-15 14-16 14-17 17#18 18-19",
    ),
    "gdb_133487": (
        "CC#CCCC(F)(F)F",
        (
            "CCCHHHHCFFFCCHHH",
            "-0.014 0.082 -0.072  0.017 0.128 1.385  1.434 -0.095 1.947  -0.655 -0.632 1.801  "
            "-0.358 1.096 1.74  1.821 -1.069 1.636  2.12 0.67 1.575  1.463 -0.047 3.459  "
            "2.704 -0.244 3.929  0.674 -0.99 4.003  1.04 1.14 3.928  -0.011 0.039 -1.275  "
            "-0.024 -0.009 -2.73  -0.681 -0.807 -3.095  0.978 -0.196 -3.131  -0.381 0.935 -3.157",
        ),
        "0-1 0#11 1-2 1-3 1-4 2-5 2-6 2-7 7-8 7-9 7-10 11-12 12-13 12-14 12-15",
    ),
}


def benzene():
    angle = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    return "C" * 6 + "H" * 6, np.concatenate([1.39 * ring, 2.48 * ring])


def from_smiles(smiles, geometry):
    symbols, positions = geometry
    numbers = np.array([NUMBER[symbol] for symbol in symbols])
    return molecule_from_smiles(smiles, numbers, as_array(positions))


def as_array(positions):
    if isinstance(positions, str):
        positions = [float(number) for number in positions.split()]
    return np.array(positions, dtype=np.float64).reshape(-1, 3)


def block(symbols, bonds, positions=None, more=()):
    """An MDL block; bonds as "0-1 1=2"."""
    positions = np.zeros((len(symbols), 3)) if positions is None else as_array(positions)
    bonds = [parsed(bond) for bond in bonds.split()]
    lines = ["name", "  program", "", f"{len(symbols):3}{len(bonds):3}  0     0  0  0  0  0  0999 V2000"]
    for symbol, (x, y, z) in zip(symbols, positions, strict=True):
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3}" + " 0" + "  0" * 11)
    for first, second, kind in bonds:
        lines.append(f"{first + 1:3}{second + 1:3}{KINDS.index(kind) + 1:3}  0  0  0  0")
    return "\n".join([*lines, *more, "M  END", ""])


def parsed(bond):
    kind = next(kind for kind in KINDS if kind in bond)
    first, second = map(int, bond.split(kind))
    return first, second, kind


def drawn(molecule):
    """Bonds of a molecule's graph, as "0-1 1=2", each of which must be there in both directions."""
    graph = bond_graph(molecule)
    assert graph.edge_index.dtype == torch.long
    assert (graph.edge_attr.sum(1) == 1).all()
    kinds = [KINDS[i] for i in graph.edge_attr.argmax(1).tolist()]
    edges = graph.edge_index.t().tolist()
    assert edges == sorted(edges)
    bonds = {(i, j): kind for (i, j), kind in zip(edges, kinds, strict=True)}
    assert len(bonds) == len(edges)
    assert all(bonds[j, i] == kind for (i, j), kind in bonds.items())
    return ordered(f"{i}{kind}{j}" for (i, j), kind in bonds.items() if i < j)


def ordered(bonds):
    bonds = map(parsed, bonds.split() if isinstance(bonds, str) else bonds)
    rows = sorted((min(i, j), max(i, j), kind) for i, j, kind in bonds)
    return " ".join(f"{i}{kind}{j}" for i, j, kind in rows)


def features(molecule):
    """Features of the atoms: one of HCNOF, atomic number, aromatic, sp, sp2, sp3, number of hydrogens."""
    return [[int(value) for value in row] for row in bond_graph(molecule).x.tolist()]


def test_methane():
    molecule = from_smiles("C", METHANE)
    assert drawn(molecule) == "0-1 0-2 0-3 0-4"
    hydrogen = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert features(molecule) == [[0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 4], *4 * [hydrogen]]
    assert bond_graph(molecule).x.dtype == torch.float32


def test_ethyne_is_linear():
    molecule = from_smiles("C#C", ETHYNE)
    assert drawn(molecule) == "0#1 0-2 1-3"
    assert features(molecule)[:2] == 2 * [[0, 1, 0, 0, 0, 6, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("smiles", ["c1ccccc1", "C1=CC=CC=C1"])
def test_benzene_is_aromatic(smiles):
    molecule = from_smiles(smiles, benzene())
    assert drawn(molecule) == "0:1 0:5 0-6 1:2 1-7 2:3 2-8 3:4 3-9 4:5 4-10 5-11"
    assert features(molecule)[:6] == 6 * [[0, 1, 0, 0, 0, 6, 1, 0, 1, 0, 1]]


def test_benzene_is_aromatic_from_single_and_double_bonds():
    symbols, positions = benzene()
    molecule = molecule_from_block(
        block(symbols, "0=1 1-2 2=3 3-4 4=5 5-0 0-6 1-7 2-8 3-9 4-10 5-11", positions)
    )
    assert drawn(molecule) == drawn(from_smiles("c1ccccc1", benzene()))
    assert features(molecule) == features(from_smiles("c1ccccc1", benzene()))
    assert smiles_from(molecule) == "c1ccccc1"


def test_glycine_may_carry_two_charges():
    molecule = from_smiles("[NH3+]CC([O-])=O", GLYCINE)
    assert drawn(molecule) == "0-1 0-5 0-6 0-7 1-2 1-8 1-9 2-3 2=4"
    nitrogen, carbon, carboxylate = features(molecule)[:3]
    assert nitrogen == [0, 0, 1, 0, 0, 7, 0, 0, 0, 1, 3]
    assert carbon == [0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 2]
    assert carboxylate == [0, 1, 0, 0, 0, 6, 0, 0, 1, 0, 0]
    assert all(row[-1] == 0 for row in features(molecule)[3:])


def test_charges_that_an_mdl_block_leaves_out_are_added():
    molecule = molecule_from_block(block(GLYCINE[0], "0-1 0-5 0-6 0-7 1-2 1-8 1-9 2-3 2=4", GLYCINE[1]))
    assert features(molecule) == features(from_smiles("[NH3+]CC([O-])=O", GLYCINE))
    assert smiles_from(molecule) == "[NH3+]CC(=O)[O-]"


@pytest.mark.parametrize(
    ("symbols", "bonds", "smiles"),
    [
        ("CCHHHN", "0-1 0-2 0-3 0-4 1#5", "CC#N"),
        ("NCHHHC", "0-1 0#5 1-2 1-3 1-4", "[C-]#[N+]C"),
        ("OCCHHHHHHH", "0-1 0-2 0-3 1-4 1-5 1-6 2-7 2-8 2-9", "C[OH+]C"),
        ("NCCHHHHHH", "0-1 0-2 1-3 1-4 1-5 2-6 2-7 2-8", "C[N-]C"),
    ],
)
def test_charges_follow_from_the_number_of_bonds(symbols, bonds, smiles):
    molecule = smiles_from(molecule_from_block(block(symbols, bonds)))
    assert Chem.CanonSmiles(molecule) == Chem.CanonSmiles(smiles)


def test_charges_that_an_mdl_block_has_are_kept():
    text = block("CHHH", "0-1 0-2 0-3", more=["M  CHG  1   1   1"])
    assert smiles_from(molecule_from_block(text)) == "[CH3+]"


@pytest.mark.parametrize("name", REORDERED)
def test_smiles_may_order_the_atoms_otherwise_than_the_geometry(name):
    smiles, geometry, bonds = REORDERED[name]
    molecule = from_smiles(smiles, geometry)
    assert drawn(molecule) == ordered(bonds)
    assert [atom.GetSymbol() for atom in molecule.GetAtoms()] == list(geometry[0])


@pytest.mark.parametrize("smiles", ["CC=C", "C=CC", "C(C)=C"])
def test_either_end_may_come_first(smiles):
    molecule = from_smiles(smiles, PROPENE)
    assert drawn(molecule) == "0-1 0-3 0-4 0-5 1=2 1-6 2-7 2-8"
    assert [row[6:] for row in features(molecule)[:3]] == [[0, 0, 0, 1, 3], [0, 0, 1, 0, 1], [0, 0, 1, 0, 2]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["gdb_59818", "gdb_133487"])
def test_features_follow_the_order_of_the_geometry(name, seed):
    smiles, (symbols, positions), bonds = REORDERED[name]
    order = np.random.default_rng(seed).permutation(len(symbols))
    place = np.argsort(order)
    shuffled = "".join(symbols[i] for i in order), as_array(positions)[order]
    expected = [(place[i], place[j], kind) for i, j, kind in map(parsed, bonds.split())]
    molecule = from_smiles(smiles, shuffled)
    assert drawn(molecule) == ordered(f"{i}{kind}{j}" for i, j, kind in expected)
    whole = features(from_smiles(smiles, (symbols, positions)))
    assert features(molecule) == [whole[i] for i in order]


def test_one_atom_has_no_bonds():
    graph = bond_graph(from_smiles("[C]", ("C", [[0, 0, 0]])))
    assert (graph.x.shape, graph.edge_index.shape, graph.edge_attr.shape) == ((1, 11), (2, 0), (0, 4))


@pytest.mark.parametrize("smiles", ["C", "N", "C=C=C", "CCC", "CC=C.C", "CC=O", "[H][H]"])
def test_smiles_of_another_molecule_are_refused(smiles):
    with pytest.raises(ValueError, match=r"`smiles`.*molecule.*another.*'.+'"):
        from_smiles(smiles, PROPENE)


def test_hydrogen_alone_is_no_molecule_of_smiles():
    with pytest.raises(ValueError, match=r"`smiles`.*molecule"):
        from_smiles("[H][H]", ("HH", [[0, 0, 0], [0, 0, 0.74]]))


def test_a_hydrogen_at_the_wrong_atom_is_refused():
    symbols, positions = PROPENE
    moved = as_array(positions)
    moved[-1] = [1.9, -0.5, 0.9]  # at the second atom, not the third
    with pytest.raises(ValueError, match="must be the molecule of its geometry"):
        from_smiles("CC=C", (symbols, moved))


@pytest.mark.parametrize("smiles", ["xx", "C(", "c1cc1", "C=N(C)=C=C"])
def test_text_that_is_no_smiles_is_refused(smiles, capfd):
    with pytest.raises(ValueError, match=r"`smiles`.*SMILES.*'.+'"):
        from_smiles(smiles, METHANE)
    assert capfd.readouterr() == ("", "")  # RDKit would write to stderr


@pytest.mark.parametrize(
    "text", ["", "no molecule", "a\n\n\n", block("CH", "0-1").replace("V2000", "V2000x").replace("0999", "")]
)
def test_text_that_is_no_block_is_refused(text, capfd):
    with pytest.raises(ValueError, match=r"MDL.*molecule.*another"):
        molecule_from_block(text)
    assert capfd.readouterr() == ("", "")


def test_a_bond_to_no_atom_is_refused():
    with pytest.raises(ValueError, match=r"MDL.*molecule"):
        molecule_from_block(block("CH", "0-1").replace("  1  2  1", "  1  9  1"))


@pytest.mark.parametrize("kind", [5, 8, 9])
def test_other_kinds_of_bonds_are_refused(kind):
    molecule = molecule_from_block(block("CO", "0-1").replace("  1  2  1", f"  1  2  {kind}"))
    with pytest.raises(ValueError, match=r"bonds.*[a-z]+"):
        bond_graph(molecule)


def test_an_impossible_valence_is_let_through(capfd):
    """PyG's archive may hold some, and PyG keeps them."""
    molecule = molecule_from_block(block("CHHHHH", "0-1 0-2 0-3 0-4 0-5"))
    assert drawn(molecule) == "0-1 0-2 0-3 0-4 0-5"
    assert smiles_from(molecule) == "[CH5]"
    assert capfd.readouterr() == ("", "")
