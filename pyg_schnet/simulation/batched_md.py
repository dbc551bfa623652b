"""Molecular dynamics of several structures, one call of the potential per step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.batched_system import (
    BatchedSystem,
    check_batched,
    check_sequence,
    group_by_pairs,
)
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
    check_settings(thermostat, interval, temperature, timestep, duration, friction)
    check_sequence(structures)
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    nve = thermostat == "nve"
    own = evaluation_copy(potential, device)
    compile_copy(own)
    BatchedLimits(own.domain, closest, max_force)  # raises before the work
    for number, atoms in enumerate(structures):
        check_batched(own, atoms, number)
    for number, atoms in enumerate(structures):
        _check_start(own, atoms, number, closest, drift=not nve)
    steps, results = number_of_steps(duration, timestep), []
    with TrajectoryFile(trajectory, overwrite) as file:
        for group in group_by_pairs(own, structures, max_pairs):
            limits = BatchedLimits(own.domain, closest, max_force)
            integrator = _BatchedIntegrator(
                *(own, [structures[k] for k in group], group, limits),
                *(temperature, timestep, None if nve else friction, seed),
            )
            results += integrator.run(steps, file, interval)
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
    )


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


class _Result(NamedTuple):
    """Result of one structure, see :class:`BatchedDynamics`."""

    atoms: Atoms
    stopped: str | None
    temperature: float
    potential_energy: float
    drift: float | None
    fluctuation: float | None


class _BatchedIntegrator:
    """Velocity Verlet or BAOAB of a group of structures.

    Args:
        potential: Potential in evaluation mode.
        structures: Initial structures.
        numbers: Index of each among all structures.
        limits: Limits that stop structures.
        temperature: Temperature in K.
        timestep: Time step in fs.
        friction: Friction of the bath in 1/fs; ``None`` for none.
        seed: Seed of velocities and bath.

    Raises:
        ValueError: If a structure is beyond the limits.
    """

    def __init__(
        self,
        potential: Potential | Ensemble,
        structures: list[Atoms],
        numbers: list[int],
        limits: BatchedLimits,
        temperature: float,
        timestep: float,
        friction: float | None,
        seed: int,
    ):
        self.friction, self.limits = friction, limits
        self.timestep, self.temperature = timestep, temperature
        self.rng = [np.random.default_rng([seed, number]) for number in numbers]
        moving, self.freedom = [], []
        for atoms, rng in zip(structures, self.rng, strict=True):
            # The bath moves the center of mass, too.
            modes = {"rotation": bool(atoms.pbc.any()), "drift": friction is not None}
            moving.append(atoms.copy())
            draw_momenta(moving[-1], temperature, rng, **modes)
            self.freedom.append(
                degrees_of_freedom(atoms, **modes)
            )  # of the start: a linear molecule may bend
        self.system = BatchedSystem(potential, moving, numbers)
        momenta = np.concatenate([atoms.get_momenta() for atoms in moving])
        self.velocity = torch.from_numpy(momenta).to(self.system.pos.device) / self.system.mass
        self.is_moving = torch.ones_like(self.system.mass)  # (atoms, 1); 0 for stopped structures
        self.results: dict[int, _Result] = {}  # by index
        self.statistics = Statistics()
        self._noise: list[Tensor] = []
        for index, reason in self._violations(0 * self.system.pos).items():
            raise ValueError(
                f"structure {numbers[index]} must be within the training domain of the potential, but "
                f"{reason}; relax it, train on such structures, or change `closest` or `max_force`"
            )

    def run(self, steps: int, file: TrajectoryFile, interval: int) -> list[_Result]:
        """Integrate a number of steps and write a frame every ``interval``."""
        system, dt = self.system, self.timestep * units.fs
        self._measure(0)
        self._write(0, file)
        for step in range(1, steps + 1):
            before, kick = self.velocity.clone(), 0.5 * dt / system.mass * self.is_moving
            self.velocity += kick * system.forces
            if self.friction is None:
                displacement = dt * self.velocity
            else:
                displacement = 0.5 * dt * self.velocity
                self._apply_bath(self.friction)
                displacement += 0.5 * dt * self.velocity
            if reasons := system.move(displacement, partial(self._violations, displacement)):
                self._stop(reasons, step, before, file, interval)
                if len(self.results) == len(system):
                    break
            self.velocity += kick * self.is_moving * system.forces
            self._measure(step)
            if step % interval == 0:
                self._write(step, file)
        left = self._moving_structures()
        for index, frame in zip(left, self._frames(steps, left, self.velocity), strict=True):
            self.results[index] = self._result(index, None, frame)
        return [self.results[index] for index in range(len(system))]

    def _moving_structures(self) -> list[int]:
        return [index for index in range(len(self.system)) if index not in self.results]

    def _measure(self, step: int) -> None:
        """Add a step to the statistics, which hold kinetic energies instead of temperatures.

        Those of stopped structures are not used any more.
        """
        kinetic = self.system.sum((0.5 * self.system.mass * self.velocity.square()).sum(dim=1))
        total = cast(float, self.system.energy + kinetic)
        self.statistics.add(step, total, cast(float, kinetic))

    def _result(self, index: int, reason: str | None, frame: Atoms) -> _Result:
        """Return the result of a structure up to now."""
        own, atoms = self.statistics.of_structure(index), self.system.sizes[index]
        kinetic = own.temperature
        temperature = 2 * kinetic / (self.freedom[index] * units.kB)
        drift, fluctuation = own.drift(self.timestep, atoms), own.fluctuation(atoms)
        return _Result(frame, reason, temperature, own.energy - kinetic, drift, fluctuation)

    def _violations(self, displacement: Tensor) -> dict[int, str]:
        """Return which of the moving structures exploded or are beyond the limits, and the reasons."""
        system = self.system
        is_near = displacement.square().sum(dim=1) < MAX_DISPLACEMENT**2
        exploded = ~(system.forces.isfinite().all(dim=1) & is_near)
        found = self.limits.violations(system.data, system.forces)
        for index in system.batch[exploded].unique().tolist():
            found[index] = f"it exploded: forces are not finite, or an atom moved {MAX_DISPLACEMENT:g} Å"
        return {index: reason for index, reason in found.items() if index not in self.results}

    def _stop(
        self, reasons: dict[int, str], step: int, velocity: Tensor, file: TrajectoryFile, interval: int
    ) -> None:
        """Stop structures at the step before, to which their positions were reset."""
        frames = self._frames(step - 1, reasons, velocity)
        for (index, reason), frame in zip(reasons.items(), frames, strict=True):
            self.results[index] = self._result(index, f"at step {step} {reason}", frame)
            if (step - 1) % interval != 0:
                file.write(frame)
        self.is_moving = torch.where(self.system.atom_mask(reasons), 0.0, self.is_moving)
        self.velocity = self.velocity * self.is_moving

    def _apply_bath(self, friction: float) -> None:
        """Apply friction and noise to the velocities for one step."""
        keep = float(np.exp(-friction * self.timestep))
        if not self._noise:
            # Drawn for each structure, whose noise thus does not depend on the others.
            drawn = [
                rng.standard_normal((_STEPS_OF_NOISE, n, 3))
                for rng, n in zip(self.rng, self.system.sizes, strict=True)
            ]
            self._noise = list(torch.from_numpy(np.concatenate(drawn, axis=1)).to(self.velocity.device))
        width = (units.kB * self.temperature * (1 - keep**2) / self.system.mass).sqrt()
        self.velocity = keep * self.velocity + width * self.is_moving * self._noise.pop()

    def _frames(self, step: int, indices: Iterable[int], velocity: Tensor) -> list[Atoms]:
        """Return frames of some structures with velocities and numbers."""
        indices = list(indices)
        frames, velocities = self.system.frames(indices), self.system.split(velocity)
        for frame, index in zip(frames, indices, strict=True):
            frame.set_velocities(velocities[index].numpy())
            frame.info |= {"system": self.system.numbers[index], "step": step}
        return frames

    def _write(self, step: int, file: TrajectoryFile) -> None:
        if file.path is not None:
            for frame in self._frames(step, self._moving_structures(), self.velocity):
                file.write(frame)
