"""Structures: from ``ase.Atoms`` to PyG's ``Data``, and back with results."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Data


def from_ase(atoms: Atoms, lattice: bool | None = None) -> Data:
    """Turn a structure into a molecule for a potential.

    Args:
        atoms: At least one atom.
        lattice: Whether to add ``cell`` and ``pbc``; by default where a direction is periodic. All
            items of a batch need the same.

    Returns:
        ``z (atoms,)``, ``pos (atoms, 3)`` in Å and float64 and, with a lattice, ``cell (1, 3, 3)``
        in Å and ``pbc (1, 3)``.

    Raises:
        ValueError: If there are no atoms, or a periodic direction has no lattice vector.
    """
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none; remove the empty structure")
    data = Data(
        z=torch.tensor(atoms.numbers, dtype=torch.long),
        pos=torch.tensor(atoms.positions, dtype=torch.float64),
    )
    cell = atoms.cell.array
    if lattice or (lattice is None and atoms.pbc.any()):
        if np.linalg.matrix_rank(cell[atoms.pbc]) < atoms.pbc.sum():
            raise ValueError(
                "`atoms.cell` must have a lattice vector for each periodic direction, got "
                f"{cell.tolist()} with pbc {atoms.pbc.tolist()}; set the cell, or atoms.pbc = False"
            )
        data.cell = torch.tensor(cell, dtype=torch.float64)[None]
        data.pbc = torch.tensor(atoms.pbc, dtype=torch.bool)[None]
    return data


def with_results(atoms: Atoms, energy: float, forces: np.ndarray | None = None) -> Atoms:
    """Copy a structure and attach its energy in eV and its forces in eV/Å, unconstrained."""
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    return frame


def snapshot(atoms: Atoms) -> Atoms:
    """Copy a structure with the results of its calculator, which then is no longer needed."""
    forces = atoms.get_forces(apply_constraint=False)  # first, the energy comes with them
    return with_results(atoms, atoms.get_potential_energy(apply_constraint=False), forces)


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
