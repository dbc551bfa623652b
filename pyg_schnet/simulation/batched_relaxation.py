"""Relaxation of many structures in one call of the model a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms
from ase.constraints import FixAtoms
from torch import Tensor

from pyg_schnet.ensemble import Ensemble
from pyg_schnet.potential import Potential
from pyg_schnet.simulation.calculator import Model, compile_for_evaluation, cutoff_of, for_evaluation
from pyg_schnet.simulation.relaxation import Relaxation, check_goal, why_stop
from pyg_schnet.simulation.replicas import Replicas, count_pairs
from pyg_schnet.simulation.structures import StructureError, check_structure

# FIRE's parameters, ASE's.
_START, _LONGEST, _FARTHEST = 0.1, 1.0, 0.2
_PATIENCE, _FASTER, _SLOWER, _MIXING, _LESS = 5, 1.1, 0.5, 0.1, 0.99

_DONE_TO_REFILL_AT = 0.25  # of a batch: making another one takes as long as a step


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

    A structure whose energy or forces stop being finite, whose energy falls without end, or whose atoms the
    potential refuses on the way stops there, not converged; the others go on.

    Args:
        potential: A potential or an ensemble, which is copied and compiled, or paths of checkpoints.
        structures: Of any sizes, periodic or not, with atoms fixed or not; not modified.
        fmax: The longest force on an atom that is small enough, in eV/Å.
        steps: The most to take. Running out of them is no error: see ``converged``.
        max_pairs: Neighbor pairs computed at once, which bounds the memory.
        device: Where to compute; by default where the potential is, the CPU for a path.

    Returns:
        Results in the order of the structures.

    Raises:
        StructureError: If the potential refuses a structure at its start: a ``ValueError``.
        TypeError: If ``structures`` is not a list of structures.
        ValueError: If an argument is out of range, or ``structures`` is empty.

    Source:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), as in ASE.
    """
    options = {"fmax": fmax, "steps": steps, "max_pairs": max_pairs, "device": device}
    found = list(relax_stream(potential, structures, **options))
    if not found:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    return found


def relax_stream(
    potential: Model,
    structures: Iterable[Atoms],
    *,
    fmax: float = 0.01,
    steps: int = 500,
    max_pairs: int = 200_000,
    device: str | torch.device | None = None,
    on_refused: Callable[[StructureError], None] | None = None,
) -> Iterator[Relaxation]:
    """Relax structures as :func:`relax_batched` does, as many as there are, and give each in its turn.

    Structures that are done leave the batch and the next ones take their places: a file larger than the
    memory may pass through.

    Args:
        potential: See :func:`relax_batched`.
        structures: For instance ``ase.io.iread(path)``.
        fmax: See :func:`relax_batched`.
        steps: See :func:`relax_batched`.
        max_pairs: See :func:`relax_batched`.
        device: See :func:`relax_batched`.
        on_refused: Called with what is wrong with a structure at its start, which then is left out; without
            it, this is raised.

    Returns:
        Results in the order of the structures.

    Raises:
        StructureError: While iterating, if the potential refuses a structure at its start.
        TypeError: If ``structures`` is one structure, or holds something else.
        ValueError: If an argument is out of range.
    """
    if isinstance(structures, Atoms):
        raise TypeError("`structures` must be a list of ase.Atoms, got one Atoms; use [atoms]")
    check_goal(fmax, steps)
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be at least 1, got {max_pairs}")
    own = for_evaluation(potential, device)
    compile_for_evaluation(own)
    return _in_order(_Queue(own, structures, max_pairs, on_refused), fmax, steps)


def _in_order(queue: _Queue, fmax: float, steps: int) -> Iterator[Relaxation]:
    """Relax what is in a queue; what is done early waits for its turn."""
    waiting: dict[int, Relaxation] = {}
    due, search = 0, None
    while search := queue.refill(search):
        while True:
            waiting |= search.finish(fmax, steps)
            while due in waiting or due in queue.refused:
                if due in waiting:
                    yield waiting.pop(due)
                due += 1
            if search.part_done() >= _DONE_TO_REFILL_AT:
                break
            search.step()


