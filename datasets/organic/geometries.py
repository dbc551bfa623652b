"""Geometries of molecules off equilibrium: conformers, dynamics, torsions, stretched bonds, dimers.

The geometries of one molecule are a function of its SMILES and the random numbers. They come from the force
field MMFF94 of RDKit (UFF where it lacks parameters), which costs microseconds; a potential takes its place
where one is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ase import units
from ase.data import atomic_masses, covalent_radii
from molecules import SMALL
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

Gradient = Callable[[np.ndarray], np.ndarray]  # positions in Å → gradient in eV/Å

KINDS = ("conformer", "relaxation", "dynamics", "displacement", "torsion", "bond", "dimer")
_TEMPERATURES = (300.0, 1000.0)  # K
_STEP = 1.0 * units.fs
_FRICTION = 0.02 / units.fs
_INTERVALS = (200, 600)  # steps before a frame
_DISPLACEMENTS = (0.01, 0.12)  # Å, of each coordinate
_STRETCHES = (0.72, 1.7)  # lengths of a bond, in units of that at rest
_CONTACTS = (0.9, 2.6)  # shortest distance of two molecules, in units of the sum of the covalent radii
_OVERLAP = 0.55  # atoms nearer than this, in units of the sum of their covalent radii, repel by over 30 eV/Å
_PARTNER_HEAVY = 9  # largest partner in a dimer
_ROTATABLE = Chem.MolFromSmarts("[!$(*#*)&!D1]-!@[!$(*#*)&!D1]")
_KCAL = units.kcal / units.mol


class Geometry(NamedTuple):
    """Atoms without labels.

    Attributes:
        kind: One of ``KINDS``.
        numbers: Atomic numbers, shape ``(atoms,)``.
        positions: Positions in Å, shape ``(atoms, 3)``.
    """

    kind: str
    numbers: np.ndarray
    positions: np.ndarray


class EmbeddingError(ValueError):
    """No geometry was found, or no force field has parameters."""


def embed(smiles: str, rng: np.random.Generator, conformers: int) -> Chem.Mol:
    """Return a molecule with hydrogens and conformers, relaxed by the force field.

    Raises:
        EmbeddingError: If there are none.
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = int(rng.integers(2**31))
    settings.maxIterations = 50
    settings.pruneRmsThresh = 0.2
    found = list(rdDistGeom.EmbedMultipleConfs(mol, conformers, settings))
    if not found:
        raise EmbeddingError(f"{smiles}: no geometry was found")
    for conformer in found:
        force_field(mol, conformer).Minimize(maxIts=500)
    return mol


def force_field(mol: Chem.Mol, conformer: int = -1):
    """Return the force field of a molecule, MMFF94 or UFF.

    Raises:
        EmbeddingError: If neither has parameters.
    """
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    if properties is not None:
        return rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, confId=conformer)
    if not rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        raise EmbeddingError(f"{Chem.MolToSmiles(mol)}: no force field has parameters")
    return rdForceFieldHelpers.UFFGetMoleculeForceField(mol, confId=conformer)


def geometries(
    mol: Chem.Mol, rng: np.random.Generator, gradient: Gradient | None = None
) -> Iterator[Geometry]:
    """Make the geometries of a molecule, about twelve.

    Args:
        mol: Molecule with hydrogens and conformers.
        rng: Source of random numbers.
        gradient: Gradient of the potential that drives dynamics; by default of the force field.
    """
    gradient = gradient or gradient_of(mol)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    rest = [conformer.GetPositions() for conformer in mol.GetConformers()]

    def any_conformer() -> np.ndarray:
        return rest[rng.integers(len(rest))]

    for positions in rest:
        yield Geometry("conformer", numbers, positions)
    for _ in range(4):
        temperature = np.exp(rng.uniform(*np.log(_TEMPERATURES)))
        steps = int(rng.integers(*_INTERVALS))
        positions = dynamics(numbers, any_conformer(), gradient, temperature, steps, rng)
        if positions is not None:
            yield Geometry("dynamics", numbers, positions)
    sigma = np.exp(rng.uniform(*np.log(_DISPLACEMENTS)))
    yield Geometry("displacement", numbers, any_conformer() + sigma * rng.standard_normal((len(numbers), 3)))
    torsions = rotatable_bonds(mol)
    for _ in range(min(2, len(torsions))):
        positions = rotate(
            mol, any_conformer(), torsions[rng.integers(len(torsions))], rng.uniform(-180, 180)
        )
        yield Geometry("torsion", numbers, shaken(positions, rng))
    for _ in range(2):
        bond = mol.GetBondWithIdx(int(rng.integers(mol.GetNumBonds())))
        positions = stretch(mol, any_conformer(), bond, rng.uniform(*_STRETCHES))
        yield Geometry("bond", numbers, shaken(positions, rng))
    yield dimer(numbers, any_conformer(), rng)


def gradient_of(mol: Chem.Mol) -> Gradient:
    """Return the gradient of the force field as a function of the positions."""
    field = force_field(mol)

    def gradient(positions: np.ndarray) -> np.ndarray:
        flat = positions.ravel().tolist()
        field.CalcEnergy(flat)  # RDKit keeps distances, and only the energy renews them
        return np.array(field.CalcGrad(flat)).reshape(-1, 3) * _KCAL

    return gradient


