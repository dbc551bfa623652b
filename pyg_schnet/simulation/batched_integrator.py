"""Integration of the equations of motion of several structures, on the device of their potential."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.batched_system import BatchedSystem
from pyg_schnet.simulation.limits import MAX_DISPLACEMENT, BatchedLimits
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.simulation.velocities import degrees_of_freedom, draw_momenta

_STEPS_OF_NOISE = 64  # drawn at once
# Steps on an accelerator that are checked together. The host waits some tens of µs for a check, and repeats
# the steps if a list is incomplete for one of them, which happens every hundred steps or so.
STEPS_PER_CHECK = 16


class StructureResult(NamedTuple):
    """Result of one structure, see :class:`~pyg_schnet.simulation.BatchedDynamics`."""

    atoms: Atoms
    stopped: str | None
    temperature: float
    potential_energy: float
    drift: float | None
    fluctuation: float | None


class _State(NamedTuple):
    """What a window of steps changes, as it was before."""

    pos: Tensor
    velocity: Tensor
    energy: Tensor
    forces: Tensor
    noise: int


class BatchedIntegrator:
    """Velocity Verlet or BAOAB of a group of structures.

    On CPUs, each step is checked. On accelerators, the host launches several steps, and reads flags and
    energies of all of them at once. Where a limit may have been exceeded or a list may be incomplete, these
    steps are repeated and checked one by one; the results are those of checking each step.

    Args:
        potential: Potential in evaluation mode.
        structures: Initial structures.
        numbers: Index of each among all structures.
        limits: Limits that stop structures.
        temperature: Temperature in K.
        timestep: Time step in fs.
        friction: Friction of the bath in 1/fs; ``None`` for none.
        seed: Seed of velocities and bath.

    Attributes:
        repeated: Number of steps that were repeated.

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
        mass = self.system.mass
        momenta = np.concatenate([atoms.get_momenta() for atoms in moving])
        self.velocity = torch.from_numpy(momenta).to(self.system.pos.device) / mass
        self._kick = 0.5 * timestep * units.fs / mass  # (atoms, 1); 0 for stopped structures
        self._half_mass = 0.5 * mass
        self._keep = 1.0 if friction is None else float(np.exp(-friction * timestep))
        self._width = (units.kB * temperature * (1 - self._keep**2) / mass).sqrt()  # of the noise, as _kick
        self.results: dict[int, StructureResult] = {}  # by index
        self.statistics, self.repeated = Statistics(), 0
        self._noise, self._noise_left = torch.empty(0), 0
        self._before_noise = [rng.bit_generator.state for rng in self.rng]  # from which it is drawn again
        self._searches = 0
        for index, reason in self._violations(0 * self.system.pos).items():
            raise ValueError(
                f"structure {numbers[index]} must be within the training domain of the potential, but "
                f"{reason}; relax it, train on such structures, or change `closest` or `max_force`"
            )

    def run(
        self,
        steps: int,
        file: TrajectoryFile,
        interval: int,
        first: int = 0,
        on_frames: Callable[[int], object] | None = None,
    ) -> list[StructureResult]:
        """Integrate a number of steps and write a frame every ``interval``.

        Args:
            steps: Number of the last step.
            file: Trajectory.
            interval: Number of steps between two frames.
            first: Number of the present step, whose frame is written.
            on_frames: Called with the number of each step whose frames were written.
        """
        if first == 0:
            self._measure(0)
            self._write(0, file)
        step = first
        while step < steps and len(self.results) < len(self.system):
            ahead = self._steps_ahead(step, steps, interval)
            if ahead == 1 or not self._advance(step, ahead):
                for each in range(step + 1, step + ahead + 1):
                    self._step(each, file, interval)
                    if len(self.results) == len(self.system):
                        break
            step += ahead
            if step % interval == 0 and len(self.results) < len(self.system):
                self._write(step, file)
                if on_frames is not None:
                    on_frames(step)
        left = self._moving_structures()
        for index, frame in zip(left, self._frames(steps, left, self.velocity), strict=True):
            self.results[index] = self._result(index, None, frame)
        return [self.results[index] for index in range(len(self.system))]

    def _steps_ahead(self, step: int, steps: int, interval: int) -> int:
        """Return the number of steps until the next check; also draw their noise."""
        if self.friction is not None and self._noise_left == 0:
            self._draw_noise()
        if self.system.pairs is None:
            return 1
        ahead = min(STEPS_PER_CHECK, steps - step, interval - step % interval)
        return ahead if self.friction is None else min(ahead, self._noise_left)

    def _draw_noise(self) -> None:
        """Draw the noise of some steps for each structure, so that it does not depend on the others."""
        self._before_noise = [rng.bit_generator.state for rng in self.rng]
        drawn = [
            rng.standard_normal((_STEPS_OF_NOISE, n, 3))
            for rng, n in zip(self.rng, self.system.sizes, strict=True)
        ]
        self._noise = torch.from_numpy(np.concatenate(drawn, axis=1)).to(self.velocity.device)
        self._noise_left = _STEPS_OF_NOISE

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what the next steps depend on: numbers, and arrays on the CPU; stopped structures aside."""
        arrays = {"pos": self.system.pos, "velocity": self.velocity}
        statistics = vars(self.statistics)
        arrays |= {name: value for name, value in statistics.items() if isinstance(value, Tensor)}
        numbers = {name: value for name, value in statistics.items() if not isinstance(value, Tensor)}
        noise = {"generators": self._before_noise, "noise_left": self._noise_left}
        return {"statistics": numbers, **noise}, {name: value.cpu().clone() for name, value in arrays.items()}

    def restore(
        self, numbers: Mapping[str, Any], arrays: Mapping[str, Tensor], stopped: Sequence[StructureResult]
    ) -> None:
        """Set the state that :meth:`state` returned.

        Args:
            numbers: Its numbers.
            arrays: Its arrays.
            stopped: Results of the structures that were stopped.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is not the state of such a group.
        """
        self.system.pos.copy_(arrays["pos"])
        self.velocity.copy_(arrays["velocity"])
        values = dict(numbers["statistics"])
        values |= {name: arrays[name] for name in vars(self.statistics) if name in arrays}
        self.statistics = Statistics(**values)
        for rng, state in zip(self.rng, numbers["generators"], strict=True):
            rng.bit_generator.state = state
        self._before_noise, self._noise_left = list(numbers["generators"]), 0
        if left := int(numbers["noise_left"]):
            self._draw_noise()
            self._noise_left = left
        indices = [self.system.numbers.index(result.atoms.info["system"]) for result in stopped]
        self.results = dict(zip(indices, stopped, strict=True))
        if self.results:
            self._hold(self.results)
        self.system.evaluate()

    def _advance(self, step: int, ahead: int) -> bool:
        """Launch several steps, then check them; reset them and return false if each must be checked."""
        system, pairs = self.system, self.system.pairs
        assert pairs is not None
        before = _State(
            system.pos.clone(), self.velocity.clone(), system.energy, system.forces, self._noise_left
        )
        rows = []
        for _ in range(ahead):
            displacement = self._displacement()
            system.pos.add_(displacement)
            system.evaluate_listed()
            self.velocity += self._kick * system.forces
            moved = system.pos - pairs.reference.pos
            flags = self.limits.are_kept(system.pos, system.forces, displacement, moved, pairs.margin)
            rows.append(torch.cat([*self._energies(), *(flag[None] for flag in flags)]))
        seen, structures = torch.stack(rows).cpu(), len(system)
        if bool(seen[:, 2 * structures :].all()):
            for number, row in enumerate(seen, step + 1):
                self._add(number, *row[: 2 * structures].view(2, structures))
            return True
        self.repeated += ahead
        system.pos.copy_(before.pos)
        self.velocity, system.energy, system.forces = before.velocity, before.energy, before.forces
        self._noise_left = before.noise
        return False

    def _step(self, step: int, file: TrajectoryFile, interval: int) -> None:
        """Take a step, and stop the structures that are beyond the limits after it."""
        system, before = self.system, self.velocity.clone()
        displacement = self._displacement()
        if reasons := system.move(displacement, partial(self._violations, displacement)):
            self._stop(reasons, step, before, file, interval)
            if len(self.results) == len(system):
                return
        self.velocity += self._kick * system.forces
        self._measure(step)

    def _displacement(self) -> Tensor:
        """Take the first half of a step of the velocities; return the displacement in Å, ``(atoms, 3)``."""
        dt = self.timestep * units.fs
        self.velocity += self._kick * self.system.forces
        if self.friction is None:
            return dt * self.velocity
        displacement = 0.5 * dt * self.velocity
        self._noise_left -= 1
        self.velocity = self._keep * self.velocity + self._width * self._noise[self._noise_left]
        return displacement.add_(0.5 * dt * self.velocity)

    def _moving_structures(self) -> list[int]:
        return [index for index in range(len(self.system)) if index not in self.results]

    def _energies(self) -> tuple[Tensor, Tensor]:
        """Compute total and kinetic energies in eV, ``(structures,)``; meaningless for stopped structures."""
        kinetic = self.system.sum((self._half_mass * self.velocity.square()).sum(dim=1))
        return self.system.energy + kinetic, kinetic

    def _measure(self, step: int) -> None:
        """Add the present energies to the statistics."""
        self._add(step, *(values.cpu() for values in self._energies()))

    def _add(self, step: int, total: Tensor, kinetic: Tensor) -> None:
        """Add energies to the statistics, which hold kinetic energies instead of temperatures."""
        self.statistics.add(step, cast(float, total), cast(float, kinetic))

    def _result(self, index: int, reason: str | None, frame: Atoms) -> StructureResult:
        """Return the result of a structure up to now."""
        own, atoms = self.statistics.of_structure(index), self.system.sizes[index]
        kinetic = own.temperature
        temperature = 2 * kinetic / (self.freedom[index] * units.kB)
        drift, fluctuation = own.drift(self.timestep, atoms), own.fluctuation(atoms)
        return StructureResult(frame, reason, temperature, own.energy - kinetic, drift, fluctuation)

    def _violations(self, displacement: Tensor) -> dict[int, str]:
        """Return which of the moving structures exploded or are beyond the limits, and the reasons."""
        system = self.system
        is_near = displacement.square().sum(dim=1) < MAX_DISPLACEMENT**2
        exploded = ~(system.forces.isfinite().all(dim=1) & is_near)
        if system.pairs is not None and system.pairs.searches != self._searches:
            self.limits.discard_list()
            self._searches = system.pairs.searches
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
        self._hold(reasons)

    def _hold(self, indices: Iterable[int]) -> None:
        """Let structures rest from now on."""
        stopped = self.system.atom_mask(indices)
        self._kick = torch.where(stopped, 0.0, self._kick)
        self._width = torch.where(stopped, 0.0, self._width)
        self.velocity = torch.where(stopped, 0.0, self.velocity)

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
