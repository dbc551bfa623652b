"""Conversion between ``ase.Atoms`` and PyG's ``Data``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.io.formats.labels import charge_of

_PER_STRUCTURE = {"energy": (), "stress": (3, 3), "cell": (3, 3), "pbc": (3,)}


def from_ase(atoms: Atoms, lattice: bool | None = None) -> Data:
    """Convert a structure to the input of a potential.

    A charge in ``atoms.info``, which no potential of this package uses, causes a ``UserWarning``.

    Args:
        atoms: Structure of one atom at least.
        lattice: Whether to add ``cell`` and ``pbc``; by default if a direction is periodic. All items of a
            batch need the same.

    Returns:
        ``z (atoms,)``, ``pos (atoms, 3)`` in Å and float64 and, with a lattice, ``cell (1, 3, 3)``
        in Å and ``pbc (1, 3)``.

    Raises:
        ValueError: If there are no atoms, a periodic direction has no lattice vector, or one is not finite.
    """
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none; remove the empty structure")
    if charge := charge_of(atoms.info):
        warnings.warn(
            f"`atoms.info` holds a charge, {charge:g}, which is ignored: energies and forces are those of "
            "structures as in training",
            stacklevel=1,  # so that it is shown once for all callers
        )
    data = Data(
        z=torch.tensor(atoms.numbers, dtype=torch.long),
        pos=torch.tensor(atoms.positions, dtype=torch.float64),
    )
    cell = atoms.cell.array
    if lattice or (lattice is None and atoms.pbc.any()):
        check_lattice(atoms)
        data.cell = torch.tensor(cell, dtype=torch.float64)[None]
        data.pbc = torch.tensor(atoms.pbc, dtype=torch.bool)[None]
    return data


def check_lattice(atoms: Atoms) -> None:
    """Raise if lattice vectors are not finite, or those of periodic directions not independent."""
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise ValueError(f"`atoms.cell` must be finite and in Å, got {cell.tolist()}")
    if atoms.pbc.any() and np.linalg.matrix_rank(cell[atoms.pbc]) < atoms.pbc.sum():
        raise ValueError(
            "`atoms.cell` must have a lattice vector for each periodic direction, got "
            f"{cell.tolist()} with pbc {atoms.pbc.tolist()}; set the cell, or atoms.pbc = False"
        )


def to_ase(data: Data, with_results: bool = True) -> Atoms | list[Atoms]:
    """Convert a structure, or each structure of a batch, to ASE.

    Args:
        data: Structure with ``z (atoms,)`` and ``pos (atoms, 3)`` in Å; ``cell`` and ``pbc`` if it is
            periodic. On any device, in any precision.
        with_results: Whether to attach the ``energy`` in eV, ``forces`` in eV/Å and ``stress`` in eV/Å³ that
            it has, so that ``ase.io.write`` writes and ``atoms.get_forces()`` returns them.

    Returns:
        A structure in float64 that shares no memory with ``data``; a list of them for a batch.

    Raises:
        ValueError: If ``z`` or ``pos`` is absent.
    """
    for name in ("z", "pos"):
        if name not in data:
            raise ValueError(
                f"`data` must hold `{name}`, got {', '.join(map(repr, data.keys())) or 'an empty one'}"
            )
    counts = _counts(data)
    per_atom = {name: _array(data[name]) for name in ("z", "pos", "forces") if name in data}
    ends = np.cumsum(counts)[:-1]
    atoms = {name: np.split(value, ends) for name, value in per_atom.items()}
    whole = {
        name: _array(data[name]).reshape(-1, *shape) for name, shape in _PER_STRUCTURE.items() if name in data
    }
    rows = [
        {name: values[number] for name, values in (atoms | whole).items()} for number in range(len(counts))
    ]
    structures = [_to_atoms(row, with_results) for row in rows]
    return structures if "batch" in data else structures[0]


def _counts(data: Data) -> np.ndarray:
    """Count the atoms of each structure; not every batch has ``ptr``."""
    if "ptr" in data:
        return _array(data["ptr"].diff())
    return np.bincount(_array(data["batch"])) if "batch" in data else np.array([len(data["z"])])


def _to_atoms(row: dict[str, Any], with_results: bool) -> Atoms:
    lattice = {name: row[name] for name in ("cell", "pbc") if name in row}
    atoms = Atoms(numbers=row["z"], positions=row["pos"], **lattice)
    results = {name: row[name] for name in ("energy", "forces", "stress") if name in row}
    if "energy" in results:
        results["energy"] = float(results["energy"])
    if "stress" in results:
        results["stress"] = full_3x3_to_voigt_6_stress(results["stress"])
    if with_results and results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()  # ASE copies it