class _Queue:
    """Structures that wait for a place in the batch.

    Args:
        potential: In evaluation mode.
        structures: As many as there are.
        max_pairs: Neighbor pairs of a batch.
        on_refused: See :func:`relax_stream`.
    """

    def __init__(
        self,
        potential: Potential | Ensemble,
        structures: Iterable[Atoms],
        max_pairs: int,
        on_refused: Callable[[StructureError], None] | None,
    ):
        self.potential, self.max_pairs, self.on_refused = potential, max_pairs, on_refused
        self.refused: set[int] = set()
        self._structures = enumerate(structures)
        self._next: tuple[int, Atoms] | None = None  # what did not fit into the batch before
        self._pairs: dict[int, int] = {}
        self._cutoff = cutoff_of(potential)

    def refill(self, search: _Fire | None) -> _Fire | None:
        """Replace what is done by what waits; ``None`` when there is neither."""
        kept = [] if search is None else search.active()
        numbers = [] if search is None else [search.replicas.numbers[place] for place in kept]
        newcomers = self._take(sum(self._pairs[number] for number in numbers))
        self._pairs = {number: self._pairs[number] for number in [*numbers, *newcomers]}
        frames = [] if search is None else search.replicas.frames(kept)
        structures = dict(zip(numbers, frames, strict=True)) | newcomers
        while structures:
            try:
                replicas = Replicas(self.potential, list(structures.values()), list(structures))
            except StructureError as error:
                self._refuse(error)
                del structures[error.number]
            else:
                return _Fire(replicas) if search is None else _Fire(replicas, search, kept)
        return None

    def _take(self, pairs: int) -> dict[int, Atoms]:
        """Take structures until there are enough pairs, or at least one."""
        taken = {}
        while not pairs or pairs < self.max_pairs:
            self._next = self._next or next(self._structures, None)
            if self._next is None:
                break
            number, atoms = self._next
            try:
                check_structure(atoms, number)
                _check_constraints(atoms, number)
                own = max(1, self._count(atoms, number))
            except StructureError as error:
                self._next = None
                self._refuse(error)
                continue
            if pairs and pairs + own > self.max_pairs:
                break
            self._next = None
            pairs += own
            self._pairs[number], taken[number] = own, atoms
        return taken

    def _count(self, atoms: Atoms, number: int) -> int:
        try:
            return count_pairs(atoms, self._cutoff)
        except ValueError as error:
            raise StructureError(number, str(error)) from error

    def _refuse(self, error: StructureError) -> None:
        if self.on_refused is None:
            raise error
        self.on_refused(error)
        self.refused.add(error.number)


class _Fire:
    """FIRE's state of each structure of a batch, which goes on from that of an earlier one.

    Args:
        replicas: The structures.
        earlier: The batch from which the first of them come.
        kept: Their places there.
    """

    def __init__(self, replicas: Replicas, earlier: _Fire | None = None, kept: Sequence[int] = ()):
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
        self._move(move)
        self.steps = self.steps + (self.is_moving & ~self._places(self.stopped)).long()

    def _move(self, move: Tensor) -> None:
        """Move atoms, and back again in structures that cannot be there."""
        replicas = self.replicas
        before, energy, forces = replicas.pos.clone(), replicas.energy, replicas.forces
        replicas.pos.add_(move)
        refused: dict[int, str] = {}
        while True:
            try:
                replicas.evaluate()
                break
            except StructureError as error:
                place = replicas.numbers.index(error.number)
                if place in refused:  # where it was fine before
                    raise
                refused[place] = error.reason
                self._put_back(refused, before)
        self.stopped |= refused
        unsound = self._unsound(self._longest_force())
        if unsound:
            self.stopped |= unsound
            self._put_back(unsound, before)
            atoms = self._atoms(unsound)
            replicas.energy = torch.where(self._places(unsound), energy, replicas.energy)
            replicas.forces = torch.where(atoms, forces, replicas.forces)

    def _unsound(self, longest: Tensor) -> dict[int, str]:
        """Say which structures have energies or forces from which nothing good can come, and why."""
        depth = (self.start - self.replicas.energy) / self.replicas.energy.new_tensor(self.replicas.sizes)
        return why_stop(self.replicas.energy, longest, depth, self.is_moving)

    def _put_back(self, places: Iterable[int], before: Tensor) -> None:
        self.replicas.pos.copy_(torch.where(self._atoms(places), before, self.replicas.pos))

    def _places(self, places: Iterable[int]) -> Tensor:
        chosen = torch.zeros_like(self.is_moving)
        chosen[list(places)] = True
        return chosen

    def _atoms(self, places: Iterable[int]) -> Tensor:
        return self.replicas.spread(self._places(places))

    def _forces(self) -> Tensor:
        """Give the forces on atoms that are free to move."""
        return torch.where(self.free, self.replicas.forces, 0.0)

    def _free_atoms(self) -> Tensor:
        free = torch.ones(len(self.replicas.batch), 1, dtype=torch.bool)
        first = 0
        for atoms in self.replicas.structures:
            for constraint in atoms.constraints:
                free[first + torch.from_numpy(constraint.get_indices())] = False
            first += len(atoms)
        return free.to(self.replicas.batch.device)

    def _longest_force(self) -> Tensor:
        """Give the longest force on a free atom of each structure, ``(structures,)``."""
        length, batch = self._forces().norm(dim=1), self.replicas.batch
        return length.new_zeros(len(self.replicas)).scatter_reduce(0, batch, length, "amax")

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.replicas.sum((a * b).sum(dim=1))


def _check_constraints(atoms: Atoms, number: int) -> None:
    for constraint in atoms.constraints:
        if type(constraint) is not FixAtoms:
            raise StructureError(
                number, f"side by side only FixAtoms is a constraint, got {constraint}; relax it alone"
            )
