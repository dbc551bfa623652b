"""Molecular dynamics of several structures, one call of the potential per step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from ase import Atoms

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.intended_use import warn_of_motion, warn_of_other_molecules
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.batched_integrator import BatchedIntegrator
from pyg_schnet.simulation.batched_restart import BatchedRestart
from pyg_schnet.simulation.batched_system import check_batched, check_sequence, group_by_pairs
from pyg_schnet.simulation.calculator import Model, compile_copy, evaluation_copy
from pyg_schnet.simulation.integrators import check_settings, ns_per_day, number_of_steps
from pyg_schnet.simulation.limits import BatchedLimits
from pyg_schnet.simulation.structures import StructureError
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.simulation.velocities import degrees_of_freedom
from pyg_schnet.transforms.ase_atoms import from_ase

_THERMOSTATS = ("nve", "langevin")


@dataclass(frozen=True)
class BatchedDynamics:
    """Result of :func:`run_md_batched`; lists are in the order of the structures.

    Attributes:
        atoms: The last frames, with velocities, energies and forces.
        steps: Number of time steps.
        duration: Simulated time in ps.
        stopped: Reasons for an early end; ``None`` for structures without one.
        temperature: Mean kinetic temperatures in K, the starts included.
        potential_energy: Mean potential energies in eV.
        drift: Slopes of total energies in meV per atom and ps, ``None`` of less than a step; ``None`` with a
            thermostat.
        fluctuation: Standard deviations of total energies about those slopes in meV per atom, as ``drift``.
        trajectory: Path of the trajectory, if one was written.
        ns_per_day: Speed in ns of simulated time per day, of all structures together, of the steps of this
            call; ``None`` if there were none.
    """

    atoms: list[Atoms]
    steps: int
    duration: float
    stopped: list[str | None]
    temperature: list[float]
    potential_energy: list[float]
    drift: list[float | None] | None
    fluctuation: list[float | None] | None
    trajectory: Path | None
    ns_per_day: float | None = None


def run_md_batched(
    potential: Model,
    structures: Sequence[Atoms],
    *,
    temperature: float = 300.0,
    timestep: float = 0.5,
    duration: float = 1.0,
    thermostat: str = "nve",
    friction: float = 0.01,
    seed: int = 0,
    trajectory: str | os.PathLike | None = None,
    interval: int = 100,
    overwrite: bool = False,
    resume: bool = False,
    closest: float | None = MIN_DISTANCE_RATIO,
    max_force: float | str | None = "auto",
    max_pairs: int = 200_000,
    device: str | torch.device | None = None,
) -> BatchedDynamics:
    """Integrate Newton's equations of motion for several structures, each as if it were alone.

    The trajectory of a structure depends on it, the seed and its index, not on the others. Initial velocities
    are drawn for each as in :func:`~pyg_schnet.simulation.run_md`.

    A structure that explodes or leaves the training domain of the potential ends there, and the others
    continue: ``stopped`` holds the reason, and its last good frame is its result and its last in
    ``trajectory``.

    Args:
        potential: A potential or an ensemble, which is copied and compiled, or paths of checkpoints.
        structures: Initial structures of any sizes, periodic or not; without constraints, not modified.
        temperature: Temperature of the bath in K, in ``"nve"`` of the initial velocities.
        timestep: Time step in fs.
        duration: Simulated time in ps.
        thermostat: ``"nve"`` (velocity Verlet) or ``"langevin"`` (BAOAB).
        friction: Friction of the bath in 1/fs.
        seed: Seed of velocities and baths.
        trajectory: File of frames, ``*.traj`` or ``*.extxyz``, numbered by ``info["system"]`` and
            ``info["step"]``.
        interval: Number of steps between two frames; the first is the start.
        overwrite: Whether ``trajectory`` may replace an existing file.
        resume: Continue the run of ``trajectory`` from its last frames, as if it had not been interrupted, to
            the whole of ``duration``, which may be longer now if all structures are in one group; begin if
            there is none. Limits may change, all else must be the same. The state is in
            ``TRAJECTORY.restart``.
        closest: Fraction of the shortest distance of two elements in training below which a structure stops;
            ``None`` for no limit.
        max_force: Force on an atom in eV/Å above which a structure stops; ``"auto"`` is 3 times the largest
            in training, ``None`` for no limit.
        max_pairs: Largest number of neighbor pairs computed at once, which bounds the memory: groups of
            structures run one after the other.
        device: Device of the computation; by default that of the potential, the CPU for a path.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        TypeError: If ``structures`` is not a list of structures.
        ValueError: If an argument is out of range, the potential rejects a structure, or one is beyond the
            limits at the start.

    Source:
        Bath: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013).
    """
    check_settings(thermostat, interval, temperature, timestep, duration, friction, known=_THERMOSTATS)
    check_sequence(structures)
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    nve = thermostat == "nve"
    own = evaluation_copy(potential, device)
    compile_copy(own)
    BatchedLimits(own.domain, closest, max_force)  # raises before the work
    warn_of_motion(own)
    warn_of_other_molecules(own, structures)
    for number, atoms in enumerate(structures):
        check_batched(own, atoms, number)
    for number, atoms in enumerate(structures):
        _check_start(own, atoms, number, closest, drift=not nve)
    steps = number_of_steps(duration, timestep)
    groups = list(group_by_pairs(own, structures, max_pairs))
    settings: dict[str, object] = {
        "temperature": temperature,
        "timestep": timestep,
        "thermostat": thermostat,
        "friction": friction,
        "seed": seed,
        "interval": interval,
        "max_pairs": max_pairs,
    }
    if len(groups) > 1:
        settings["duration"] = duration
    restart = None if trajectory is None else BatchedRestart(Path(trajectory), settings, own, structures)
    resumes = resume and _has_state(restart)
    keep = restart.size if restart is not None and resumes else None
    replaces = overwrite or (resume and restart is not None and restart.path.exists())
    seconds, done = perf_counter(), 0
    with TrajectoryFile(trajectory, replaces, keep) as file, ExitStack() as at_end:
        if restart is not None:
            restart.begin(resumes)
            at_end.callback(restart.flush, file)
        results = [] if restart is None else restart.done
        for group in groups[0 if restart is None else restart.group :]:
            limits = BatchedLimits(own.domain, closest, max_force)
            integrator = BatchedIntegrator(
                *(own, [structures[k] for k in group], group, limits),
                *(temperature, timestep, None if nve else friction, seed),
            )
            first = 0 if restart is None else restart.restore(integrator)
            last = max(first, steps)
            record = None if restart is None else partial(restart.update, integrator, file)
            found = integrator.run(last, file, interval, first, record)
            if restart is not None:
                restart.update(integrator, file, last)
                restart.finish_group(found, file)
            results = [*results, *found]
            done += (last - first) * len(group)
    speed = ns_per_day(done, timestep, perf_counter() - seconds)
    atoms, stopped, temperatures, energies, drifts, fluctuations = map(list, zip(*results, strict=True))
    return BatchedDynamics(
        atoms=atoms,
        steps=steps,
        duration=steps * timestep / 1000,
        stopped=stopped,
        temperature=temperatures,
        potential_energy=energies,
        drift=drifts if nve else None,
        fluctuation=fluctuations if nve else None,
        trajectory=file.path,
        ns_per_day=speed,
    )


def _has_state(restart: BatchedRestart | None) -> bool:
    """Read the state of the run to resume; return whether there is one."""
    if restart is None:
        raise ValueError("`resume` needs the `trajectory` to continue, got None")
    return restart.read()


def _check_start(
    potential: Potential | Ensemble, atoms: Atoms, number: int, closest: float | None, drift: bool
) -> None:
    """Raise a StructureError if a structure has constraints, cannot move, or is beyond the limits."""
    if atoms.constraints:
        raise StructureError(
            number,
            f"constraints are not available in batches, got {atoms.constraints[0]}; simulate it alone",
        )
    try:
        degrees_of_freedom(atoms, bool(atoms.pbc.any()), drift)
        if potential.domain is not None and closest is not None:
            potential.domain.check(from_ase(atoms), closest)
    except ValueError as error:
        raise StructureError(number, str(error)) from error
