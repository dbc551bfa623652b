"""Molecular dynamics of many structures in one call of the model a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.batched_system import BatchedSystem, by_size, check_known, check_structures
from pyg_schnet.simulation.calculator import Model, compile_copy, evaluation_copy
from pyg_schnet.simulation.integrators import check_settings, number_of_steps
from pyg_schnet.simulation.limits import MAX_DISPLACEMENT, BatchedLimits
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.structures import StructureError
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.simulation.velocities import degrees_of_freedom, draw_momenta
from pyg_schnet.transforms.ase_atoms import from_ase

_STEPS_OF_NOISE = 64  # drawn at once


@dataclass(frozen=True)
class BatchedDynamics:
    """The result of :func:`run_md_batched`; lists in the order of the structures.

    Attributes:
        atoms: The last frames, with velocities, energies and forces.
        steps: Number of time steps.
        duration: In ps.
        stopped: Why structures ended early; ``None`` for those that did not.
        temperature: Mean kinetic temperatures in K, the starts included.
        potential_energy: Mean potential energies in eV.
        drift: Slopes of total energies in meV per atom and ps, ``None`` of less than a step; ``None`` with a
            thermostat.
        fluctuation: Standard deviations of total energies about those slopes in meV per atom, as ``drift``.
        trajectory: The file of frames, if one was written.
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
    closest: float | None = MIN_DISTANCE_RATIO,
    max_force: float | str | None = "auto",
    max_pairs: int = 200_000,
    device: str | torch.device | None = None,
) -> BatchedDynamics:
    """Move many molecules or replicas by Newton's equations, each as if it were alone.

    What happens to a structure depends on it, the seed and its number, not on the others. Velocities begin as
    those of :func:`~pyg_schnet.simulation.run_md`, drawn for each.

    A structure that explodes or leaves what its potential was trained on ends there, and the others go on:
    ``stopped`` says why, and its last good frame is its result and its last in ``trajectory``.

    Args:
        potential: A potential or an ensemble, which is copied and compiled, or paths of checkpoints.
        structures: Of any sizes, periodic or not; without constraints, not modified.
        temperature: In K; of the start in ``"nve"``.
        timestep: In fs.
        duration: In ps.
        thermostat: ``"nve"`` (velocity Verlet) or ``"langevin"`` (BAOAB).
        friction: Of the bath, in 1/fs.
        seed: Of velocities and baths.
        trajectory: A file of frames, ``*.traj`` or ``*.extxyz``; ``info["system"]`` and ``info["step"]``
            number them.
        interval: Steps between two frames; the first is the start.
        overwrite: Whether ``trajectory`` may replace a file.
        closest: The part of the shortest distance of two elements in training below which a structure stops,
            ``None`` allows any.
        max_force: The force on an atom beyond which it stops, in eV/Å; ``"auto"`` is 3 times the largest in
            training, ``None`` allows any.
        max_pairs: Neighbor pairs computed at once, which bounds the memory: more structures run one group
            after the other.
        device: Where to compute; by default where the potential is, the CPU for a path.

    Raises:
        FileExistsError: If ``trajectory`` exists.
        TypeError: If ``structures`` is not a list of structures.
        ValueError: If an argument is out of range, the potential refuses a structure, or one is beyond the
            limits at the start.

    Source:
        Bath: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013).
    """
    check_settings(thermostat, interval, temperature, timestep, duration, friction)
    check_structures(structures)
    own = evaluation_copy(potential, device)
    compile_copy(own)
    BatchedLimits(own.domain, closest, max_force)  # which refuses wrong ones before the work
    for number, atoms in enumerate(structures):
        _check_start(own, atoms, number, thermostat == "langevin", closest)
    steps, found = number_of_steps(duration, timestep), []
    with TrajectoryFile(trajectory, overwrite) as writer:
        for group in by_size(own, structures, max_pairs):
            bath = friction if thermostat == "langevin" else None
            own_structures = [structures[k] for k in group]
            limits = BatchedLimits(own.domain, closest, max_force)
            moves = _Moves(own, own_structures, group, temperature, timestep, seed, bath, limits)
            found += moves.run(steps, writer, interval)
    atoms, stopped, temperatures, energies, drifts, fluctuations = zip(*found, strict=True)
    nve = thermostat == "nve"
    return BatchedDynamics(
        list(atoms),
        steps,
        steps * timestep / 1000,
        list(stopped),
        list(temperatures),
        list(energies),
        list(drifts) if nve else None,
        list(fluctuations) if nve else None,
        writer.path,
    )


def _check_start(
    potential: Potential | Ensemble, atoms: Atoms, number: int, bath: bool, closest: float | None
) -> None:
    """Refuse what no group could begin with, before the first one begins.

    Raises:
        StructureError: With the number of the structure.
    """
    check_known(potential, atoms, number)
    try:
        degrees_of_freedom(atoms, bool(atoms.pbc.any()), drift=bath)
        if potential.domain is not None and closest is not None:
            potential.domain.check(from_ase(atoms), closest)
    except ValueError as error:
        raise StructureError(number, str(error)) from error


