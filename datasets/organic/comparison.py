"""Comparison of geometries and vibrations of two potentials."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator


def rmsd(first: np.ndarray, second: np.ndarray) -> float:
    """Return the root mean square distance of atoms after superposition, in Å.

    Source:
        Kabsch, Acta Cryst. A 32, 922 (1976).
    """
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    left, values, right = np.linalg.svd(first.T @ second)
    values[-1] *= np.sign(np.linalg.det(left @ right))
    square = (first**2).sum() + (second**2).sum() - 2 * values.sum()
    return float(np.sqrt(max(square, 0.0) / len(first)))


def frequencies(atoms: Atoms, calculator: Calculator, step: float = 0.005) -> np.ndarray:
    """Return the harmonic frequencies of a molecule at rest, without the six of the rigid body.

    Args:
        atoms: Relaxed molecule.
        calculator: Its potential.
        step: Displacement of the central differences in Å.

    Returns:
        Frequencies in cm⁻¹, ascending; imaginary ones are negative. Shape ``(3 atoms - 6,)``, one more for
        linear molecules.
    """
    moved = atoms.copy()
    moved.calc = calculator
    hessian = np.zeros((3 * len(atoms), 3 * len(atoms)))
    for row, index in enumerate(np.ndindex(len(atoms), 3)):
        gradients = []
        for sign in (1, -1):
            positions = atoms.get_positions()
            positions[index] += sign * step
            moved.set_positions(positions)
            gradients.append(-moved.get_forces().ravel())
        hessian[row] = (gradients[0] - gradients[1]) / (2 * step)
    masses = np.repeat(atoms.get_masses(), 3) ** -0.5
    rigid = _rigid_motions(atoms)
    weighted = 0.5 * (hessian + hessian.T) * np.outer(masses, masses)
    outside = np.eye(len(masses)) - rigid @ rigid.T
    values = np.linalg.eigvalsh(outside @ weighted @ outside + 1e6 * rigid @ rigid.T)
    values = values[: len(values) - rigid.shape[1]]
    energies = units._hbar * 1e10 / np.sqrt(units._e * units._amu) * np.sqrt(np.abs(values))  # eV
    return np.sign(values) * energies / units.invcm


def _rigid_motions(atoms: Atoms) -> np.ndarray:
    """Return an orthonormal basis of translations and rotations in mass-weighted coordinates."""
    roots = np.sqrt(atoms.get_masses())[:, None]
    positions = atoms.positions - atoms.get_center_of_mass()
    motions = [roots * axis for axis in np.eye(3)]
    motions += [roots * np.cross(axis, positions) for axis in np.eye(3)]
    left, values, _ = np.linalg.svd(np.array(motions).reshape(6, -1).T, full_matrices=False)
    return left[:, values > 1e-6 * values[0]]
