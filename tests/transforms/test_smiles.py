"""Molecules from SMILES."""

import os
import subprocess
import sys

import pytest
import torch

from pyg_schnet.transforms import smiles as smiles_module
from pyg_schnet.transforms.smiles import from_smiles


def distance(data, first, second):
    return float((data.pos[first] - data.pos[second]).norm())


def test_water_has_its_hydrogens_and_a_known_geometry():
    water = from_smiles("O", dtype=torch.float64)
    assert water.z.tolist() == [8, 1, 1]
    assert water.z.dtype == torch.long
    assert water.smiles == "O"
    assert distance(water, 0, 1) == pytest.approx(0.969, abs=1e-3)  # MMFF94, Å


def test_heavy_atoms_come_first_in_the_order_of_the_smiles():
    assert from_smiles("OCC#N").z.tolist() == [8, 6, 6, 7, 1, 1, 1]


def test_the_structure_is_relaxed():
    """All bonds of benzene are alike after the force field, not after ETKDG alone."""
    benzene = from_smiles("c1ccccc1", dtype=torch.float64)
    bonds = [distance(benzene, i, (i + 1) % 6) for i in range(6)]
    assert max(bonds) - min(bonds) < 1e-3
    assert bonds[0] == pytest.approx(1.395, abs=2e-3)  # MMFF94, Å


def test_the_same_seed_gives_the_same_structure_to_the_bit():
    first, again = (from_smiles("CC(O)C(=O)O", 7, dtype=torch.float64) for _ in range(2))
    assert torch.equal(first.pos, again.pos)


def test_different_seeds_give_different_structures():
    """RDKit's generator starts alike at 0 and 1."""
    made = [from_smiles("CCCCCC", seed, dtype=torch.float64).pos for seed in (0, 1, 2**31 - 3)]
    assert not torch.allclose(made[0], made[1])
    assert not torch.allclose(made[0], made[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_have_pytorch_s_precision_unless_told(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert from_smiles("C").pos.dtype == dtype
        assert from_smiles("C", dtype=torch.float64).pos.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_where_mmff94_has_no_parameters_uff_relaxes():
    borane = from_smiles("B", dtype=torch.float64)
    bonds = [distance(borane, 0, i) for i in (1, 2, 3)]
    assert bonds == pytest.approx([bonds[0]] * 3, abs=1e-3)


def test_an_atom_needs_no_force_field():
    assert from_smiles("[Xe]").pos.tolist() == [[0, 0, 0]]


def test_stereochemistry_is_kept():
    """Mirror images: the same distances, the opposite volume at the center."""
    volumes = []
    for smiles in ("F[C@H](Cl)Br", "F[C@@H](Cl)Br"):
        pos = from_smiles(smiles, dtype=torch.float64).pos
        volumes.append(float(torch.linalg.det(pos[[0, 2, 3]] - pos[1])))
    assert volumes[0] * volumes[1] < 0


def test_blanks_around_are_removed():
    assert from_smiles(" C\n").smiles == "C"


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("", r"name at least one atom, got an empty"),
        (" \n", r"name at least one atom, got an empty"),
        ("C(C", r"be a valid SMILES, got 'C\(C'; correct it$"),
        ("CN(C)(C)(C)C", r"got 'CN\(C\)\(C\)\(C\)C' \(Explicit valence for atom # 1 N, 5, is greater than"),
        ("CO.O", r"be of one molecule, got 2 in 'CO\.O'"),
        ("CCO ethanol", r"be ASCII without blanks, got 'CCO ethanol'; remove the rest"),
        ("C\0C", r"be ASCII without blanks, got 'C\\x00C'"),
        ("CÖ", r"be ASCII without blanks"),
        ("*C", r"have elements 1 to 99, got '\*' in '\*C'"),
        ("[Lr]", r"have elements 1 to 99, got 'Lr'"),
        ("F[Xe]F", r"neither MMFF94 nor UFF has them for 'F\[Xe\]F'"),
        ("C" * 201, r"have at most 200 heavy atoms, got 201 in 'C{57}…'"),
        ("C" * 2001, r"have at most 2,000 characters, got 2,001: 'C{57}…'"),
        ("(" * 2000, r"be a valid SMILES, got '\({57}…'"),
    ],
)
def test_what_is_no_molecule_is_refused(smiles, message):
    with pytest.raises(ValueError, match=rf"^`smiles` must .*{message}"):
        from_smiles(smiles)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"^`smiles`.*NoneType"):
        from_smiles(None)


@pytest.mark.parametrize("seed", [-1, 2**31 - 2])
def test_a_seed_that_would_not_seed_is_refused(seed):
    with pytest.raises(ValueError, match=rf"^`seed`.*0.*2147483645.*{seed}"):
        from_smiles("C", seed)


@pytest.mark.process
def test_rdkit_says_nothing_by_itself():
    """Not even from C++, hence a process of its own."""
    code = (
        "from pyg_schnet.transforms.smiles import from_smiles\n"
        "for smiles in ('C(C', 'CN(C)(C)(C)C', 'F[Xe]F', 'B'):\n"
        "    try:\n"
        "        from_smiles(smiles)\n"
        "    except ValueError:\n"
        "        pass\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_what_does_not_fit_into_space_is_refused(monkeypatch):
    monkeypatch.setattr(smiles_module, "EmbedMolecule", lambda *_: -1)  # RDKit finds more each year
    with pytest.raises(ValueError, match=r"structure.*'C=1=C=C1'.*seed.*0.*another"):
        from_smiles("C=1=C=C1")


@pytest.mark.process
def test_a_ring_of_rings_does_not_keep_it_busy_for_ever(monkeypatch):
    monkeypatch.setattr(smiles_module, "TIMEOUT", 1)
    with pytest.raises(ValueError, match="RDKit found no structure"):
        from_smiles("".join(f"C%{n}" for n in range(10, 60)) * 2)


def test_hydrogens_in_brackets_count_as_atoms():
    with pytest.raises(ValueError, match=r"1,000.*atoms.*10,000"):
        from_smiles("[UH99]" * 100)
