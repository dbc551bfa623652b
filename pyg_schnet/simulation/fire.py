"""FIRE, the fast inertial relaxation engine, of many structures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_schnet.simulation.batched_system import BatchedSystem
from pyg_schnet.simulation.relaxation import Relaxation, outside, why_stop

# FIRE's parameters, ASE's.
_START, _LONGEST, _FARTHEST = 0.1, 1.0, 0.2
_PATIENCE, _FASTER, _SLOWER, _MIXING, _LESS = 5, 1.1, 0.5, 0.1, 0.99


class Fire:
    """FIRE's state of each structure of a batch, which goes on from that of an earlier one.

    Args:
        replicas: The structures.
        earlier: The batch from which the first of them come.
        kept: Their places there.

    Source:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), as in ASE.
    """

    def __init__(self, replicas: BatchedSystem, earlier: Fire | None = None, kept: Sequence[int] = ()):
        self.replicas = replicas
        one = replicas.energy.new_ones(len(replicas))
        self.velocity = torch.zeros_like(replicas.pos)
        self.time, self.mixing, self.downhill = _START * one, _MIXING * one, 0 * one
        self.start = replicas.energy.clone()
        self.steps = torch.zeros_like(replicas.batch[: len(replicas)])
        self.is_moving = torch.ones_like(self.steps, dtype=torch.bool)
        self.stopped: dict[int, str] = {}  # by place
        self.free = self._free_atoms()
        if earlier is not None and kept:
            place = torch.tensor(kept, device=one.device)
            for name in ("time", "mixing", "downhill", "start", "steps"):
                getattr(self, name)[: len(kept)] = getattr(earlier, name)[place]
            parts = earlier.velocity.split(earlier.replicas.sizes)
            moving = torch.cat([parts[k] for k in kept])
            self.velocity[: len(moving)] = moving

    def active(self) -> list[int]:
        """Give the places of those that are not done."""
        return self.is_moving.nonzero().flatten().tolist()

    def part_done(self) -> float:
        """Give the part of the structures that are done."""
        return 1 - self.is_moving.double().mean().item()

    def finish(self, fmax: float, steps: int) -> dict[int, Relaxation]:
        """Give the results of those that are done now, by number."""
        longest = self._longest_force()
        for place, reason in self._unsound(longest).items():
            self.stopped.setdefault(place, reason)
        converged = longest < fmax
        done = self.is_moving & (converged | (self.steps >= steps))
        done[list(self.stopped)] = self.is_moving[list(self.stopped)]
        places = done.nonzero().flatten().tolist()
        if not places:
            return {}
        self.is_moving = self.is_moving & ~done
        frames = self.replicas.frames(places)
        found = {}
        for place, frame in zip(places, frames, strict=True):
            if place not in self.stopped and (reason := outside(self.replicas.potential.domain, frame)):
                self.stopped[place] = reason
            found[self.replicas.numbers[place]] = Relaxation(
                atoms=frame,
                converged=bool(converged[place]) and place not in self.stopped,
                steps=int(self.steps[place]),
                fmax=float(longest[place]),
                energy=float(frame.get_potential_energy()),
                trajectory=None,
                stopped=self.stopped.get(place),
            )
        return found

    def step(self) -> None:
        """Move the structures that are not done once."""
        replicas, forces = self.replicas, self._forces()
        goes_on = self.steps > 0
        power = self._dot(forces, self.velocity)
        forward = power > 0
        speed, pull = self._dot(self.velocity, self.velocity).sqrt(), self._dot(forces, forces).sqrt()
        turned = replicas.spread(self.mixing * speed / pull.clamp(min=1e-300)) * forces
        mixed = (1 - replicas.spread(self.mixing)) * self.velocity + turned
        self.velocity = torch.where(replicas.spread(forward), mixed, 0.0)  # zero at the first step
        faster = forward & (self.downhill > _PATIENCE)
        time = torch.where(faster, (self.time * _FASTER).clamp(max=_LONGEST), self.time)
        self.time = torch.where(forward, time, torch.where(goes_on, self.time * _SLOWER, self.time))
        mixing = torch.where(faster, self.mixing * _LESS, self.mixing)
        self.mixing = torch.where(forward, mixing, _MIXING)
        self.downhill = torch.where(forward, self.downhill + 1, 0.0)
        self.velocity = self.velocity + replicas.spread(self.time) * forces
        move = replicas.spread(self.time) * self.velocity
        length = self._dot(move, move).sqrt()
        scale = (_FARTHEST / length.clamp(min=1e-300)).clamp(max=1.0)
        move = torch.where(replicas.spread(self.is_moving), move * replicas.spread(scale), 0.0)
        self.stopped |= replicas.move(move, lambda: self._unsound(self._longest_force()))
        self.steps = self.steps + (self.is_moving & ~replicas.places(self.stopped)).long()

    def _unsound(self, longest: Tensor) -> dict[int, str]:
        """Say which structures have energies or forces from which nothing good can come, and why."""
        depth = (self.start - self.replicas.energy) / self.replicas.energy.new_tensor(self.replicas.sizes)
        return why_stop(self.replicas.energy, longest, depth, self.is_moving)

    def _forces(self) -> Tensor:
        """Give the forces on atoms that are free to move."""
        return torch.where(self.free, self.replicas.forces, 0.0)

    def _free_atoms(self) -> Tensor:
        parts = []
        for atoms in self.replicas.structures:
            free = torch.ones(len(atoms), 1, dtype=torch.bool)
            for constraint in atoms.constraints:
                free[torch.from_numpy(constraint.get_indices())] = False  # may count from the end
            parts.append(free)
        return torch.cat(parts).to(self.replicas.batch.device)

    def _longest_force(self) -> Tensor:
        """Give the longest force on a free atom of each structure, ``(structures,)``."""
        length, batch = self._forces().norm(dim=1), self.replicas.batch
        return length.new_zeros(len(self.replicas)).scatter_reduce(0, batch, length, "amax")

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.replicas.sum((a * b).sum(dim=1))
