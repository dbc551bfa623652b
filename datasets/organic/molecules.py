"""Molecules of the data set: small ones of QM9, and larger ones grown from fragments.

A molecule belongs to one fold, by a hash of its SMILES: no conformer of a test molecule is ever trained on.
The list of those that the potential is tested on, ``test_molecules.csv``, is made by::

    python datasets/organic/molecules.py
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem, RDLogger

FOLDS = ("train", "validation", "test")
_TEST, _VALIDATION = 8, 4  # per cent of the molecules

# Molecules too small for QM9 or without carbon, solvents, and gases: partners in dimers, too.
SMALL = (
    *("[H][H]", "O", "N", "C", "F", "Cl", "S", "OO", "NN", "NO", "N#N", "O=C=O", "C#N", "C=O", "CO", "CN"),
    *("CF", "CCl", "CS", "C#C", "C=C", "CC", "CC#N", "CC=O", "C(=O)O", "C(=O)N", "CCO", "COC", "CSC"),
    *("CC(C)=O", "CC(=O)O", "CC(=O)N", "CN(C)C=O", "CS(C)=O", "ClC(Cl)Cl", "ClCCl", "FC(F)F", "O=S=O"),
    *("c1ccccc1", "Cc1ccccc1", "c1ccncc1", "C1CCOC1", "c1cc[nH]c1", "c1ccoc1", "c1ccsc1", "CNC(C)=O"),
)
# Cores, linkers and groups of drugs. The first atom of a linker or group is bonded to the molecule.
_CORES = (
    *("c1ccccc1", "c1ccncc1", "c1cncnc1", "c1ccc2[nH]ccc2c1", "c1ccc2ccccc2c1", "c1c[nH]cn1", "c1ccoc1"),
    *("c1ccsc1", "c1cc[nH]c1", "c1cscn1", "c1cocn1", "c1cn[nH]c1", "c1nn[nH]n1", "c1ccc2ncccc2c1"),
    *("C1CCCCC1", "C1CCCC1", "C1CC1", "C1CCNCC1", "C1CCOC1", "C1COCCN1", "C1CNCCN1", "C1CCNC1", "C1CCOCC1"),
    *("CCC", "CC(C)C", "C=CC", "CC(=O)NC", "NCC(=O)O", "CC(N)C(=O)O", "O=C1CCCN1", "O=C1NC(=O)C=CN1"),
    *("O=C1CCCCC1", "C1=CCCCC1", "C1CCSCC1", "O=C1C=CC(=O)C=C1", "OCC(O)CO", "C1CN1", "C1CO1", "C1CCC1"),
)
_LINKERS = ("C", "CC", "C(=O)N", "NC(=O)", "C(=O)O", "O", "N", "S", "C=C", "C#C", "C(=O)", "OC", "NC", "SC")
_LINKERS += ("S(=O)(=O)N", "NC(=O)N", "OC(=O)N", "C=N", "N=C")
_GROUPS = (
    *(
        "C",
        "C",
        "CC",
        "C(C)C",
        "C(C)(C)C",
        "O",
        "OC",
        "OCC",
        "N",
        "NC",
        "N(C)C",
        "C#N",
        "F",
        "F",
        *3 * ("Cl",),
    ),
    *("C(F)(F)F", "OC(F)(F)F", "[N+](=O)[O-]", "C(=O)O", "C(=O)OC", "C(=O)N", "C(=O)NC", "C(=O)C", "C=O"),
    *("S", "SC", "S(=O)(=O)C", "S(=O)(=O)N", "S(=O)C", "C=C", "C#C", "CO", "CN", "CCl", "NC(=O)C", "N=C=O"),
    *("OC(=O)C", "C=NO", "C(=N)N", "c1ccccc1", "c1ccncc1", "C1CC1", "N1CCOCC1", "N1CCCC1", "N(C)C(=O)C"),
)
_UNSTABLE = [  # chains of heteroatoms, geminal ones, acid chlorides, … : such molecules react
    Chem.MolFromSmarts(pattern)
    for pattern in (
        *("[#8X2][#8X2]", "[#16X2][#8X2]", "[#7X3;!a][#8X2]", "[#7X3;!a][#7X3;!a]", "[F,Cl][!#6]"),
        *(
            "[#7X3;!$(N~[C,S]=O)][CX4][#8X2,#7X3,#16X2]",
            "[OX2H][CX4][#8X2,#16X2]",
            "[Cl][CX3]=O",
            "[SX2][SX2]",
        ),
        *("[OX2H][#6X3]=[#6X3;!a]", "[CX4]([F,Cl])[#7X3,#16X2,OX2H]", "[OX2H,NX3H2][#6X2]", "[F,Cl][CX2]"),
    )
]
_MIXTURE = {"qm9": 0.5, "varied": 0.12, "grown": 0.35, "small": 0.03}
_HEAVY = (8, 20)  # of grown molecules
TEST_MOLECULES = Path(__file__).with_name("test_molecules.csv")
_TESTED, _TEST_SEED = 100, 2023  # of each set
_TESTED_HEAVY = (12, 20)  # of the larger ones


def read_qm9() -> list[str]:
    """Read the SMILES of QM9 from the package ``qm9pack``, without importing it."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or spec.origin is None:
        raise SystemExit("QM9 must be installed: pip install qm9pack==1.0.3")
    smiles = []
    for path in sorted((Path(spec.origin).parent / "data").glob("qm9_part*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            smiles += [row["SMILES"] for row in csv.DictReader(file)]
    return smiles


def draw(rng: np.random.Generator, qm9: Sequence[str], fold: str = "train") -> tuple[str, str]:
    """Draw a molecule of a fold.

    Args:
        rng: Source of random numbers.
        qm9: SMILES of QM9.
        fold: One of ``FOLDS``.

    Returns:
        Its canonical SMILES, and where it is from: "qm9"; "varied", one with sulfur, chlorine or fluorine
        instead of oxygen, methyl or hydrogen; "grown", a larger one; or "small".
    """
    origin = str(rng.choice(list(_MIXTURE), p=list(_MIXTURE.values())))
    while True:
        if origin == "small":
            return Chem.CanonSmiles(SMALL[rng.integers(len(SMALL))]), origin  # known to every fold
        if origin == "grown":
            smiles = grow(rng, int(rng.triangular(_HEAVY[0], _HEAVY[0] + 2, _HEAVY[1] + 1)))
        else:
            smiles = Chem.CanonSmiles(qm9[rng.integers(len(qm9))])
            if origin == "varied":
                smiles = vary(smiles, rng)
        if smiles and fold_of(smiles) == fold:
            return smiles, origin


def draw_tested(qm9: Sequence[str]) -> dict[str, list[str]]:
    """Draw the molecules for tests: 100 of QM9, and 100 larger ones of 12 to 20 heavy atoms."""
    rng = np.random.default_rng(_TEST_SEED)
    sets: dict[str, dict[str, None]] = {"qm9": {}, "large": {}}
    while len(sets["qm9"]) < _TESTED or len(sets["large"]) < _TESTED:
        smiles, origin = draw(rng, qm9, "test")
        heavy = Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()
        chosen = (
            "qm9" if origin == "qm9" else "large" if _TESTED_HEAVY[0] <= heavy <= _TESTED_HEAVY[1] else ""
        )
        if chosen and len(sets[chosen]) < _TESTED:
            sets[chosen][smiles] = None
    return {name: list(molecules) for name, molecules in sets.items()}


def read_tested() -> dict[str, list[str]]:
    """Read the molecules for tests: SMILES by set, "qm9" and "large"."""
    sets: dict[str, list[str]] = {}
    with TEST_MOLECULES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sets.setdefault(row["set"], []).append(row["smiles"])
    return sets


def fold_of(smiles: str) -> str:
    """Return the fold of a molecule, the same for all its stereoisomers; small ones are for training."""
    mol = Chem.MolFromSmiles(smiles)
    plain = Chem.MolToSmiles(mol, isomericSmiles=False)
    if mol.GetNumHeavyAtoms() < 5:
        return "train"
    percent = int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big") % 100
    return "test" if percent < _TEST else "validation" if percent < _TEST + _VALIDATION else "train"


def grow(rng: np.random.Generator, heavy: int) -> str:
    """Grow a molecule of at least ``heavy`` and at most ``heavy + 3`` heavy atoms; ``""`` if it fails."""
    mol = Chem.MolFromSmiles(_CORES[rng.integers(len(_CORES))])
    while mol.GetNumHeavyAtoms() < heavy:
        missing = heavy - mol.GetNumHeavyAtoms()
        kinds = [_GROUPS, _LINKERS + _CORES] if missing >= 6 else [_GROUPS]
        fragments = kinds[rng.integers(len(kinds))]
        grown = _attach(mol, Chem.MolFromSmiles(fragments[rng.integers(len(fragments))]), rng)
        if grown is None or grown.GetNumHeavyAtoms() > heavy + 3:
            return ""
        mol = grown
    return Chem.MolToSmiles(mol)


def vary(smiles: str, rng: np.random.Generator) -> str:
    """Replace an oxygen by sulfur, a methyl by chlorine, or a hydrogen of carbon by fluorine."""
    old, new = (("[OX2]", 16), ("[CH3][#6]", 17), ("[#6;H1,H2,H3]", 9))[rng.integers(3)]
    mol = Chem.MolFromSmiles(smiles)
    matches = mol.GetSubstructMatches(Chem.MolFromSmarts(old))
    if not matches:
        return ""
    atom = int(matches[rng.integers(len(matches))][0])
    edited = Chem.RWMol(mol)
    if new == 9:
        edited.AddBond(atom, edited.AddAtom(Chem.Atom(new)), Chem.BondType.SINGLE)
    else:
        edited.GetAtomWithIdx(atom).SetAtomicNum(new)
    return _finished(edited)


def _attach(mol: Chem.Mol, fragment: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    sites = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetTotalNumHs() and atom.GetSymbol() in "CN"]
    ends = [atom.GetIdx() for atom in fragment.GetAtoms() if atom.GetTotalNumHs()]
    if not sites or not ends:
        return None
    ring = fragment.GetAtomWithIdx(0).IsInRing()  # a core is bonded at any of its atoms
    end = ends[rng.integers(len(ends))] if ring else 0
    edited = Chem.RWMol(Chem.CombineMols(mol, fragment))
    site = sites[rng.integers(len(sites))]
    edited.AddBond(site, mol.GetNumAtoms() + end, Chem.BondType.SINGLE)
    for atom in (site, mol.GetNumAtoms() + end):  # [nH] of aromatic rings
        hydrogens = edited.GetAtomWithIdx(atom).GetNumExplicitHs()
        edited.GetAtomWithIdx(atom).SetNumExplicitHs(max(0, hydrogens - 1))
    finished = _finished(edited)
    return Chem.MolFromSmiles(finished) if finished else None


def _finished(mol: Chem.RWMol) -> str:
    """Return the canonical SMILES of a valid molecule without unstable groups, otherwise ``""``."""
    if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return ""
    if any(mol.HasSubstructMatch(pattern) for pattern in _UNSTABLE):
        return ""
    smiles = Chem.MolToSmiles(mol)
    return smiles if Chem.MolFromSmiles(smiles) is not None else ""


if __name__ == "__main__":
    RDLogger.DisableLog("rdApp.*")
    with TEST_MOLECULES.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["set", "smiles"])
        writer.writerows((name, s) for name, found in draw_tested(read_qm9()).items() for s in found)
