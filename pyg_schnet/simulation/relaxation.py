"""Relaxation of one structure to the nearest minimum of the energy."""

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
from pyg_schnet.potentials.intended_use import warn_of_motion
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation.limits import outside_of_domain, training_domain_of
from pyg_schnet.simulation.structures import (
    check_initial_structure,
    check_structure,
    copy_with_calculator,
    snapshot,
)
from pyg_schnet.simulation.trajectory import TrajectoryFile

_OPTIMIZERS = {"BFGS": BFGS, "LBFGS": LBFGS, "FIRE": FIRE}
# eV per atom below the start. No crystal is bound by more than the 9 eV per atom of tungsten: an energy that
# falls farther is unphysical, or atoms overlapped at the start.
_MAX_DEPTH = 20.0


@dataclass(frozen=True)
class Relaxation:
    """Result of :func:`relax`.

    Attributes:
        atoms: The last structure, with energy and forces.
        converged: Whether no force is longer than the limit.
        steps: Number of steps.
        fmax: Longest force on an atom in eV/Å, with constraints.
        energy: Energy in eV.
        trajectory: Path of the trajectory, if one was written.
        stopped: Reason for an early end, or for which the result is no minimum; ``atoms`` then are the last
            that could be computed.
        start_outside: How the start is outside the training domain of the potential, if it is.
    """

    atoms: Atoms
    converged: bool
    steps: int
    fmax: float
    energy: float
    trajectory: Path | None
    stopped: str | None = None
    start_outside: str | None = None


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
    """Minimize the energy by moving the atoms and, with ``cell``, the lattice vectors.

    The relaxation stops without converging if energy or forces are not finite, if the energy fell by 20 eV
    per atom, or if the potential rejects the positions. A minimum outside the
    :class:`~pyg_schnet.potentials.training_domain.TrainingDomain`, whose atoms are closer than in training or
    which fell into more fragments, is not converged, either. See ``stopped``. A start outside of it is
    relaxed, and ``start_outside`` is the reason.

    Args:
        atoms: Structure with a calculator; not modified. Constraints are respected.
        fmax: Longest force on an atom of a converged structure in eV/Å; with ``cell`` also longest row of the
            virial per atom in eV.
        steps: Largest number of steps. Reaching it is no error: see ``converged``.
        optimizer: ASE's ``"BFGS"``, ``"LBFGS"`` or ``"FIRE"``.
        cell: Whether to relax the lattice vectors too, by ASE's ``FrechetCellFilter``; of a structure that is
            periodic in all directions.
        pressure: Pressure on the cell in GPa.
        trajectory: File of all steps, ``*.traj`` or ``*.extxyz``, numbered by ``atoms.info["step"]``.
        overwrite: Whether ``trajectory`` may replace an existing file.
        on_step: Called with the number of each step, from 0, and its frame with energy and forces.

    Returns:
        The last structure, with its convergence.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range, or the potential rejects the initial structure.
    """
    check_goal(fmax, steps)
    check_method(optimizer, cell, pressure)
    file = TrajectoryFile(trajectory, overwrite)
    system = copy_with_calculator(atoms)
    check_structure(system, 0)
    check_initial_structure(system)
    if cell and not system.pbc.all():
        raise ValueError(
            f"`cell` needs a structure that is periodic in all directions, got pbc {system.pbc.tolist()}"
        )
    warn_of_motion(getattr(system.calc, "potential", None))
    moving = FrechetCellFilter(system, scalar_pressure=pressure * GPa) if cell else system
    minimizer = _OPTIMIZERS[optimizer](moving, logfile=None)  # pyright: ignore[reportArgumentType]
    iterations = minimizer.irun(fmax=fmax, steps=steps)
    converged = bool(next(iterations))  # before the first step; the potential may reject the start
    first = last = snapshot(system)
    domain = training_domain_of(system.calc)
    start_outside = outside_of_domain(first, domain)
    step, stopped = 0, _invalid_frame(first, first)
    with file:
        while True:
            last.info["step"] = step
            file.write(last)
            if on_step is not None:
                on_step(step, last)
            if converged or stopped:
                break
            try:
                has_converged = next(iterations, None)
                if has_converged is None:  # all steps are done
                    break
                frame = snapshot(system)
            except ValueError as error:
                stopped = str(error)
                break
            if stopped := _invalid_frame(frame, first):
                break
            last, step, converged = frame, minimizer.nsteps, bool(has_converged)
    if converged and not stopped:
        stopped = invalid_minimum(domain, last)
    last.info = system.info
    return Relaxation(
        atoms=last,
        converged=converged and not stopped,
        steps=step,
        fmax=float(np.linalg.norm(last.get_forces(), axis=1).max()),
        energy=float(last.get_potential_energy()),
        trajectory=file.path,
        stopped=stopped,
        start_outside=start_outside,
    )


def check_goal(fmax: float, steps: int) -> None:
    """Raise if the settings of convergence are out of range."""
    if not fmax > 0:
        raise ValueError(f"`fmax` must be positive and in eV/Å, got {fmax}")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")


def check_method(optimizer: str, cell: bool, pressure: float) -> None:
    """Raise if the optimizer is unknown, or a pressure has no cell to act on."""
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(_OPTIMIZERS)}; got {optimizer!r}")
    if not np.isfinite(pressure):
        raise ValueError(f"`pressure` must be finite and in GPa, got {pressure}")
    if pressure and not cell:
        raise ValueError(
            f"`pressure` needs a cell that relaxes, got {pressure} GPa; set `cell` (--cell), too"
        )


def invalid_results(energy: Tensor, longest: Tensor, depth: Tensor, mask: Tensor) -> dict[int, str]:
    """Return which structures have energies or forces that end their relaxation, and the reasons.

    Args:
        energy: Energies in eV, ``(structures,)``.
        longest: Longest forces in eV/Å, ``(structures,)``.
        depth: Decrease of the energies since the start in eV per atom, ``(structures,)``.
        mask: Mask of the structures to check, ``(structures,)``.

    Returns:
        Reasons by index.
    """
    finite = energy.isfinite() & longest.isfinite()
    reasons = {}
    for k in (mask & (~finite | (depth > _MAX_DEPTH))).nonzero().flatten().tolist():
        if not finite[k]:
            reasons[k] = (
                f"energy and forces must be finite, got {float(energy[k])} eV and a force of "
                f"{float(longest[k])} eV/Å; start from a structure closer to those of the training"
            )
        else:
            reasons[k] = (
                f"its energy fell by {float(depth[k]):.0f} eV per atom, more than any bond: the potential is "
                "unphysical there, or atoms overlapped at the start"
            )
    return reasons


def invalid_minimum(domain: TrainingDomain | None, frame: Atoms) -> str | None:
    """Return why a structure without forces is no minimum, if it is outside the training domain.

    Args:
        domain: Training domain of the potential, if it is known.
        frame: The structure.
    """
    found = outside_of_domain(frame, domain)
    return f"no minimum, but outside of the training domain of the potential: {found}" if found else None


def _invalid_frame(frame: Atoms, first: Atoms) -> str | None:
    """Return why the results of a frame end the relaxation that began with ``first``, if they do."""
    energies = [each.get_potential_energy() for each in (frame, first)]
    longest = np.linalg.norm(frame.get_forces(apply_constraint=False), axis=1).max()
    depth = (energies[1] - energies[0]) / len(frame)
    energy, force, fall = torch.tensor([[energies[0]], [longest], [depth]], dtype=torch.float64)
    return invalid_results(energy, force, fall, torch.tensor([True])).get(0)
