"""Molecular dynamics of one structure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from ase import Atoms, units
from ase.constraints import FixBondLengths
from ase.md.md import MolecularDynamics

from pyg_schnet.potentials.intended_use import warn_of_motion
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.integrators import (
    MDSettings,
    build_integrator,
    ns_per_day,
    number_of_steps,
    restore_integrator,
)
from pyg_schnet.simulation.limits import Limits, check_frame, training_domain_of
from pyg_schnet.simulation.recorder import Recorder
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
    kinetic_temperature,
    remove_drift,
)

_EQUILIBRATION, _RUN = 0, 1  # stages, which have random numbers of their own
_NO_STRESS = (
    "the potential was not trained on stresses; the pressure that follows from its energies may be far off"
)


@dataclass(frozen=True)
class Dynamics:
    """Result of :func:`run_md`; of a resumed run, of the whole of it.

    Attributes:
        atoms: The last frame, with velocities, energy and forces.
        steps: Number of time steps.
        duration: Simulated time in ps.
        temperature: Mean kinetic temperature in K.
        drift: Slope of the least-squares line through the conserved energy at every step, in meV per
            atom and ps: the total energy, with ``"bussi"`` and ``"nose-hoover"`` that of structure and bath
            together. ``None`` with the other thermostats, whose noise exchanges energy.
        fluctuation: Standard deviation of that energy about that line, in meV per atom, or ``None``.
        trajectory: Path of the trajectory, if one was written.
        stopped: Reason for an early end; ``None`` if the run is complete.
        pressure: Mean pressure in GPa, including the kinetic part; ``None`` without a barostat.
        volume: Mean volume in Å³; ``None`` without a barostat.
        log: Path of the log, if one was written.
        ns_per_day: Speed in ns of simulated time per day, of the steps of this call; ``None`` if there were
            none.
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
    ns_per_day: float | None = None


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
    barostat: str = "isotropic",
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
    """Integrate Newton's equations of motion, with or without a heat bath.

    Initial velocities follow the Maxwell-Boltzmann distribution, scaled to the temperature exactly,
    with the center of mass at rest. Molecules do not rotate either, and the temperature counts 3N-6 degrees
    of freedom (3N-5 if linear, 3N-3 if periodic). The noise of ``"langevin"`` rotates molecules, hence 3N-3;
    that of ``"baoab"``, and of ``"langevin"`` with a barostat, also moves them, hence 3N. With constraints on
    ``atoms`` the remaining degrees of freedom move and count. ASE's ``atoms.get_temperature()`` counts 3N
    without constraints and gives lower values.

    From a relaxed structure an ``"nve"`` run settles near half of the temperature, as half of the
    energy becomes potential; ``equilibration`` avoids that.

    A run stops early if it leaves the :class:`~pyg_schnet.potentials.training_domain.TrainingDomain` of its
    potential, beyond which results are not physical. ``stopped`` holds the reason, and the last frame within
    the limits is the result and the last of ``trajectory``.

    Args:
        atoms: Initial structure with a calculator; not modified. Constraints are respected: ``FixAtoms``,
            :class:`~pyg_schnet.simulation.RigidBonds` and others; velocities are not used.
        temperature: Temperature of the bath in K, in ``"nve"`` of the initial velocities.
        timestep: Time step in fs.
        duration: Simulated time in ps.
        thermostat: ``"nve"`` (velocity Verlet, energy conserved), ``"langevin"`` (center of mass at rest),
            ``"baoab"`` (Langevin, configurations exact to second order, center of mass moves), ``"bussi"``
            (stochastic velocity rescaling, which disturbs the motion least) or ``"nose-hoover"`` (a chain).
        friction: Friction of the bath in 1/fs; 0.01 decorrelates a velocity in 100 fs. Its inverse is the
            time constant of ``"bussi"`` and ``"nose-hoover"``.
        pressure: Pressure in GPa (1 bar is 0.0001) of a barostat; requires the bath ``"langevin"``,
            ``"baoab"`` or ``"nose-hoover"``. ``None`` keeps the cell.
        pressure_time: Time constant of the barostat in fs.
        barostat: ``"isotropic"`` keeps the shape of the cell, ``"full"`` changes all of it and needs
            ``"nose-hoover"``.
        equilibration: Time in ps with the bath before the run; not part of the result.
        seed: Seed of velocities and bath; the same seed gives the same run.
        trajectory: File of frames with velocities, energies and forces, numbered by ``atoms.info["step"]``.
            Frames are appended to ``*.traj`` and ``*.extxyz``. Files in other formats of ASE hold the first
            frame until the end, and a file beside them grows, for instance ``run.pdb.extxyz``.
        interval: Number of steps between two frames and between two rows of ``log``; the first is the start.
        log: CSV file of energies, temperature and drift so far; with a barostat, pressure and volume.
        overwrite: Whether ``trajectory`` and ``log`` may replace existing files.
        resume: Continue the run of ``trajectory`` from its last frame, as if it had not been interrupted, to
            the whole of ``duration``, which may be longer now; begin if there is none. Limits may change, all
            else must be the same. The file ``TRAJECTORY.restart`` holds the state and which ``log`` the run
            has: it is continued, too; another existing log is not modified.
        closest: Fraction of the shortest distance of two elements in training below which the run stops;
            ``None`` for no limit.
        max_force: Force on an atom in eV/Å above which the run stops; ``"auto"`` is 3 times the largest in
            training, ``None`` for no limit.
        stop_if_uncertain: Deviation of the potentials of an ensemble on an atom's force in eV/Å above which
            the run stops, with that frame as the last (see :class:`~pyg_schnet.Ensemble`).
        on_step: Called with the number of each step, from 0, and its frame with energy and forces.

    Returns:
        The last frame, and temperature, drift and fluctuation over all steps, the start included.

    Raises:
        FileExistsError: If ``trajectory`` or ``log`` exists.
        FileNotFoundError: If the restart file of the run to resume does not exist.
        RuntimeError: If the system explodes: energy or forces are not finite, an atom moves 1 Å in
            a step, or the potential rejects the positions; or if it leaves the limits in the
            equilibration. The last good frame is the last of ``trajectory``.
        TypeError: If ``atoms`` is not a structure.
        ValueError: If an argument is out of range, the potential rejects the initial structure, it is beyond
            the limits, or a resumed run had other settings.

    Source:
        Langevin: Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), equation (23), as in
        ASE, with its constraint on the center of mass. ASE's ``fixcm=True`` heats small molecules
        (nine atoms at 500 K: 650 to 730 K), so it is not used. Its barostat: Quigley and Probert, J. Chem.
        Phys. 120, 11432 (2004), as ASE's ``LangevinBAOAB``, whose bath moves the center of mass. BAOAB:
        Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013). Bussi, Donadio and Parrinello, J. Chem.
        Phys. 126, 014101 (2007). Nosé-Hoover chain and its barostats: Martyna, Tobias and Klein, J. Chem.
        Phys. 101, 4177 (1994). All as in ASE, with the degrees of freedom below.
    """
    settings = MDSettings(
        *(
            temperature,
            timestep,
            thermostat,
            friction,
            pressure,
            pressure_time,
            equilibration,
            seed,
            interval,
        ),
        barostat=barostat,
    )
    system = copy_with_calculator(atoms)
    for constraint in system.constraints:
        if isinstance(constraint, FixBondLengths) and constraint.bondlengths is None:
            # Now, not at the first step, which is another one when the run is resumed.
            constraint.bondlengths = constraint.initialize_bond_lengths(system)
    settings.check(duration, system)
    check_initial_structure(system)
    limits = Limits(system, closest, max_force, stop_if_uncertain)
    recorder = Recorder(system, settings, trajectory, log, overwrite, resume)
    domain, constraints = training_domain_of(system.calc), system.constraints
    warn_of_motion(getattr(system.calc, "potential", None))
    if settings.has_barostat and domain is not None and not domain.stress:
        warnings.warn(_NO_STRESS, stacklevel=2)
    modes = settings.modes(system)
    freedom = degrees_of_freedom(system, **modes)
    point, last, stopped = recorder.resumed, system, None
    with recorder:
        if point is None:
            _check_start(system, limits)
            recorder.begin()
            draw_momenta(system, temperature, np.random.default_rng(seed), **modes)
            if equilibration > 0:
                _equilibrate(system, settings, limits, recorder.trajectory)
                if not modes["drift"]:
                    remove_drift(system, modes["rotation"])
        else:
            point.restore(system)
        integrator = build_integrator(system, settings, bath=not settings.conserves_energy)
        restore_integrator(integrator, [] if point is None else point.memory)
        first = 0 if point is None else point.step
        steps = range(first, max(first, number_of_steps(duration, timestep)) + 1)
        began = perf_counter()
        for frame in _integrate(integrator, steps, constraints, recorder.trajectory, settings, _RUN):
            step, violation = frame.info["step"], limits.violation(frame)
            stopped = None if violation is None else f"at step {step} {violation}"
            uncertain = limits.uncertainty(system, step)  # before `on_step`, which may use the calculator
            if point is not None and step == first:  # recorded before the interruption
                point.check_energy(stored_results(frame)["energy"], len(system))
                last, stopped = frame, stopped or uncertain
                recorder.trajectory.last = frame
            elif stopped is None:
                last, stopped = frame, uncertain
                recorder.record(frame, _measure(frame, freedom, settings.has_barostat), integrator)
                if on_step is not None:
                    on_step(step, frame)
            if stopped is not None:
                recorder.trajectory.write(last)
                break
    steps, statistics = last.info["step"], recorder.statistics
    speed = ns_per_day(steps - first, timestep, perf_counter() - began)
    return Dynamics(
        atoms=last,
        steps=steps,
        duration=steps * timestep / 1000,
        temperature=statistics.temperature,
        drift=recorder.drift,
        fluctuation=recorder.fluctuation,
        trajectory=recorder.trajectory.path,
        stopped=stopped,
        pressure=statistics.pressure if settings.has_barostat else None,
        volume=statistics.volume if settings.has_barostat else None,
        log=None if recorder.log is None else recorder.log.path,
        ns_per_day=speed,
    )


