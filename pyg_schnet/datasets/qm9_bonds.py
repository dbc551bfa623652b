"""Chemical bonds of known molecules, and the features of atoms and bonds in PyG's QM9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem, rdBase
from rdkit.Chem.rdchem import BondType, HybridizationType
from torch import Tensor

_TYPES = (1, 6, 7, 8, 9)
_HYBRIDS = (HybridizationType.SP, HybridizationType.SP2, HybridizationType.SP3)
_BONDS = (BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC)
_RADII = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57}  # Å, covalent, Cordero et al. 2008
# Formal charges, omitted in MDL blocks of QM9, by element and sum of bond orders.
_CHARGES = {(7, 4): 1, (7, 2): -1, (8, 3): 1, (8, 1): -1, (6, 3): -1}
_MOST_ORDERS = 100  # orders of the heavy atoms that are tried


class BondGraph(NamedTuple):
    """Bonds and features of a molecule.

    Attributes:
        x: Features of atoms, shape ``(atoms, 11)``: one-hot H, C, N, O, F; atomic number; aromatic; sp; sp2;
            sp3; number of bound hydrogens.
        edge_index: Bonds in both directions, sorted, shape ``(2, edges)``.
        edge_attr: Features of bonds, shape ``(edges, 4)``: one-hot single, double, triple, aromatic.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor


def molecule_from_smiles(smiles: str, numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    """Build an RDKit molecule with explicit hydrogens and its atoms in the order of a geometry.

    Args:
        smiles: SMILES with the heavy atoms in the order of the geometry.
        numbers: Atomic numbers of the geometry, shape ``(atoms,)``.
        positions: Positions in Å, shape ``(atoms, 3)``; each hydrogen is bound to the nearest heavy atom.

    Raises:
        ValueError: If SMILES and geometry are different molecules.
    """
    with rdBase.BlockLogs():
        skeleton = Chem.MolFromSmiles(smiles)
    if skeleton is None:
        raise ValueError(f"`smiles` must be a valid SMILES, got {smiles!r}")
    light = np.flatnonzero(numbers == 1)
    orders = _orders(skeleton, numbers, positions)
    heavy = next((order for order in orders if _fits(skeleton, numbers, positions, order, light)), None)
    if heavy is None:
        raise ValueError(f"`smiles` must be the molecule of its geometry, got another one, {smiles!r}")
    place = np.empty(len(numbers), dtype=np.int64)  # index in RDKit's order of each atom of the geometry
    place[heavy] = np.arange(len(heavy))
    owner = _owners(positions, heavy, light)
    place[light[np.argsort(owner, kind="stable")]] = np.arange(len(heavy), len(numbers))
    return Chem.RenumberAtoms(Chem.AddHs(skeleton), place.tolist())


def _owners(positions: np.ndarray, heavy: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the nearest heavy atom of each hydrogen."""
    return np.linalg.norm(positions[light][:, None] - positions[heavy], axis=-1).argmin(axis=1)


def _fits(
    skeleton: Chem.Mol, numbers: np.ndarray, positions: np.ndarray, heavy: np.ndarray, light: np.ndarray
) -> bool:
    """Return whether elements and numbers of hydrogens of SMILES and geometry agree in this order."""
    if [atom.GetAtomicNum() for atom in skeleton.GetAtoms()] != numbers[heavy].tolist():
        return False
    wanted = [atom.GetTotalNumHs() for atom in skeleton.GetAtoms()]
    return np.bincount(_owners(positions, heavy, light), minlength=len(heavy)).tolist() == wanted


def _orders(skeleton: Chem.Mol, numbers: np.ndarray, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield possible orders of the heavy atoms: that of the geometry, then those that match its distances.

    Six molecules of QM9 require the latter.
    """
    yield np.flatnonzero(numbers != 1)
    radius = np.array([_RADII.get(number, 0.0) for number in numbers.tolist()])
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    bound = np.triu(distance < 1.3 * (radius[:, None] + radius), k=1)
    graph = Chem.RWMol()
    for number in numbers.tolist():
        graph.AddAtom(Chem.Atom(number))
    for first, second in np.argwhere(bound).tolist():
        graph.AddBond(first, second, BondType.SINGLE)
    generic = Chem.AdjustQueryParameters.NoAdjustments()
    generic.makeBondsGeneric = True
    query = Chem.AdjustQueryProperties(skeleton, generic)
    found = graph.GetSubstructMatches(query, uniquify=False, maxMatches=_MOST_ORDERS)
    yield from (np.array(order, dtype=np.int64) for order in found)


def molecule_from_block(block: str) -> Chem.Mol:
    """Build an RDKit molecule from an MDL block with all hydrogens; missing formal charges are added.

    Impossible valences are accepted as in PyG; such atoms may have no hybridization.

    Raises:
        ValueError: If the block is not a molecule.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        if molecule is None:
            raise ValueError("the MDL block must be a molecule, got another text; download it again")
        for atom in molecule.GetAtoms():
            order = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
            given = atom.GetFormalCharge()
            atom.SetFormalCharge(given or _CHARGES.get((atom.GetAtomicNum(), int(order)), 0))
            atom.SetNoImplicit(True)
        Chem.SanitizeMol(molecule, catchErrors=True)
    return molecule


def smiles_from(molecule: Chem.Mol) -> str:
    """Return the SMILES of a molecule without explicit hydrogens."""
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.RemoveHs(molecule, sanitize=False), isomericSmiles=False)


def bond_graph(molecule: Chem.Mol) -> BondGraph:
    """Compute the features of a molecule with all hydrogens, in the order of its atoms.

    Raises:
        ValueError: If a bond is not single, double, triple or aromatic.
    """
    atoms = list(molecule.GetAtoms())
    numbers = [atom.GetAtomicNum() for atom in atoms]
    rows, kinds = [], []
    for bond in molecule.GetBonds():
        ends, kind = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()), bond.GetBondType()
        if kind not in _BONDS:
            raise ValueError(f"bonds must be single, double, triple or aromatic, got {str(kind).lower()}")
        rows += [ends, ends[::-1]]
        kinds += 2 * [_BONDS.index(kind)]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    hydrogens = [0] * len(atoms)
    for source, target in rows:
        hydrogens[target] += numbers[source] == 1
    x = [_atom_features(atom, hydrogens[atom.GetIdx()]) for atom in atoms]
    edge_index = torch.tensor([rows[i] for i in order], dtype=torch.long).view(-1, 2).t().contiguous()
    kind = torch.tensor([kinds[i] for i in order], dtype=torch.long)
    edge_attr = torch.nn.functional.one_hot(kind, len(_BONDS)).float()
    return BondGraph(torch.tensor(x, dtype=torch.float32), edge_index, edge_attr)


def _atom_features(atom: Chem.Atom, hydrogens: int) -> list[float]:
    number, hybrid = atom.GetAtomicNum(), atom.GetHybridization()
    kinds = [number == kind for kind in _TYPES]
    return [*kinds, number, atom.GetIsAromatic(), *(hybrid == kind for kind in _HYBRIDS), hydrogens]