def dynamics(
    numbers: np.ndarray,
    positions: np.ndarray,
    gradient: Gradient,
    temperature: float,
    steps: int,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Run Langevin dynamics (BAOAB, Leimkuhler and Matthews 2013) and return the last positions.

    Args:
        numbers: Atomic numbers, shape ``(atoms,)``.
        positions: First positions in Å, shape ``(atoms, 3)``.
        gradient: Gradient in eV/Å.
        temperature: Temperature in K, also of the first velocities.
        steps: Time steps of 1 fs.
        rng: Source of random numbers.

    Returns:
        Positions in Å, or ``None`` if atoms overlap or fly apart.
    """
    mass = atomic_masses[numbers][:, None]
    mass = np.where(numbers[:, None] == 1, 2.0, mass)  # heavy hydrogen, for a step of 1 fs; the same ensemble
    thermal = np.sqrt(units.kB * temperature / mass)
    keep = np.exp(-_FRICTION * _STEP)
    velocities = thermal * rng.standard_normal(positions.shape)
    positions = positions - (mass * positions).sum(axis=0) / mass.sum()
    slope = gradient(positions)
    for _ in range(steps):
        velocities = velocities - 0.5 * _STEP * slope / mass
        positions = positions + 0.5 * _STEP * velocities
        noise = np.sqrt(1 - keep**2) * thermal * rng.standard_normal(positions.shape)
        velocities = keep * velocities + noise
        positions = positions + 0.5 * _STEP * velocities
        slope = gradient(positions)
        velocities = velocities - 0.5 * _STEP * slope / mass
        if not np.abs(slope).max() < 100:
            return None
    return positions - (mass * positions).sum(axis=0) / mass.sum()


def rotatable_bonds(mol: Chem.Mol) -> tuple[tuple[int, int], ...]:
    """Return the pairs of atoms about whose bonds a molecule turns: single, in no ring, not at its end."""
    return mol.GetSubstructMatches(_ROTATABLE)


def rotate(mol: Chem.Mol, positions: np.ndarray, bond: tuple[int, int], angle: float) -> np.ndarray:
    """Turn one side of a bond to a dihedral angle in degrees; all bonds and angles stay."""
    first, second = bond
    before = next(a.GetIdx() for a in mol.GetAtomWithIdx(first).GetNeighbors() if a.GetIdx() != second)
    after = next(a.GetIdx() for a in mol.GetAtomWithIdx(second).GetNeighbors() if a.GetIdx() != first)
    copy = _conformer(mol, positions)
    rdMolTransforms.SetDihedralDeg(copy, before, first, second, after, float(angle))
    return copy.GetPositions()


def stretch(mol: Chem.Mol, positions: np.ndarray, bond: Chem.Bond, factor: float) -> np.ndarray:
    """Stretch or compress a bond: both sides move apart, or only its two atoms if it is in a ring."""
    first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    axis = positions[second] - positions[first]
    moved = {second}
    if not bond.IsInRing():
        stack = [second]
        while stack:
            for neighbor in mol.GetAtomWithIdx(stack.pop()).GetNeighbors():
                index = neighbor.GetIdx()
                if index != first and index not in moved:
                    moved.add(index)
                    stack.append(index)
    positions = positions.copy()
    positions[sorted(moved)] += (factor - 1) * axis
    return positions


def dimer(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Geometry:
    """Place a small molecule, or the same one, beside a molecule at a distance from overlap to no contact."""
    if len(numbers) <= 20 and rng.random() < 0.3:
        other_numbers, other = numbers, shaken(positions, rng)
    else:
        partner = embed(SMALL[rng.integers(len(SMALL))], rng, 1)
        other_numbers = np.array([atom.GetAtomicNum() for atom in partner.GetAtoms()])
        other = shaken(partner.GetConformer().GetPositions(), rng)
    other = (other - other.mean(axis=0)) @ _rotation(rng)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    positions = positions - positions.mean(axis=0)
    radii = covalent_radii[numbers][:, None] + covalent_radii[other_numbers][None]
    contact = rng.uniform(*_CONTACTS)
    far, near = 40.0, 0.0
    for _ in range(40):  # bisection: the other molecule comes from afar until it touches
        middle = 0.5 * (far + near)
        distances = np.linalg.norm(positions[:, None] - (other + middle * direction)[None], axis=-1)
        far, near = (middle, near) if (distances / radii).min() > contact else (far, middle)
    both = np.concatenate([positions, other + far * direction])
    return Geometry("dimer", np.concatenate([numbers, other_numbers]), both)


def shaken(positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Displace atoms by 0.02 Å, so that no frame is of exactly the force field's lengths and angles."""
    return positions + 0.02 * rng.standard_normal(positions.shape)


def overlaps(geometry: Geometry) -> bool:
    """Return whether two atoms are so near that no electronic structure makes sense."""
    distances = np.linalg.norm(geometry.positions[:, None] - geometry.positions[None], axis=-1)
    radii = covalent_radii[geometry.numbers]
    np.fill_diagonal(distances, np.inf)
    return bool((distances < _OVERLAP * (radii[:, None] + radii[None])).any())


def _conformer(mol: Chem.Mol, positions: np.ndarray) -> Chem.Conformer:
    conformer = Chem.Conformer(mol.GetConformer())
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=float))
    return conformer


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation matrix, uniform by the QR decomposition of Gaussian numbers."""
    matrix, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    matrix = matrix * np.sign(np.diag(upper))
    return matrix if np.linalg.det(matrix) > 0 else -matrix