def _integrate(
    integrator: MolecularDynamics,
    steps: range,
    constraints: list,
    trajectory: TrajectoryFile,
    settings: MDSettings,
    stage: int,
) -> Iterator[Atoms]:
    """Integrate, and raise when the system explodes.

    Args:
        integrator: ASE's, at the first step.
        steps: Numbers of the time steps, the first of which is the start.
        constraints: Constraints of the frames, without that of the bath.
        trajectory: File to which the last good frame is written on an explosion.
        settings: Settings of the run.
        stage: The equilibration or the run, of which frames have a stress if there is a barostat.

    Yields:
        The start and each step, with velocities, energy and forces.

    Raises:
        RuntimeError: If energy or forces are not finite, an atom moves 1 Å in a step, or the
            potential rejects the positions.
        ValueError: If the potential rejects the start.
    """
    good = None
    for step in steps:
        try:
            if step > steps.start:
                if hasattr(integrator, "rng"):
                    # Independent of the steps before, so that a run continues at any step: 12 µs.
                    rng = np.random.default_rng([settings.seed, stage, step])
                    integrator.rng = rng  # pyright: ignore[reportAttributeAccessIssue]
                integrator.run(1)
            frame = snapshot(integrator.atoms, stress=stage == _RUN and settings.has_barostat)
            check_frame(frame, good)
        except ValueError as error:  # of `check_frame`, or of the potential
            if good is None:
                raise
            trajectory.write(good)
            part = "" if stage == _RUN else " of the equilibration"
            raise RuntimeError(
                f"the system exploded at step {step}{part}, step {step - 1} is the last good frame: "
                f"{error}; reduce `timestep` or `temperature`, or train on such structures"
            ) from error
        frame.set_constraint(constraints)
        frame.info["step"] = step
        yield frame
        good = frame


