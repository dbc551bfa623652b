"""Integration in time under guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from pyg_schnet.simulation.structures import results_of, snapshot
from pyg_schnet.simulation.trajectory import FrameWriter

FARTHEST = 1.0  # Å in a step; a hydrogen atom at 300 K moves 0.014 Å in 0.5 fs


def guarded_frames(
    integrator: MolecularDynamics,
    steps: range,
    constraints: list,
    writer: FrameWriter,
    rng: Callable[[int], np.random.Generator],
    stress: bool = False,
    part: str = "",
) -> Iterator[Atoms]:
    """Integrate, and stop with an error when the system explodes.

    Args:
        integrator: ASE's, at its start.
        steps: Numbers of the time steps, the first of which is the start.
        constraints: What the frames keep of the system's constraints.
        writer: Where the last good frame goes on an explosion, unless it is there already.
        rng: Gives the randomness of each step, so that a run may go on at any.
        stress: Whether the frames have it.
        part: What the steps are of, where not of the run: " of the equilibration".

    Yields:
        The start and each step, with velocities, energy and forces.

    Raises:
        RuntimeError: If energy or forces are not finite, an atom moves 1 Å in a step, or the
            potential refuses the positions.
        ValueError: If the start is refused.
    """
    good = None
    for step in steps:
        try:
            if step > steps.start:
                if hasattr(integrator, "rng"):
                    integrator.rng = rng(step)  # pyright: ignore[reportAttributeAccessIssue]
                integrator.run(1)
            frame = snapshot(integrator.atoms, stress)
            check_frame(frame, good)
        except ValueError as error:  # ours, or the potential's, which refuses positions
            if good is None:
                raise
            writer.write(good)
            raise RuntimeError(
                f"the system exploded at step {step}{part}, step {step - 1} is the last good frame: "
                f"{error}; reduce `timestep` or `temperature`, or train on such structures"
            ) from error
        frame.set_constraint(constraints)  # without the bath's own
        frame.info["step"] = step
        yield frame
        good = frame


def check_frame(frame: Atoms, previous: Atoms | None = None) -> None:
    """Refuse what no potential may say, and what no step may do.

    Raises:
        ValueError: If energy or forces are not finite, or an atom moved 1 Å.
    """
    energy = results_of(frame)["energy"]
    if not math.isfinite(energy):
        raise ValueError(f"`atoms.calc` returned the energy {energy}")
    forces = results_of(frame)["forces"]
    finite = np.isfinite(forces).all(axis=1)
    if not finite.all():
        atom = int(np.argmin(finite))
        raise ValueError(f"`atoms.calc` returned the force {forces[atom].tolist()} on atom {atom}")
    if previous is None:
        return
    moved = np.linalg.norm(frame.positions - previous.positions, axis=1)
    if not (moved < FARTHEST).all():
        atom = int(np.argmax(moved))  # the first nan, if there is one
        raise ValueError(f"atom {atom} moved {moved[atom]:.3g} Å in one step")
