"""Relaxation to the nearest minimum of the energy."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from torch import Tensor

from pyg_schnet.io.units import GPa
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation.limits import training_domain_of
from pyg_schnet.simulation.structures import (
    check_initial_structure,
    check_structure,
    copy_with_calculator,
    snapshot,
)
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.transforms.ase_atoms import from_ase

_OPTIMIZERS = {"BFGS": BFGS, "LBFGS": LBFGS, "FIRE": FIRE}
# No crystal is bound by more than the 9 eV an atom of tungsten: what falls farther falls into a hole of the
# potential, or comes from where atoms overlapped.
_DEEPEST = 20.0  # eV an atom below the start


@dataclass(frozen=True)
class Relaxation:
    """The result of :func:`relax`.

    Attributes:
        atoms: The last structure, with energy and forces.
        converged: Whether no force is longer than asked for.
        steps: Number of steps taken.
        fmax: The longest force on an atom, in eV/Å, constraints applied.
        energy: In eV.
        trajectory: The file of frames, if one was written.
        stopped: Why it ended early, if it did, or why what it found is no minimum; ``atoms`` then are the
            last that could be computed.
    """

    atoms: Atoms
    converged: bool
    steps: int
    fmax: float
    energy: float
    trajectory: Path | None
    stopped: str | None = None


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    optimizer: str = "BFGS",
    cell: bool = False,
    pressure: float = 0.0,
    trajectory: str | os.PathLike | None = None,
    overwrite: bool = False,
    on_step: Callable[[int, Atoms], None] | None = None,
) -> Relaxation:
    """Move atoms downhill until the forces vanish, and the cell with them if asked for.

    It stops, not converged, where energy or forces are not finite, where the energy fell by 20 eV an atom,
    or where the potential refuses the atoms; a structure without forces whose atoms are closer than
    :class:`~pyg_schnet.potentials.training_domain.TrainingDomain` allows is not converged, either:
    see ``stopped``.

    Args:
        atoms: With a calculator; not modified, constraints are respected.
        fmax: The longest force on an atom that is small enough, in eV/Å; with ``cell`` also of the rows of
            the virial an atom, in eV.
        steps: The most to take. Running out of them is no error: see ``converged``.
        optimizer: ``"BFGS"``, ``"LBFGS"`` or ``"FIRE"``, ASE's.
        cell: Whether to relax the lattice vectors too, by ASE's ``FrechetCellFilter``; of a structure that is
            periodic in all directions.
        pressure: On the cell, in GPa.
        trajectory: A file of all steps, ``*.traj`` or ``*.extxyz``; ``atoms.info["step"]`` numbers
            them.
        overwrite: Whether ``trajectory`` may replace a file.
        on_step: Called with the number of each step, from 0, and its frame with energy and forces.

    Returns:
        The last structure, and how far it got.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range, or the potential refuses the start.
    """
    check_goal(fmax, steps)
    check_method(optimizer, cell, pressure)
    writer = TrajectoryFile(trajectory, overwrite)
    system = copy_with_calculator(atoms)
    check_structure(system, 0)
    check_initial_structure(system)
    if cell and not system.pbc.all():
        raise ValueError(
            f"`cell` relaxes the lattice of a crystal, periodic in all directions; got pbc "
            f"{system.pbc.tolist()}"
        )
    moving = FrechetCellFilter(system, scalar_pressure=pressure * GPa) if cell else system
    search = _OPTIMIZERS[optimizer](moving, logfile=None)  # pyright: ignore[reportArgumentType]
    path = search.irun(fmax=fmax, steps=steps)
    converged = bool(next(path))  # before the first step; the potential may refuse the start
    first = last = snapshot(system)
    step, stopped = 0, _why_stop(first, first)
    with writer:
        while True:
            last.info["step"] = step
            writer.write(last)
            if on_step is not None:
                on_step(step, last)
            if converged or stopped:
                break
            try:
                arrived = next(path, None)
                if arrived is None:  # out of steps
                    break
                frame = snapshot(system)
            except ValueError as error:
                stopped = str(error)
                break
            stopped = _why_stop(frame, first)
            if stopped:
                break
            last, step, converged = frame, search.nsteps, bool(arrived)
    if converged and not stopped:
        stopped = outside(training_domain_of(system.calc), last)
    last.info = system.info
    return Relaxation(
        atoms=last,
        converged=converged and not stopped,
        steps=step,
        fmax=float(np.linalg.norm(last.get_forces(), axis=1).max()),
        energy=float(last.get_potential_energy()),
        trajectory=writer.path,
        stopped=stopped,
    )


def check_goal(fmax: float, steps: int) -> None:
    """Refuse settings that no relaxation could reach."""
    if not fmax > 0:
        raise ValueError(f"`fmax` must be positive and in eV/Å, got {fmax}")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")


def check_method(optimizer: str, cell: bool, pressure: float) -> None:
    """Refuse optimizers that are not known, and a pressure on nothing."""
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(_OPTIMIZERS)}; got {optimizer!r}")
    if not np.isfinite(pressure):
        raise ValueError(f"`pressure` must be finite and in GPa, got {pressure}")
    if pressure and not cell:
        raise ValueError(
            f"`pressure` acts on a cell that relaxes, got {pressure} GPa; ask for `cell` (--cell), too"
        )


def why_stop(energy: Tensor, longest: Tensor, depth: Tensor, among: Tensor) -> dict[int, str]:
    """Say of which structures nothing good can come any more, and why.

    Args:
        energy: In eV, ``(structures,)``.
        longest: Their longest forces in eV/Å.
        depth: How far their energies fell, in eV an atom.
        among: Which are asked for.

    Returns:
        Reasons by place.
    """
    finite = energy.isfinite() & longest.isfinite()
    unsound = (among & (~finite | (depth > _DEEPEST))).nonzero().flatten().tolist()
    reasons = {}
    for k in unsound:
        if not finite[k]:
            reasons[k] = (
                f"energy and forces must be finite, got {float(energy[k])} eV and a force of "
                f"{float(longest[k])} eV/Å; start from a structure closer to those of the training"
            )
        else:
            reasons[k] = (
                f"its energy fell by {float(depth[k]):.0f} eV an atom, more than any bond: it is in a hole "
                "of the potential, or atoms overlapped at the start"
            )
    return reasons


def outside(domain: TrainingDomain | None, frame: Atoms) -> str | None:
    """Return why a minimum is none: its atoms are closer than in training, where the potential knows nothing.

    Args:
        domain: What the potential was trained on, if it is known.
        frame: The structure.
    """
    found = {} if domain is None else domain.breaches(from_ase(frame))
    return f"no minimum, but beyond what the potential was trained on: {found[0]}" if found else None


def _why_stop(frame: Atoms, first: Atoms) -> str | None:
    energies = [each.get_potential_energy() for each in (frame, first)]
    longest = np.linalg.norm(frame.get_forces(apply_constraint=False), axis=1).max()
    depth = (energies[1] - energies[0]) / len(frame)
    energy, force, fall = torch.tensor([[energies[0]], [longest], [depth]], dtype=torch.float64)
    return why_stop(energy, force, fall, torch.tensor([True])).get(0)