def _check_start(system: Atoms, limits: Limits) -> None:
    """Raise if the potential rejects the initial structure, or if it is beyond the limits."""
    frame = snapshot(system)
    check_frame(frame)
    if reason := limits.violation(frame):
        raise ValueError(
            f"`atoms` must be within the training domain of the potential, but {reason}; relax the "
            "structure, train on such structures, or change `closest` or `max_force`"
        )


def _equilibrate(system: Atoms, settings: MDSettings, limits: Limits, trajectory: TrajectoryFile) -> None:
    """Run the bath before the run proper.

    Raises:
        RuntimeError: If the system leaves the limits or explodes.
    """
    constraints, last = system.constraints, None
    integrator = build_integrator(system, settings, bath=True)
    steps = range(number_of_steps(settings.equilibration, settings.timestep) + 1)
    for frame in _integrate(integrator, steps, constraints, trajectory, settings, _EQUILIBRATION):
        if reason := limits.violation(frame):
            if last is not None:
                trajectory.write(last)
            raise RuntimeError(
                "the equilibration left the training domain of the potential: at step "
                f"{frame.info['step']} {reason}; reduce `temperature`, or train on such structures"
            )
        last = frame
    system.set_constraint(constraints)


def _measure(frame: Atoms, freedom: int, pressure: bool) -> dict[str, float]:
    """Return the columns of the log that follow from a frame.

    Args:
        frame: The structure with its results.
        freedom: Number of degrees of freedom.
        pressure: Whether to measure pressure and volume.
    """
    potential = stored_results(frame)["energy"]
    kinetic = float(frame.get_kinetic_energy())
    values = {
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
        "temperature_K": kinetic_temperature(frame, freedom),
    }
    if pressure:
        volume = float(frame.get_volume())
        total = 2 * kinetic / (3 * volume) - float(stored_results(frame)["stress"][:3].mean())
        values |= {"pressure_GPa": total / units.GPa, "volume_A3": volume}
    return values
