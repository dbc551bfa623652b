"""Molecular dynamics that reports how far its numbers can be trusted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from pyg_schnet.ensemble import Ensemble
from pyg_schnet.simulation.conservation import fit_drift
from pyg_schnet.simulation.integration import guarded_frames
from pyg_schnet.simulation.structures import own_copy
from pyg_schnet.simulation.trajectory import FrameWriter
from pyg_schnet.simulation.velocities import (
    degrees_of_freedom,
    draw_momenta,
    kinetic,
    remove_drift,
)

_THERMOSTATS = ("nve", "langevin")


@dataclass(frozen=True)
class Dynamics:
    """The result of :func:`run_md`.

    Attributes:
        atoms: The last frame, with velocities, energy and forces.
        steps: Number of time steps.
        duration: In ps.
        temperature: Mean kinetic temperature in K.
        drift: Slope of the least-squares line through the total energy at every step, in meV per
            atom and ps; ``None`` with a thermostat, which exchanges energy.
        fluctuation: Standard deviation of the total energy about that line, in meV per atom;
            ``None`` with a thermostat.
        trajectory: The file of frames, if one was written.
        stopped: Why the run ended early, if it did.
    """

    atoms: Atoms
    steps: int
    duration: float
    temperature: float
    drift: float | None
    fluctuation: float | None
    trajectory: Path | None
    stopped: str | None = None


def run_md(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    timestep: float = 0.5,
    duration: float = 1.0,
    thermostat: str = "nve",
    friction: float = 0.01,
    equilibration: float = 0.0,
    seed: int = 0,
    trajectory: str | os.PathLike | None = None,
    interval: int = 10,
    overwrite: bool = False,
    stop_if_uncertain: float | None = None,
    on_step: Callable[[int, Atoms], None] | None = None,
) -> Dynamics:
    """Move atoms by Newton's equations, with or without a heat bath.

    Velocities start from the Maxwell-Boltzmann distribution, scaled to the temperature exactly,
    with the center of mass at rest. In ``"nve"`` molecules do not turn either, and the temperature
    counts 3N-6 degrees of freedom (3N-5 if linear, 3N-3 if periodic); a bath turns molecules, hence
    3N-3. With constraints on ``atoms`` all that they leave moves and counts. ASE's
    ``atoms.get_temperature()`` counts 3N where nothing is constrained, and reads lower.

    From a relaxed structure an ``"nve"`` run settles near half of the temperature, as half of the
    energy becomes potential; ``equilibration`` avoids that.

    Args:
        atoms: With a calculator; not modified, constraints are respected, velocities are not used.
        temperature: In K; of the start in ``"nve"``.
        timestep: In fs.
        duration: In ps.
        thermostat: ``"nve"`` (velocity Verlet, energy conserved) or ``"langevin"``.
        friction: Of the bath, in 1/fs; 0.01 forgets a velocity in 100 fs.
        equilibration: In ps, with the bath, before the run; not part of the result.
        seed: Of velocities and bath; the same seed gives the same run.
        trajectory: A file of frames, ``*.traj`` or ``*.extxyz``, with velocities, energies and
            forces; ``atoms.info["step"]`` numbers them.
        interval: Steps between two frames; the first is the start.
        overwrite: Whether ``trajectory`` may replace a file.
        stop_if_uncertain: Stop, with that frame as the last, when the potentials of an ensemble disagree on
            some atom's force by more than this, in eV/Å (deviation, see :class:`~pyg_schnet.Ensemble`).
        on_step: Called with the number of each step, from 0, and its frame with energy and forces.

    Returns:
        The last frame, and temperature, drift and fluctuation over all steps, the start included.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        RuntimeError: If the system explodes: energy or forces are not finite, an atom moves 1 Å in
            a step, or the potential refuses the positions. The last good frame is the last of
            ``trajectory``.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range, or the potential refuses the start.

    Source:
        Bath: Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), equation (23), as in
        ASE, with its constraint on the center of mass. ASE's ``fixcm=True`` heats small molecules
        (nine atoms at 500 K: 650 to 730 K), so it is not used.
    """
    check_settings(thermostat, interval, temperature, timestep, duration, friction)
    _check_quantity("equilibration", equilibration, "ps", zero=True)
    if stop_if_uncertain is not None:
        _check_quantity("stop_if_uncertain", stop_if_uncertain, "eV/Å")
    writer = FrameWriter(trajectory, overwrite)
    system = own_copy(atoms)
    if stop_if_uncertain is not None and not isinstance(getattr(atoms.calc, "potential", None), Ensemble):
        raise ValueError(
            "`stop_if_uncertain` needs a calculator of several potentials, which may disagree; use "
            "SchNetCalculator([path, other_path, …])"
        )
    constraints = system.constraints
    nve = thermostat == "nve"
    rotation = not nve or bool(system.pbc.any())
    count = degrees_of_freedom(system, rotation)  # the bath's constraint on the center included
    rng = np.random.default_rng(seed)
    draw_momenta(system, temperature, rng, rotation)
    bath = partial(_langevin, system, timestep, temperature, friction, rng)
    frame, total, temperatures, stopped = system, [], [], None
    with writer:
        if equilibration > 0:
            for _ in guarded_frames(bath(), number_of_steps(equilibration, timestep), constraints, writer):
                pass
            system.set_constraint(constraints)
            remove_drift(system, rotation)
        integrator = VelocityVerlet(system, timestep * units.fs) if nve else bath()
        steps = number_of_steps(duration, timestep)
        for step, frame in enumerate(guarded_frames(integrator, steps, constraints, writer)):
            total.append(system.get_total_energy())
            temperatures.append(kinetic(frame, count))
            if step % interval == 0:
                writer.write(frame)
            if on_step is not None:
                on_step(step, frame)
            if stop_if_uncertain is not None and (stopped := _doubt(system, stop_if_uncertain, step)):
                writer.write(frame)
                break
    steps = len(total) - 1
    drift, fluctuation = fit_drift(total, timestep, len(system)) if nve and steps > 0 else (None, None)
    return Dynamics(
        atoms=frame,
        steps=steps,
        duration=steps * timestep / 1000,
        temperature=float(np.mean(temperatures)),
        drift=drift,
        fluctuation=fluctuation,
        trajectory=writer.path,
        stopped=stopped,
    )


def _doubt(system: Atoms, limit: float, step: int) -> str | None:
    """Say how far potentials disagree, if it is too far."""
    deviation = system.calc.results["forces_deviation"]  # pyright: ignore[reportOptionalMemberAccess]
    atom = int(deviation.argmax())
    if deviation[atom] <= limit:
        return None
    return (
        f"the potentials disagree on the force on atom {atom} by {deviation[atom]:.3g} eV/Å at step {step}, "
        f"more than {limit:g}"
    )


def _langevin(
    system: Atoms, timestep: float, temperature: float, friction: float, rng: np.random.Generator
) -> Langevin:
    if not system.constraints:
        system.set_constraint(FixCom())
    return Langevin(
        system,
        timestep * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        fixcm=False,
        rng=rng,
    )


def number_of_steps(duration: float, timestep: float) -> int:
    """Count the steps of a duration in ps, by the step in fs: one at least."""
    return max(1, round(1000 * duration / timestep))


def check_settings(
    thermostat: str, interval: int, temperature: float, timestep: float, duration: float, friction: float
) -> None:
    """Refuse settings that no dynamics has.

    Raises:
        ValueError: With the name and its requirement.
    """
    if thermostat not in _THERMOSTATS:
        raise ValueError(f"`thermostat` must be one of {', '.join(_THERMOSTATS)}; got {thermostat!r}")
    if interval < 1:
        raise ValueError(f"`interval` must be at least 1 step, got {interval}")
    _check_quantity("temperature", temperature, "K", zero=True)
    _check_quantity("timestep", timestep, "fs")
    _check_quantity("duration", duration, "ps")
    _check_quantity("friction", friction, "1/fs")


def _check_quantity(name: str, value: float, unit: str, zero: bool = False) -> None:
    if not (0 < value < math.inf or (zero and value == 0)):
        sign = "zero or positive" if zero else "positive"
        raise ValueError(f"`{name}` must be {sign} and in {unit}, got {value}")
