"""Relaxation of many structures in one call of the model a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms
from torch import Tensor

from pyg_schnet.simulation.calculator import Model, compile_for_evaluation, for_evaluation
from pyg_schnet.simulation.relaxation import Relaxation
from pyg_schnet.simulation.replicas import Replicas, by_size, check_structures

# FIRE's parameters, ASE's.
_START, _LONGEST, _FARTHEST = 0.1, 1.0, 0.2
_PATIENCE, _FASTER, _SLOWER, _MIXING, _LESS = 5, 1.1, 0.5, 0.1, 0.99


def relax_batched(
    potential: Model,
    structures: Sequence[Atoms],
    *,
    fmax: float = 0.01,
    steps: int = 500,
    max_pairs: int = 200_000,
    device: str | torch.device | None = None,
) -> list[Relaxation]:
    """Move the atoms of many structures downhill, each by FIRE as if it were alone; the cells stay.

    Structures that are done leave the batch.

    Args:
        potential: A potential or an ensemble, which is copied and compiled, or paths of checkpoints.
        structures: Of any sizes, periodic or not; without constraints, not modified.
        fmax: The longest force on an atom that is small enough, in eV/Å.
        steps: The most to take. Running out of them is no error: see ``converged``.
        max_pairs: Neighbor pairs computed at once, which bounds the memory.
        device: Where to compute; by default where the potential is, the CPU for a path.

    Returns:
        Results in the order of the structures.

    Raises:
        RuntimeError: If forces stop being finite.
        TypeError: If ``structures`` is not a list of structures.
        ValueError: If an argument is out of range, or the potential refuses a structure.

    Source:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), as in ASE.
    """
    if not fmax > 0:
        raise ValueError(f"`fmax` must be positive and in eV/Å, got {fmax}")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")
    check_structures(structures)
    own = for_evaluation(potential, device)
    compile_for_evaluation(own)
    found: dict[int, Relaxation] = {}
    for group in by_size(own, structures, max_pairs):
        search = _Fire(Replicas(own, [structures[number] for number in group], group))
        for step in range(steps + 1):
            longest = search.longest_force()
            if not bool(longest.isfinite().all()):
                raise RuntimeError(
                    f"forces must be finite, got others at step {step}; start from structures closer to "
                    "those of the training"
                )
            done = longest < fmax
            if step == steps:
                found |= search.results(torch.ones_like(done), done, longest, step)
                break
            if bool(done.any()):
                found |= search.results(done, done, longest, step)
                if bool(done.all()):
                    break
                search = search.without(done)
            search.step()
    return [found[number] for number in range(len(structures))]


class _Fire:
    """FIRE's state of each structure."""

    def __init__(self, replicas: Replicas):
        self.replicas = replicas
        one = replicas.energy.new_ones(len(replicas))
        self.velocity = torch.zeros_like(replicas.pos)
        self.time, self.mixing, self.downhill = _START * one, _MIXING * one, 0 * one
        self.is_first = True

    def longest_force(self) -> Tensor:
        """Give the longest force on an atom of each structure, ``(structures,)``."""
        length, batch = self.replicas.forces.norm(dim=1), self.replicas.batch
        return length.new_zeros(len(self.replicas)).scatter_reduce(0, batch, length, "amax")

    def step(self) -> None:
        """Move all structures once."""
        replicas, forces = self.replicas, self.replicas.forces
        if not self.is_first:
            power = self._dot(forces, self.velocity)
            forward = power > 0
            speed, pull = self._dot(self.velocity, self.velocity).sqrt(), self._dot(forces, forces).sqrt()
            turned = replicas.spread(self.mixing * speed / pull.clamp(min=1e-300)) * forces
            mixed = (1 - replicas.spread(self.mixing)) * self.velocity + turned
            self.velocity = torch.where(replicas.spread(forward), mixed, 0.0)
            faster = forward & (self.downhill > _PATIENCE)
            time = torch.where(faster, (self.time * _FASTER).clamp(max=_LONGEST), self.time)
            self.time = torch.where(forward, time, self.time * _SLOWER)
            mixing = torch.where(faster, self.mixing * _LESS, self.mixing)
            self.mixing = torch.where(forward, mixing, _MIXING)
            self.downhill = torch.where(forward, self.downhill + 1, 0.0)
        self.is_first = False
        self.velocity = self.velocity + replicas.spread(self.time) * forces
        move = replicas.spread(self.time) * self.velocity
        length = self._dot(move, move).sqrt()
        replicas.pos.add_(move * replicas.spread((_FARTHEST / length.clamp(min=1e-300)).clamp(max=1.0)))
        replicas.evaluate()

    def without(self, done: Tensor) -> _Fire:
        """Go on with those that are not done."""
        kept = (~done).nonzero().flatten().tolist()
        other = _Fire(self.replicas.take(kept))
        other.velocity = self.velocity[~done[self.replicas.batch]]
        other.time, other.mixing, other.downhill = self.time[~done], self.mixing[~done], self.downhill[~done]
        other.is_first = self.is_first
        return other

    def results(self, which: Tensor, converged: Tensor, longest: Tensor, step: int) -> dict[int, Relaxation]:
        """Give the results of some structures, by their numbers."""
        rows = zip(
            self.replicas.numbers,
            self.replicas.frames(),
            which.tolist(),
            converged.tolist(),
            longest.tolist(),
            strict=True,
        )
        return {
            number: Relaxation(frame, done, step, force, float(frame.get_potential_energy()), None)
            for number, frame, wanted, done, force in rows
            if wanted
        }

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.replicas.sum((a * b).sum(dim=1))