class _Moves:
    """Positions and momenta of a group."""

    def __init__(
        self,
        potential: Potential | Ensemble,
        structures: list[Atoms],
        numbers: list[int],
        temperature: float,
        timestep: float,
        seed: int,
        friction: float | None,
        limits: BatchedLimits,
    ):
        self.friction, self.limits = friction, limits
        self.timestep, self.temperature = timestep, temperature
        self.rng = [np.random.default_rng([seed, number]) for number in numbers]
        started, self.freedom = [], []
        for atoms, rng in zip(structures, self.rng, strict=True):
            moving = atoms.copy()
            # The bath moves the center of mass, too.
            kind = {"rotation": bool(atoms.pbc.any()), "drift": friction is not None}
            draw_momenta(moving, temperature, rng, **kind)
            started.append(moving)
            self.freedom.append(degrees_of_freedom(atoms, **kind))  # now: a linear molecule may bend
        self.replicas = BatchedSystem(potential, started, numbers)
        momenta = np.concatenate([atoms.get_momenta() for atoms in started])
        self.velocity = torch.from_numpy(momenta).to(self.replicas.pos.device) / self.replicas.mass
        self._noise: list[Tensor] = []
        self.moving = torch.ones_like(self.replicas.mass)
        self.ended: dict[int, tuple] = {}  # results by place
        for place, reason in self._breaches(0 * self.replicas.pos).items():
            raise ValueError(
                f"structure {numbers[place]} must be within what the potential was trained on, but {reason}; "
                "relax it, train on such ones, or allow it by `closest` or `max_force`"
            )
        self.statistics = Statistics()

    def run(self, steps: int, writer: TrajectoryFile, interval: int) -> list[tuple]:
        """Move for some steps; give last frames, reasons, mean temperatures and energies, and drifts."""
        replicas, dt = self.replicas, self.timestep * units.fs
        self._measure(0)
        self._write(0, writer)
        for step in range(1, steps + 1):
            before, kick = self.velocity.clone(), 0.5 * dt / replicas.mass * self.moving
            self.velocity += kick * replicas.forces
            if self.friction is None:
                moved = dt * self.velocity
            else:
                moved = 0.5 * dt * self.velocity
                self._bathe(self.friction)
                moved += 0.5 * dt * self.velocity
            if reasons := replicas.move(moved, partial(self._breaches, moved)):
                self._end(reasons, step, before, writer, interval)
                if len(self.ended) == len(replicas):
                    break
            self.velocity += kick * self.moving * replicas.forces
            self._measure(step)
            if step % interval == 0:
                self._write(step, writer)
        left = [place for place in range(len(replicas)) if place not in self.ended]
        frames = self._frames(steps, left, self.velocity)
        for place, frame in zip(left, frames, strict=True):
            self.ended[place] = self._result(place, None, frame)
        return [self.ended[place] for place in range(len(replicas))]

    def _measure(self, step: int) -> None:
        """Take in a step: tensors, one value a structure; those of stopped ones are no longer looked at."""
        kinetic = self.replicas.sum((0.5 * self.replicas.mass * self.velocity.square()).sum(dim=1))
        total = cast(float, self.replicas.energy + kinetic)
        self.statistics.add(step, total, cast(float, kinetic))

    def _result(self, place: int, reason: str | None, frame: Atoms) -> tuple:
        """Give frame, reason, mean temperature and potential energy, drift and fluctuation up to now."""
        own, atoms = self.statistics.of(place), self.replicas.sizes[place]
        kinetic = own.temperature
        temperature = 2 * kinetic / (self.freedom[place] * units.kB)
        drift, fluctuation = own.drift(self.timestep, atoms), own.fluctuation(atoms)
        return frame, reason, temperature, own.energy - kinetic, drift, fluctuation

    def _breaches(self, moved: Tensor) -> dict[int, str]:
        """Say which of the moving structures cannot be where they are, and why."""
        replicas = self.replicas
        exploded = ~(
            replicas.forces.isfinite().all(dim=1) & (moved.square().sum(dim=1) < MAX_DISPLACEMENT**2)
        )
        found = self.limits.breaches(replicas.data, replicas.forces)
        for place in replicas.batch[exploded].unique().tolist():
            found[place] = f"it exploded: forces are not finite, or an atom moved {MAX_DISPLACEMENT:g} Å"
        return {place: reason for place, reason in found.items() if place not in self.ended}

    def _end(
        self, reasons: dict[int, str], step: int, velocity: Tensor, writer: TrajectoryFile, interval: int
    ) -> None:
        """Stop structures at the step before, where they have been put back."""
        frames = self._frames(step - 1, list(reasons), velocity)
        for (place, reason), frame in zip(reasons.items(), frames, strict=True):
            self.ended[place] = self._result(place, f"at step {step} {reason}", frame)
            if writer.path is not None and (step - 1) % interval != 0:
                writer.write(frame)
        self.moving = torch.where(self.replicas.atoms_of(reasons), 0.0, self.moving)
        self.velocity = self.velocity * self.moving

    def _bathe(self, friction: float) -> None:
        keep = float(np.exp(-friction * self.timestep))
        if not self._noise:
            # For each structure by itself, so that it has the same noise in any company.
            drawn = [
                rng.standard_normal((_STEPS_OF_NOISE, n, 3))
                for rng, n in zip(self.rng, self.replicas.sizes, strict=True)
            ]
            self._noise = list(torch.from_numpy(np.concatenate(drawn, axis=1)).to(self.velocity.device))
        width = (units.kB * self.temperature * (1 - keep**2) / self.replicas.mass).sqrt()
        self.velocity = keep * self.velocity + width * self.moving * self._noise.pop()

    def _frames(self, step: int, places: list[int], velocity: Tensor) -> list[Atoms]:
        frames, velocities = self.replicas.frames(places), self.replicas.split(velocity)
        for frame, place in zip(frames, places, strict=True):
            frame.set_velocities(velocities[place].numpy())
            frame.info |= {"system": self.replicas.numbers[place], "step": step}
        return frames

    def _write(self, step: int, writer: TrajectoryFile) -> None:
        if writer.path is not None:
            places = [place for place in range(len(self.replicas)) if place not in self.ended]
            for frame in self._frames(step, places, self.velocity):
                writer.write(frame)
