"""Structures from SMILES, embedded by RDKit and relaxed by a force field."""

from __future__ import annotations

import torch
from rdkit import Chem, rdBase
from rdkit.Chem.rdDistGeom import EmbedMolecule, ETKDGv3
from rdkit.Chem.rdForceFieldHelpers import (
    MMFFHasAllMoleculeParams,
    MMFFOptimizeMolecule,
    UFFHasAllMoleculeParams,
    UFFOptimizeMolecule,
)
from torch_geometric.data import Data

from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

_MAX_CHARACTERS = 2000
_MAX_HEAVY_ATOMS = 200  # a chain of so many takes RDKit half a minute
_MAX_ATOMS = 1000  # with hydrogens: ten thousand take RDKit gigabytes; a chain of 200 carbons has 602
_MAX_ATTEMPTS = 50  # to embed; RDKit's default, ten per atom, takes hours for impossible cages
TIMEOUT = 30  # s of each of two ways to embed, about: a hundred rings in a ring would take minutes
_MAX_STEPS = 2000  # of the relaxation, which ends much earlier
_MAX_SEED = 2**31 - 3  # RDKit's generator has the same state for 0, 1 and 2³¹ − 1: it gets the seed plus one


def from_smiles(smiles: str, seed: int = 0, *, dtype: torch.dtype | None = None) -> Data:
    """Build the structure of a molecule from its SMILES.

    Hydrogens are added, and the atoms are placed by ETKDGv3 and relaxed by MMFF94, or by UFF if MMFF94 lacks
    parameters. The same SMILES and seed result in the same structure. It is one of the molecule's conformers,
    near a minimum of a force field: a starting point for a relaxation. Stereochemistry that the SMILES does
    not specify depends on the seed; charges and radicals are in ``smiles`` alone.

    Args:
        smiles: SMILES of one molecule, with at most 2,000 characters, 200 heavy atoms and 1,000 atoms.
        seed: Seed of the embedding; another one may result in another conformer.
        dtype: Precision of the positions; PyTorch's default if ``None``.

    Returns:
        ``z (atoms,)``, ``pos (atoms, 3)`` in Å and ``smiles``. Heavy atoms come first, in the order of
        the SMILES.

    Raises:
        TypeError: If ``smiles`` is no string.
        ValueError: If ``smiles`` is invalid, too long or of several molecules, if an atom is of no element or
            of one beyond 99, or if no structure was found.

    Source:
        ETKDGv3: Wang et al., J. Chem. Inf. Model. 60, 2044 (2020). MMFF94: Halgren, J. Comput. Chem. 17, 490
        (1996). UFF: Rappé et al., J. Am. Chem. Soc. 114, 10024 (1992).
    """
    if not isinstance(smiles, str):
        raise TypeError(f"`smiles` must be a string, got {type(smiles).__name__}")
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"`seed` must be from 0 to {_MAX_SEED}, got {seed}")
    smiles = smiles.strip()
    with rdBase.BlockLogs():  # errors hold what RDKit would write to the terminal
        molecule = Chem.AddHs(_parse(smiles))
        _embed(molecule, smiles, seed)
        _relax(molecule, smiles)
    z = torch.tensor([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    pos = torch.tensor(molecule.GetConformer().GetPositions(), dtype=dtype or torch.get_default_dtype())
    return Data(z=z, pos=pos, smiles=smiles)


def _parse(smiles: str) -> Chem.Mol:
    if not smiles:
        raise ValueError("`smiles` must name at least one atom, got an empty string; water is 'O'")
    if len(smiles) > _MAX_CHARACTERS:
        raise ValueError(
            f"`smiles` must have at most {_MAX_CHARACTERS:,} characters, got {len(smiles):,}: "
            f"{_short(smiles)}; use a smaller molecule"
        )
    if not all(
        "!" <= character <= "~" for character in smiles
    ):  # RDKit takes what follows a blank for a name
        raise ValueError(f"`smiles` must be ASCII without blanks, got {_short(smiles)}; remove the rest")
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(
            f"`smiles` must be a valid SMILES, got {_short(smiles)}{_reason(smiles)}; correct it"
        )
    _check(molecule, smiles)
    return molecule


def _check(molecule: Chem.Mol, smiles: str) -> None:
    fragments = len(Chem.GetMolFrags(molecule))
    if fragments > 1:
        raise ValueError(
            f"`smiles` must be of one molecule, got {fragments} in {_short(smiles)}, whose relative "
            "positions are undefined; build one at a time"
        )
    if molecule.GetNumHeavyAtoms() > _MAX_HEAVY_ATOMS:
        raise ValueError(
            f"`smiles` must have at most {_MAX_HEAVY_ATOMS} heavy atoms, got {molecule.GetNumHeavyAtoms()} "
            f"in {_short(smiles)}; use a smaller molecule"
        )
    atoms = molecule.GetNumAtoms() + sum(atom.GetTotalNumHs() for atom in molecule.GetAtoms())
    if atoms > _MAX_ATOMS:
        raise ValueError(
            f"`smiles` must have at most {_MAX_ATOMS:,} atoms with its hydrogens, got {atoms:,} in "
            f"{_short(smiles)}; use a smaller molecule"
        )
    for atom in molecule.GetAtoms():
        if not 1 <= atom.GetAtomicNum() <= MAX_ATOMIC_NUMBER:
            raise ValueError(
                f"`smiles` must have elements 1 to {MAX_ATOMIC_NUMBER}, got '{atom.GetSymbol()}' in "
                f"{_short(smiles)}; use an element"
            )


def _reason(smiles: str) -> str:
    """Return what is chemically wrong with a SMILES of valid syntax."""
    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    problems = Chem.DetectChemistryProblems(molecule) if molecule is not None else ()
    return f" ({problems[0].Message()})" if problems else ""


def _embed(molecule: Chem.Mol, smiles: str, seed: int) -> None:
    for random_start in (False, True):  # random coordinates are slower and succeed more often
        options = ETKDGv3()
        options.randomSeed = seed + 1
        options.maxIterations = _MAX_ATTEMPTS
        options.useRandomCoords = random_start
        options.timeout = TIMEOUT
        if EmbedMolecule(molecule, options) == 0:
            return
    raise ValueError(
        f"`smiles` must be of a molecule that fits into space; RDKit found no structure for {_short(smiles)} "
        f"with seed {seed}; try another seed"
    )


def _relax(molecule: Chem.Mol, smiles: str) -> None:
    if molecule.GetNumAtoms() == 1:
        return
    if MMFFHasAllMoleculeParams(molecule):
        MMFFOptimizeMolecule(molecule, maxIters=_MAX_STEPS)
    elif UFFHasAllMoleculeParams(molecule):
        UFFOptimizeMolecule(molecule, maxIters=_MAX_STEPS)
    else:
        raise ValueError(
            "`smiles` must be of atoms for which a force field has parameters; neither MMFF94 nor UFF has "
            f"them for {_short(smiles)}; build the structure in another way, for instance with ase.build"
        )


def _short(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 60 else f"{smiles[:57]}…")
