"""What the teacher says about the test molecules: computed once, a file a molecule."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.optimize import LBFGS
from rdkit import Chem

sys.path.insert(0, str(Path(__file__).parents[2] / "datasets" / "organic"))

from comparison import frequencies, rmsd
from geometries import KINDS, EmbeddingError, embed, geometries, overlaps, rotatable_bonds, rotate
from make_frames import LARGEST_FORCE, Teacher
from molecules import read_tested

CONFORMERS = 6
FMAX = 0.01  # eV/Å, of a relaxed molecule
ANGLES = np.arange(0.0, 360.0, 15.0)  # of a scan, in degrees
_STEPS = 500
__all__ = ["KINDS", "PARTS", "Teacher", "frequencies", "read_tested", "reference", "rmsd"]

Arrays = dict[str, np.ndarray]


def rng_of(smiles: str) -> np.random.Generator:
    """Return random numbers that depend on the molecule alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "big"))


def frames(smiles: str, teacher: Teacher) -> Arrays:
    """Label frames of a molecule as in the training set, dimers included; their atoms are concatenated."""
    rows, kinds = [], []
    for geometry in geometries(embed(smiles, rng_of(smiles), 2), rng_of(smiles)):
        if overlaps(geometry):
            continue
        try:
            labels = teacher.label(geometry.numbers, geometry.positions)
        except CalculationFailed:
            continue
        if np.linalg.norm(labels["forces"], axis=1).max() < LARGEST_FORCE:
            rows.append((geometry.numbers, geometry.positions, labels["energy"], labels["forces"]))
            kinds.append(KINDS.index(geometry.kind))
    numbers, positions, energies, forces = zip(*rows, strict=True)
    return {
        "n_atoms": np.array([len(z) for z in numbers]),
        "numbers": np.concatenate(numbers),
        "positions": np.concatenate(positions),
        "energy": np.array(energies),
        "forces": np.concatenate(forces),
        "kind": np.array(kinds),
    }


def conformers(smiles: str, teacher: Teacher) -> Arrays:
    """Relax conformers of a molecule; those that come out alike are kept once."""
    mol = embed(smiles, rng_of(smiles), CONFORMERS)
    found: list[tuple[float, np.ndarray]] = []
    for conformer in mol.GetConformers():
        atoms = Atoms(numbers_of(mol), conformer.GetPositions(), calculator=teacher.calculator())
        if LBFGS(atoms, logfile=None).run(fmax=FMAX, steps=_STEPS):
            energy = atoms.get_potential_energy()
            if all(abs(energy - other) > 1e-3 for other, _ in found):
                found.append((energy, atoms.get_positions()))
    return {
        "numbers": numbers_of(mol),
        "positions": np.array([positions for _, positions in found]),
        "energy": np.array([energy for energy, _ in found]),
    }


def torsion(smiles: str, teacher: Teacher) -> Arrays:
    """Turn one side of a bond of a relaxed molecule by whole circle, rigidly; empty without such a bond."""
    rng = rng_of(smiles)
    mol = embed(smiles, rng, 1)
    bonds = rotatable_bonds(mol)
    if not bonds:
        return {}
    bond = bonds[rng.integers(len(bonds))]
    atoms = Atoms(numbers_of(mol), mol.GetConformer().GetPositions(), calculator=teacher.calculator())
    LBFGS(atoms, logfile=None).run(fmax=FMAX, steps=_STEPS)
    scan = [rotate(mol, atoms.get_positions(), bond, angle) for angle in ANGLES]
    energies = [float(teacher.label(atoms.numbers, positions)["energy"]) for positions in scan]
    return {"numbers": atoms.numbers, "positions": np.array(scan), "energy": np.array(energies)}


def vibrations(smiles: str, teacher: Teacher) -> Arrays:
    """Relax a molecule tightly, and compute its frequencies in cm⁻¹."""
    mol = embed(smiles, rng_of(smiles), 1)
    calculator = teacher.calculator()
    atoms = Atoms(numbers_of(mol), mol.GetConformer().GetPositions(), calculator=calculator)
    LBFGS(atoms, logfile=None).run(fmax=0.1 * FMAX, steps=_STEPS)
    positions = atoms.get_positions()
    return {
        "numbers": atoms.numbers,
        "positions": positions,
        "frequencies": frequencies(atoms, calculator),
    }


def speed(smiles: str, teacher: Teacher) -> Arrays:
    """Measure the seconds of one energy with forces, the best of five."""
    mol = embed(smiles, rng_of(smiles), 1)
    numbers, positions = numbers_of(mol), mol.GetConformer().GetPositions()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        teacher.label(numbers, positions)
        seconds.append(time.perf_counter() - start)
    return {"numbers": numbers, "positions": positions, "seconds": np.array(min(seconds))}


PARTS: dict[str, Callable[[str, Teacher], Arrays]] = {
    function.__name__: function for function in (frames, conformers, torsion, vibrations, speed)
}


def reference(part: str, smiles: str, folder: Path, teacher: Teacher) -> Arrays:
    """Read what the teacher computed for a molecule, or compute it; empty if it cannot.

    Args:
        part: One of ``PARTS``.
        smiles: The molecule.
        folder: Where the files are.
        teacher: The teacher.
    """
    path = folder / part / f"{hashlib.sha256(smiles.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = PARTS[part](smiles, teacher)
        except (EmbeddingError, CalculationFailed):
            found = {}
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def numbers_of(mol: Chem.Mol) -> np.ndarray:
    """Return the atomic numbers of a molecule."""
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
