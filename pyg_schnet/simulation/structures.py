"""Checks and copies of the structures of a simulation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.jsonio import encode

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.transforms.ase_atoms import check_lattice, from_ase

_OVERLAP = 0.1  # Å; an error of the input with any calculator: the shortest bond, of H2, has 0.74


class StructureError(ValueError):
    """Error of one structure of several.

    Attributes:
        number: Index of the structure, counted from 0.
        reason: What is wrong with it.
        others: Errors of other structures that were found with it.
    """

    def __init__(self, number: int, reason: str, others: Sequence[StructureError] = ()):
        super().__init__(f"structure {number}: {reason}")
        self.number, self.reason, self.others = number, reason, list(others)


def check_structure(atoms: Atoms, number: int) -> None:
    """Raise if no potential can compute a structure, whatever its elements.

    Args:
        atoms: The structure.
        number: Its index, for errors.

    Raises:
        StructureError: If there are no atoms, numbers are not finite, a constraint refers to an atom that
            does not exist, or the cell is left-handed.
        TypeError: If it is no structure.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f"`structures` must hold ase.Atoms, got {type(atoms).__name__} at index {number}")
    if len(atoms) == 0:
        raise StructureError(number, "it must have atoms, got none; remove it")
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        atom = int((~finite).argmax())
        raise StructureError(
            number, f"positions must be finite, got {atoms.positions[atom].tolist()} for atom {atom}"
        )
    if (reason := _invalid_constraint(atoms)) is not None:
        raise StructureError(number, reason)
    if not atoms.pbc.any():
        return
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise StructureError(number, f"the cell must be finite, got {cell.tolist()}")
    if atoms.pbc.all() and np.linalg.det(cell) < 0:
        raise StructureError(
            number, f"the cell must be right-handed, got {cell.tolist()}; exchange two of its vectors"
        )


def _invalid_constraint(atoms: Atoms) -> str | None:
    """Return which constraint refers to an atom that does not exist; ASE raises only during the run."""
    for constraint in atoms.constraints:
        indices = np.asarray(getattr(constraint, "get_indices", list)())
        if indices.size and not -len(atoms) <= indices.min() <= indices.max() < len(atoms):
            atom = indices.max() if indices.max() >= len(atoms) else indices.min()
            return (
                f"`atoms.constraints` must be of its {len(atoms)} atoms, counted from 0, got a "
                f"{type(constraint).__name__} of atom {atom}; remove it"
            )
    return None


def check_initial_structure(atoms: Atoms) -> None:
    """Raise if a structure is unphysical as the start of a simulation with any calculator.

    Raises:
        ValueError: If positions, momenta or masses are not finite, the cell is singular or left-handed,
            a periodic direction has no lattice vector, or atoms overlap.
    """
    for name, values in (("positions", atoms.positions), ("momenta", atoms.get_momenta())):
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            atom = int(finite.argmin())
            raise ValueError(
                f"`atoms` must have finite {name}, got {values[atom].tolist()} of atom {atom}; set them again"
            )
    masses = atoms.get_masses()
    if not (masses > 0).all():
        atom = int((~(masses > 0)).argmax())
        raise ValueError(f"`atoms` must have positive masses, got {masses[atom]} of atom {atom}")
    data = from_ase(atoms)  # which rejects a periodic direction without a lattice vector
    if atoms.pbc.all() and np.linalg.det(atoms.cell.array) < 0:
        raise ValueError(
            f"`atoms.cell` must be right-handed, got {atoms.cell.array.tolist()}; exchange two of its "
            "vectors by ase.build.make_supercell(atoms, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])"
        )
    assert data.pos is not None
    (source, target), _ = neighbor_list(data.pos, _OVERLAP, None, data.get("cell"), data.get("pbc"))
    if len(source):
        raise ValueError(
            f"`atoms` must not overlap, got atoms {int(target[0])} and {int(source[0])} closer than "
            f"{_OVERLAP} Å; check positions and cell"
        )


def check_all_or_none_periodic(atoms: Atoms, engine: str) -> None:
    """Raise if an engine that is periodic in all directions or in none cannot hold a structure.

    Args:
        atoms: The structure.
        engine: Name of the engine.

    Raises:
        ValueError: If there are no atoms, only some directions are periodic, or lattice vectors are absent.
    """
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if atoms.pbc.any() and not atoms.pbc.all():
        raise ValueError(
            f"`atoms.pbc` must be true or false in all directions for {engine}, got {atoms.pbc.tolist()}; "
            "use ASE for slabs and wires"
        )
    check_lattice(atoms)


def has_volume(atoms: Atoms) -> bool:
    """Return whether a structure is periodic and has a volume, to which a stress refers."""
    return bool(atoms.pbc.any()) and atoms.cell.volume > 0


def with_results(
    atoms: Atoms, energy: float | None, forces: np.ndarray | None = None, stress: np.ndarray | None = None
) -> Atoms:
    """Return a copy of a structure with its results, forces without constraints.

    Args:
        atoms: The structure.
        energy: Energy in eV; ``None`` if it is not predicted.
        forces: Forces in eV/Å, ``(atoms, 3)``.
        stress: Stress in eV/Å³, ``(6,)``, in Voigt's order.
    """
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    return frame


def snapshot(atoms: Atoms, stress: bool = False) -> Atoms:
    """Return a copy of a structure with the results of its calculator.

    Args:
        atoms: The structure with a calculator.
        stress: Whether to compute the stress; else it is copied if the calculator has it.
    """
    forces = atoms.get_forces(apply_constraint=False)  # first, because the energy comes with them
    energy = atoms.get_potential_energy(apply_constraint=False)
    assert atoms.calc is not None
    if stress:
        value = atoms.get_stress(apply_constraint=False)
    else:
        value = getattr(atoms.calc, "results", {}).get("stress")
    return with_results(atoms, energy, forces, None if value is None else np.array(value))


def stored_results(frame: Atoms) -> dict[str, Any]:
    """Return the results of a snapshot without ASE's comparison of two structures, which takes 80 µs."""
    assert isinstance(frame.calc, SinglePointCalculator)
    return frame.calc.results


def hash_structure(atoms: Atoms) -> str:
    """Compute the SHA-256 of all that the motion of a structure depends on, except velocities."""
    digest = hashlib.sha256()
    for values in (
        atoms.numbers.astype("i8"),
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.get_masses(),
    ):
        digest.update(values.tobytes())
    # Not their `repr`, which omits parameters of Hookean's springs, or is an address.
    digest.update(encode([constraint_to_dict(constraint) for constraint in atoms.constraints]).encode())
    return digest.hexdigest()


def constraint_to_dict(constraint: Any) -> dict[str, Any] | None:
    """Return a constraint as ASE's dictionary; ``None`` if it has no such form."""
    try:
        return constraint.todict()
    except (AttributeError, NotImplementedError):  # ASE requires neither method nor base class
        return None


def copy_with_calculator(atoms: Atoms) -> Atoms:
    """Return a copy of a structure that shares its calculator.

    Raises:
        TypeError: If ``atoms`` is no structure, for instance a list of structures.
        ValueError: If there are no atoms or no calculator, or a constraint refers to no atom.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f"`atoms` must be one ase.Atoms, got {type(atoms).__name__}")
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if (reason := _invalid_constraint(atoms)) is not None:
        raise ValueError(reason)
    if atoms.calc is None:
        raise ValueError(
            '`atoms.calc` must be set, got None; use atoms.calc = SchNetCalculator("model.safetensors")'
        )
    copy = atoms.copy()
    copy.calc = atoms.calc
    return copy
