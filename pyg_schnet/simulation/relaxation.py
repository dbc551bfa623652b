"""Relaxation to the nearest minimum of the energy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import BFGS, FIRE, LBFGS

from pyg_schnet.simulation.structures import own_copy, snapshot
from pyg_schnet.simulation.trajectory import FrameWriter

_OPTIMIZERS = {"BFGS": BFGS, "LBFGS": LBFGS, "FIRE": FIRE}


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
    """

    atoms: Atoms
    converged: bool
    steps: int
    fmax: float
    energy: float
    trajectory: Path | None


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    optimizer: str = "BFGS",
    trajectory: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> Relaxation:
    """Move atoms downhill until the forces vanish; the cell stays.

    Args:
        atoms: With a calculator; not modified, constraints are respected.
        fmax: The longest force on an atom that is small enough, in eV/Å.
        steps: The most to take. Running out of them is no error: see ``converged``.
        optimizer: ``"BFGS"``, ``"LBFGS"`` or ``"FIRE"``, ASE's.
        trajectory: A file of all steps, ``*.traj`` or ``*.extxyz``; ``atoms.info["step"]`` numbers
            them.
        overwrite: Whether ``trajectory`` may replace a file.

    Returns:
        The last structure, and how far it got.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        RuntimeError: If energy or forces stop being finite.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range.
    """
    if not fmax > 0:
        raise ValueError(f"`fmax` must be positive and in eV/Å, got {fmax}")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(_OPTIMIZERS)}; got {optimizer!r}")
    writer = FrameWriter(trajectory, overwrite)
    system = own_copy(atoms)
    search = _OPTIMIZERS[optimizer](system, logfile=None)

    def record() -> None:
        frame = snapshot(system)
        frame.info["step"] = search.nsteps
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise RuntimeError(
                f"energy and forces must be finite, got {energy} eV at step {search.nsteps}; start "
                "from a structure closer to those of the training"
            )
        writer.write(frame)

    search.attach(record)
    with writer:
        converged = bool(search.run(fmax=fmax, steps=steps))
    last = snapshot(system)
    return Relaxation(
        atoms=last,
        converged=converged,
        steps=search.nsteps,
        fmax=float(np.linalg.norm(last.get_forces(), axis=1).max()),
        energy=float(last.get_potential_energy()),
        trajectory=writer.path,
    )
