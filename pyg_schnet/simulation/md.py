"""Molecular dynamics that reports how far its numbers can be trusted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics

from pyg_schnet.io.outputs import check_distinct
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.integrators import (
    MDSettings,
    check_positive,
    integrator_of,
    memory_of,
    number_of_steps,
    remember,
)
from pyg_schnet.simulation.limits import Limits, check_frame, training_domain_of
from pyg_schnet.simulation.log import RunLog
from pyg_schnet.simulation.restart import RestartFile
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.structures import (
    check_initial_structure,
    copy_with_calculator,
    snapshot,
    stored_results,
)
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.simulation.velocities import (
    degrees_of_freedom,
    draw_momenta,
    kinetic,
    remove_drift,
)

_AVERAGED = ("temperature_K", "pressure_GPa", "volume_A3")
_NO_STRESS = (
    "the potential was not trained on stresses; the pressure that follows from its energies may be far off"
)


@dataclass(frozen=True)
class Dynamics:
    """The result of :func:`run_md`; of a resumed run, of the whole of it.

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
        pressure: Mean pressure in GPa, that of moving atoms included; ``None`` without a barostat.
        volume: Mean volume in Å³; ``None`` without a barostat.
        log: The file of energies and temperatures, if one was written.
    """

    atoms: Atoms
    steps: int
    duration: float
    temperature: float
    drift: float | None
    fluctuation: float | None
    trajectory: Path | None
    stopped: str | None = None
    pressure: float | None = None
    volume: float | None = None
    log: Path | None = None


def run_md(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    timestep: float = 0.5,
    duration: float = 1.0,
    thermostat: str = "nve",
    friction: float = 0.01,
    pressure: float | None = None,
    pressure_time: float = 1000.0,
    equilibration: float = 0.0,
    seed: int = 0,
    trajectory: str | os.PathLike | None = None,
    interval: int = 10,
    log: str | os.PathLike | None = None,
    overwrite: bool = False,
    resume: bool = False,
    closest: float | None = MIN_DISTANCE_RATIO,
    max_force: float | str | None = "auto",
    stop_if_uncertain: float | None = None,
    on_step: Callable[[int, Atoms], None] | None = None,
) -> Dynamics:
    """Move atoms by Newton's equations, with or without a heat bath.

    Velocities start from the Maxwell-Boltzmann distribution, scaled to the temperature exactly,
    with the center of mass at rest. In ``"nve"`` molecules do not turn either, and the temperature
    counts 3N-6 degrees of freedom (3N-5 if linear, 3N-3 if periodic); a bath turns molecules, hence
    3N-3. With constraints on ``atoms`` all that they leave moves and counts, as do all 3N at a given
    pressure. ASE's ``atoms.get_temperature()`` counts 3N where nothing is constrained, and reads lower.

    From a relaxed structure an ``"nve"`` run settles near half of the temperature, as half of the
    energy becomes potential; ``equilibration`` avoids that.

    A run that leaves what its potential was trained on, as far as
    :class:`~pyg_schnet.potentials.training_domain.TrainingDomain` knows, ends there: what it would
    go on with is not physics. ``stopped`` says why, and the last frame within the limits is the result and
    the last of ``trajectory``.

    Args:
        atoms: With a calculator; not modified, constraints are respected, velocities are not used.
        temperature: In K; of the start in ``"nve"``.
        timestep: In fs.
        duration: In ps.
        thermostat: ``"nve"`` (velocity Verlet, energy conserved) or ``"langevin"``.
        friction: Of the bath, in 1/fs; 0.01 forgets a velocity in 100 fs.
        pressure: In GPa (1 bar is 0.0001), of a barostat that scales the cell, keeping its shape; needs the
            bath. The cell stays as it is if ``None``.
        pressure_time: Time constant of the barostat, in fs.
        equilibration: In ps, with the bath, before the run; not part of the result.
        seed: Of velocities and bath; the same seed gives the same run.
        trajectory: A file of frames, with velocities, energies and forces; ``atoms.info["step"]`` numbers
            them. ``*.traj`` and ``*.extxyz`` grow frame by frame; for other formats of ASE see
            :class:`~pyg_schnet.simulation.trajectory.TrajectoryFile`.
        interval: Steps between two frames, and two rows of ``log``; the first is the start.
        log: A CSV file of energies, temperature and drift so far; with a barostat, pressure and volume.
        overwrite: Whether ``trajectory`` and ``log`` may replace files.
        resume: Go on with the run of ``trajectory`` from its last frame, as if it had never ended, to the
            whole of ``duration``, which may be longer now; begin where there is none. Limits may change, all
            else must be as it was. A file beside it, ``trajectory.restart``, keeps what that takes, and which
            ``log`` the run has: it goes on, too; another that exists is not touched.
        closest: The part of the shortest distance of two elements in training below which the run stops;
            ``None`` allows any.
        max_force: The force on an atom beyond which it stops, in eV/Å; ``"auto"`` is 3 times the largest in
            training, ``None`` allows any.
        stop_if_uncertain: Stop, with that frame as the last, when the potentials of an ensemble disagree on
            some atom's force by more than this, in eV/Å (deviation, see :class:`~pyg_schnet.Ensemble`).
        on_step: Called with the number of each step, from 0, and its frame with energy and forces.

    Returns:
        The last frame, and temperature, drift and fluctuation over all steps, the start included.

    Raises:
        FileExistsError: If ``trajectory`` or ``log`` exists.
        FileNotFoundError: If the file to resume lacks its restart file.
        RuntimeError: If the system explodes: energy or forces are not finite, an atom moves 1 Å in
            a step, or the potential refuses the positions; or if it leaves the limits in the
            equilibration. The last good frame is the last of ``trajectory``.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range, the potential refuses the start, the start is beyond
            the limits, or a resumed run had other settings.

    Source:
        Bath: Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), equation (23), as in
        ASE, with its constraint on the center of mass. ASE's ``fixcm=True`` heats small molecules
        (nine atoms at 500 K: 650 to 730 K), so it is not used. Barostat: Quigley and Probert, J. Chem. Phys.
        120, 11432 (2004), as ASE's ``LangevinBAOAB``, whose bath moves the center of mass.
    """
    settings = MDSettings(
        temperature, timestep, thermostat, friction, pressure, pressure_time, equilibration, seed, interval
    )
    system = copy_with_calculator(atoms)
    settings.check(duration, system)
    check_initial_structure(system)
    _check_doubt(stop_if_uncertain, atoms)
    limits = Limits(system, closest, max_force)
    restart = RestartFile(None if trajectory is None else Path(trajectory), settings, system, log)
    point = restart.read() if resume else None
    replace = overwrite or (resume and restart.has_begun)
    writer = TrajectoryFile(trajectory, replace, None if point is None else point.size)
    after, energy = (-1, None) if point is None else (point.step, point.energy)
    # Another log is no part of the run.
    table = RunLog(log, overwrite, after if restart.has_log else None, energy)
    frames = None if writer.growing == writer.path else writer.growing
    outputs = {"trajectory": trajectory, "trajectory.extxyz": frames, "trajectory.restart": restart.path}
    check_distinct({}, {**outputs, "log": log})

    constraints, nve, piston = system.constraints, thermostat == "nve", pressure is not None
    rotation = not nve or bool(system.pbc.any())
    # The bath's constraint on the center of mass included, which the barostat's bath has not.
    count = degrees_of_freedom(system, rotation, drift=piston)
    draw = partial(_randomness, seed)
    steps, first, statistics = number_of_steps(duration, timestep), 0, Statistics()
    if piston and (domain := training_domain_of(system.calc)) is not None and not domain.stress:
        warnings.warn(_NO_STRESS, stacklevel=2)
    restart.companions = [path for path in (writer.growing, table.path) if path is not None]
    with writer, table, restart:
        if point is None:
            _check_limits(system, limits)
            restart.begin()
            draw_momenta(system, temperature, np.random.default_rng(seed), rotation, drift=piston)
            if equilibration > 0:
                bath = integrator_of(system, settings, bath=True)
                before = range(number_of_steps(equilibration, timestep) + 1)
                frames = guarded_frames(
                    bath, before, constraints, writer, partial(draw, 0), part=" of the equilibration"
                )
                _equilibrate(frames, limits, writer)
                system.set_constraint(constraints)
                if not piston:
                    remove_drift(system, rotation)
        else:
            point.place(system)
            first, statistics = point.step, point.statistics
        integrator = integrator_of(system, settings, bath=not nve)
        remember(integrator, [] if point is None else point.memory)
        numbers = range(first, max(first, steps) + 1)
        last, stopped = system, None
        for frame in guarded_frames(integrator, numbers, constraints, writer, partial(draw, 1), piston):
            step = frame.info["step"]
            if reason := limits.breach(frame):
                stopped = f"at step {step} {reason}"
            # Now: the calculator is the caller's, who may use it in `on_step`.
            doubt = None if stop_if_uncertain is None else _doubt(system, stop_if_uncertain, step)
            if point is not None and step == first:
                point.check_energy(stored_results(frame)["energy"], len(system))
                last = frame  # which was counted and written
                if stopped := stopped or doubt:
                    break
                continue
            if stopped:
                writer.write(last)
                break
            last = frame
            values = _measure(frame, count, piston)
            statistics.add(step, values["total_eV"], *(values.get(name, 0.0) for name in _AVERAGED))
            if step % interval == 0:
                writer.write(frame)
                drift = statistics.drift(timestep, len(system)) if nve else None
                table.write(step=step, time_ps=step * timestep / 1000, drift_meV_per_atom_ps=drift, **values)
                restart.write(step, frame, writer.size, statistics, memory_of(integrator))
            if on_step is not None:
                on_step(step, frame)
            if stopped := doubt:
                writer.write(frame)
                break
    steps = last.info["step"]
    return Dynamics(
        atoms=last,
        steps=steps,
        duration=steps * timestep / 1000,
        temperature=statistics.temperature,
        drift=statistics.drift(timestep, len(system)) if nve else None,
        fluctuation=statistics.fluctuation(len(system)) if nve else None,
        trajectory=writer.path,
        stopped=stopped,
        pressure=statistics.pressure if piston else None,
        volume=statistics.volume if piston else None,
        log=table.path,
    )


def guarded_frames(
    integrator: MolecularDynamics,
    steps: range,
    constraints: list,
    writer: TrajectoryFile,
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


def _randomness(seed: int, part: int, step: int) -> np.random.Generator:
    """Give the randomness of a step, which depends on no step before it: 12 µs."""
    return np.random.default_rng([seed, part, step])


def _check_limits(system: Atoms, limits: Limits) -> None:
    """Refuse a start beyond the limits, or one that the potential refuses."""
    frame = snapshot(system)
    check_frame(frame)
    if reason := limits.breach(frame):
        raise ValueError(
            f"`atoms` must be within what the potential was trained on, but {reason}; relax the structure, "
            "train on such ones, or allow it by `closest` or `max_force`"
        )


def _equilibrate(frames: Iterator[Atoms], limits: Limits, writer: TrajectoryFile) -> None:
    last = None
    for frame in frames:
        if reason := limits.breach(frame):
            if last is not None:
                writer.write(last)
            raise RuntimeError(
                "the equilibration left what the potential was trained on: at step "
                f"{frame.info['step']} {reason}; reduce `temperature`, or train on such structures"
            )
        last = frame


def _measure(frame: Atoms, count: int, piston: bool) -> dict[str, float]:
    """Measure what a row of the log has."""
    potential = stored_results(frame)["energy"]
    own = float(frame.get_kinetic_energy())
    values = {
        "potential_eV": potential,
        "kinetic_eV": own,
        "total_eV": potential + own,
        "temperature_K": kinetic(frame, count),
    }
    if piston:
        volume = float(frame.get_volume())
        pressure = 2 * own / (3 * volume) - float(stored_results(frame)["stress"][:3].mean())
        values |= {"pressure_GPa": pressure / units.GPa, "volume_A3": volume}
    return values


def _check_doubt(limit: float | None, atoms: Atoms) -> None:
    if limit is None:
        return
    check_positive("stop_if_uncertain", limit, "eV/Å")
    if not isinstance(getattr(atoms.calc, "potential", None), Ensemble):
        raise ValueError(
            "`stop_if_uncertain` needs a calculator of several potentials, which may disagree; use "
            "SchNetCalculator([path, other_path, …]), or several models, joined by commas, in the command"
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
