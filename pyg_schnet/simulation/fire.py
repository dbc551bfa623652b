"""FIRE, the fast inertial relaxation engine, of several structures at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_schnet.simulation.batched_system import BatchedSystem
from pyg_schnet.simulation.relaxation import Relaxation, invalid_minimum, invalid_results

# FIRE's parameters, ASE's.
_TIMESTEP, _MAX_TIMESTEP, _MAX_STEP = 0.1, 1.0, 0.2  # the last in Å
_DELAY, _FASTER, _SLOWER, _MIXING, _LESS_MIXING = 5, 1.1, 0.5, 0.1, 0.99


class Fire:
    """State of FIRE of each structure of a batch, continued from that of an earlier batch.

    Args:
        system: The structures.
        earlier: The batch from which the first of them come.
        kept: Their indices there.

    Source:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), as in ASE.
    """

    def __init__(self, system: BatchedSystem, earlier: Fire | None = None, kept: Sequence[int] = ()):
        self.system = system
        one = system.energy.new_ones(len(system))
        self.velocity = torch.zeros_like(system.pos)
        self.timestep, self.mixing, self.downhill = _TIMESTEP * one, _MIXING * one, 0 * one
        self.initial_energy = system.energy.clone()
        self.steps = torch.zeros_like(system.batch[: len(system)])
        self.is_moving = torch.ones_like(self.steps, dtype=torch.bool)
        self.stopped: dict[int, str] = {}  # reasons by index
        self.is_free = self._find_free_atoms()
        if earlier is not None and kept:
            indices = torch.tensor(kept, device=one.device)
            for name in ("timestep", "mixing", "downhill", "initial_energy", "steps"):
                getattr(self, name)[: len(kept)] = getattr(earlier, name)[indices]
            velocities = earlier.velocity.split(earlier.system.sizes)
            velocity = torch.cat([velocities[k] for k in kept])
            self.velocity[: len(velocity)] = velocity

    def unfinished(self) -> list[int]:
        """Return the indices of the structures that are not finished."""
        return self.is_moving.nonzero().flatten().tolist()

    def fraction_finished(self) -> float:
        """Return the fraction of the structures that are finished."""
        return 1 - self.is_moving.double().mean().item()

    def finish(self, fmax: float, steps: int) -> dict[int, Relaxation]:
        """Finish structures that converged, stopped or took all steps, and return their results by number.

        Args:
            fmax: Longest force in eV/Å of a converged structure.
            steps: Largest number of steps.
        """
        longest = self._longest_force()
        for index, reason in self._invalid(longest).items():
            self.stopped.setdefault(index, reason)
        converged = longest < fmax
        done = self.is_moving & (converged | (self.steps >= steps))
        done[list(self.stopped)] = self.is_moving[list(self.stopped)]
        indices = done.nonzero().flatten().tolist()
        if not indices:
            return {}
        self.is_moving = self.is_moving & ~done
        found = {}
        for k, frame in zip(indices, self.system.frames(indices), strict=True):
            if k not in self.stopped and (reason := invalid_minimum(self.system.potential.domain, frame)):
                self.stopped[k] = reason
            found[self.system.numbers[k]] = Relaxation(
                atoms=frame,
                converged=bool(converged[k]) and k not in self.stopped,
                steps=int(self.steps[k]),
                fmax=float(longest[k]),
                energy=float(frame.get_potential_energy()),
                trajectory=None,
                stopped=self.stopped.get(k),
            )
        return found

    def step(self) -> None:
        """Move the structures that are not finished by one step."""
        system, forces = self.system, self._forces()
        power = self._dot(forces, self.velocity)
        is_downhill = power > 0
        speed, force = self._dot(self.velocity, self.velocity).sqrt(), self._dot(forces, forces).sqrt()
        turned = system.gather(self.mixing * speed / force.clamp(min=1e-300)) * forces
        mixed = (1 - system.gather(self.mixing)) * self.velocity + turned
        self.velocity = torch.where(system.gather(is_downhill), mixed, 0.0)  # zero at the first step
        is_faster = is_downhill & (self.downhill > _DELAY)
        faster = torch.where(is_faster, (self.timestep * _FASTER).clamp(max=_MAX_TIMESTEP), self.timestep)
        slower = torch.where(self.steps > 0, self.timestep * _SLOWER, self.timestep)
        self.timestep = torch.where(is_downhill, faster, slower)
        mixing = torch.where(is_faster, self.mixing * _LESS_MIXING, self.mixing)
        self.mixing = torch.where(is_downhill, mixing, _MIXING)
        self.downhill = torch.where(is_downhill, self.downhill + 1, 0.0)
        self.velocity = self.velocity + system.gather(self.timestep) * forces
        move = system.gather(self.timestep) * self.velocity
        length = self._dot(move, move).sqrt()
        scale = (_MAX_STEP / length.clamp(min=1e-300)).clamp(max=1.0)
        move = torch.where(system.gather(self.is_moving), move * system.gather(scale), 0.0)
        self.stopped |= system.move(move, lambda: self._invalid(self._longest_force()))
        self.steps = self.steps + (self.is_moving & ~system.structure_mask(self.stopped)).long()

    def _invalid(self, longest: Tensor) -> dict[int, str]:
        """Return which structures have energies or forces that end their relaxation, and the reasons."""
        atoms = self.system.energy.new_tensor(self.system.sizes)
        depth = (self.initial_energy - self.system.energy) / atoms
        return invalid_results(self.system.energy, longest, depth, self.is_moving)

    def _forces(self) -> Tensor:
        """Return the forces, zero on fixed atoms."""
        return torch.where(self.is_free, self.system.forces, 0.0)

    def _find_free_atoms(self) -> Tensor:
        masks = []
        for atoms in self.system.structures:
            free = torch.ones(len(atoms), 1, dtype=torch.bool)
            for constraint in atoms.constraints:
                free[torch.from_numpy(constraint.get_indices())] = False  # may count from the end
            masks.append(free)
        return torch.cat(masks).to(self.system.batch.device)

    def _longest_force(self) -> Tensor:
        """Compute the longest force on a free atom of each structure, ``(structures,)``."""
        length, batch = self._forces().norm(dim=1), self.system.batch
        return length.new_zeros(len(self.system)).scatter_reduce(0, batch, length, "amax")

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the scalar product of each structure, ``(structures,)``."""
        return self.system.sum((a * b).sum(dim=1))
