"""Copies of ASE structures: with results, or with the calculator of the caller's."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator


def with_results(
    atoms: Atoms, energy: float, forces: np.ndarray | None = None, stress: np.ndarray | None = None
) -> Atoms:
    """Copy a structure and attach energy in eV, forces in eV/Å, unconstrained, and stress in eV/Å³."""
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    return frame


def snapshot(atoms: Atoms, stress: bool = False) -> Atoms:
    """Copy a structure with the results of its calculator, which then is no longer needed."""
    forces = atoms.get_forces(apply_constraint=False)  # first, the energy comes with them
    own = atoms.get_stress(apply_constraint=False) if stress else None
    return with_results(atoms, atoms.get_potential_energy(apply_constraint=False), forces, own)


def results_of(frame: Atoms) -> dict[str, Any]:
    """Give the results of a snapshot; its calculator itself compares two structures first, for 80 µs."""
    assert isinstance(frame.calc, SinglePointCalculator)
    return frame.calc.results


def own_copy(atoms: Atoms) -> Atoms:
    """Copy a structure, sharing its calculator, so that the caller's keeps its positions.

    Raises:
        TypeError: If ``atoms`` is something else, for instance a list of structures.
        ValueError: If there are no atoms, or there is no calculator.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f"`atoms` must be one ase.Atoms, got {type(atoms).__name__}")
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if atoms.calc is None:
        raise ValueError(
            '`atoms.calc` must be set, got None; use atoms.calc = SchNetCalculator("model.safetensors")'
        )
    copy = atoms.copy()
    copy.calc = atoms.calc
    return copy
