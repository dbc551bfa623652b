"""OpenMM: a potential as a force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms, units
from ase.geometry import find_mic

from pyg_schnet.simulation.calculator import Model, SchNetCalculator
from pyg_schnet.simulation.structures import check_all_or_none_periodic

if TYPE_CHECKING:
    import openmm

_kJ_per_mol = units.kJ / units.mol  # eV


def openmm_force(potential: Model, atoms: Atoms, make_whole: bool = False, **options) -> openmm.PythonForce:
    """Build a force of OpenMM 8.5 or later from a potential.

    Add it to a system whose particles are these atoms in this order. OpenMM's units are converted both ways:
    positions from nm, energies to kJ/mol and forces to kJ/mol/nm.

    Args:
        potential: A potential or the path of a checkpoint; a copy is evaluated.
        atoms: Structure with elements and periodicity; positions and lattice vectors come from OpenMM.
        make_whole: Whether to evaluate a molecule of a periodic system with its atoms at their images nearest
            to its first atom, from which none may be further than half a lattice vector.
        **options: Options of :class:`~pyg_schnet.simulation.SchNetCalculator`: ``device``, ``dtype``,
            ``compile`` and ``skin``.

    Raises:
        ImportError: If OpenMM is not installed.
        ValueError: If there are no atoms, only some directions are periodic, or lattice vectors are absent.
            Errors during a run, for instance NaN, are raised as ``OpenMMException`` with the same message.

    Example:
        >>> from ase.build import molecule
        >>> from pyg_schnet import SchNet
        >>> water = molecule("H2O")
        >>> system = openmm_system(Potential(SchNet.paper()), water)  # with masses, and this force
        >>> system.getNumParticles()
        3
    """
    openmm = _openmm()
    check_all_or_none_periodic(atoms, "OpenMM")
    force = openmm.PythonForce(_Callback(potential, atoms, make_whole, options))
    force.setName("SchNet")
    force.setUsesPeriodicBoundaryConditions(make_whole or bool(atoms.pbc.all()))
    return force


def openmm_system(potential: Model, atoms: Atoms, **options) -> openmm.System:
    """Build a system of OpenMM with masses, lattice vectors and the force of a potential.

    Args:
        potential: See :func:`openmm_force`.
        atoms: Structure with elements, masses, lattice vectors and periodicity; set the positions of the
            context to ``atoms.positions / 10``, in nm.
        **options: See :func:`openmm_force`.

    Raises:
        ImportError: If OpenMM is not installed.
        ValueError: If lattice vectors are not in OpenMM's form, or as for :func:`openmm_force`.
    """
    openmm = _openmm()
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(float(mass))
    system.addForce(openmm_force(potential, atoms, **options))
    if atoms.pbc.all():
        _check_reduced(atoms.cell.array)
        vectors = [openmm.Vec3(*map(float, row)) for row in atoms.cell.array / 10]
        system.setDefaultPeriodicBoxVectors(*vectors)
    return system


class _Callback:
    """Callback of OpenMM, which pickles it when a system is written to a file."""

    make_whole = False  # of files from before it was an attribute

    def __init__(self, potential: Model, atoms: Atoms, make_whole: bool, options: dict[str, Any]):
        self.make_whole = make_whole
        self.atoms = Atoms(atoms.numbers, cell=atoms.cell, pbc=atoms.pbc)
        self.atoms.calc = SchNetCalculator(potential, **options)

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        atoms = self.atoms
        positions = 10 * state.getPositions(asNumpy=True)._value  # nm to Å
        if len(positions) != len(atoms):
            raise ValueError(
                f"the system must have the {len(atoms)} particles for which the force was built, got "
                f"{len(positions)}; build the force for all of them"
            )
        if self.make_whole or atoms.pbc.all():
            cell = 10 * state.getPeriodicBoxVectors(asNumpy=True)._value
            if self.make_whole:
                positions = positions[0] + find_mic(positions - positions[0], cell)[0]
            else:
                atoms.set_cell(cell)
        atoms.positions = positions
        with torch.enable_grad():  # OpenMM's threads have their own mode
            forces = atoms.get_forces()
        return atoms.get_potential_energy() / _kJ_per_mol, forces * (10 / _kJ_per_mol)


def _check_reduced(cell: np.ndarray) -> None:
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell
    triangular = not any((ay, az, bz)) and min(ax, by, cz) > 0
    if not triangular or 2 * max(abs(bx), abs(cx)) > ax + 1e-9 or 2 * abs(cy) > by + 1e-9:
        raise ValueError(
            f"`atoms.cell` must be in OpenMM's reduced form, got {cell.tolist()}: lower triangular, and each "
            "vector beside another by half of that at most; a supercell of the conventional cell has it"
        )


def _openmm() -> Any:
    try:
        import openmm
    except ImportError:
        raise ImportError("OpenMM is not installed: pip install 'pyg-schnet[openmm]'") from None
    if not hasattr(openmm, "PythonForce"):
        raise ImportError(
            f"OpenMM 8.5 or later is needed, this is {openmm.__version__}: pip install --upgrade openmm"
        )
    return openmm
