"""Relaxation of several structures, one call of the potential per step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from ase import Atoms
from ase.constraints import FixAtoms

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.intended_use import warn_of_motion, warn_of_other_molecules
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.batched_system import BatchedSystem, check_batched, check_sequence, count_pairs
from pyg_schnet.simulation.calculator import Model, compile_copy, evaluation_copy
from pyg_schnet.simulation.fire import Fire
from pyg_schnet.simulation.limits import outside_of_domain
from pyg_schnet.simulation.relaxation import Relaxation, check_goal
from pyg_schnet.simulation.structures import StructureError

_REFILL_FRACTION = 0.25  # finished of a batch; building another one takes as long as a step


def relax_batched(
    potential: Model,
    structures: Sequence[Atoms],
    *,
    fmax: float = 0.01,
    steps: int = 500,
    max_pairs: int = 200_000,
    device: str | torch.device | None = None,
) -> list[Relaxation]:
    """Minimize the energies of several structures by FIRE, each as if it were alone, at constant cells.

    A structure whose energy or forces are not finite, whose energy falls by 20 eV per atom, or whose
    positions the potential rejects stops there without converging; the others continue. Starts and minima
    outside the training domain are reported as by :func:`relax`.

    Args:
        potential: A potential or an ensemble, which is copied and compiled, or paths of checkpoints.
        structures: Structures of any sizes, periodic or not, also with fixed atoms; not modified.
        fmax: Longest force on an atom of a converged structure in eV/Å.
        steps: Largest number of steps. Reaching it is no error: see ``converged``.
        max_pairs: Largest number of neighbor pairs computed at once, which bounds the memory.
        device: Device of the computation; by default that of the potential, the CPU for a path.

    Returns:
        Results in the order of the structures.

    Raises:
        StructureError: If the potential rejects an initial structure: a ``ValueError``.
        TypeError: If ``structures`` is not a list of structures.
        ValueError: If an argument is out of range, or ``structures`` is empty.

    Source:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), as in ASE.
    """
    check_sequence(structures)
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    own = evaluation_copy(potential, device)
    for number, atoms in enumerate(structures):  # before the work, not during it
        _check(own, atoms, number)
    return list(relax_stream(own, structures, fmax=fmax, steps=steps, max_pairs=max_pairs))


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
    """Relax a stream of structures as :func:`relax_batched` does.

    Finished structures leave the batch and the next ones replace them, so that a file may be larger than the
    memory.

    Args:
        potential: See :func:`relax_batched`.
        structures: Structures to relax, for instance ``ase.io.iread(path)``.
        fmax: See :func:`relax_batched`.
        steps: See :func:`relax_batched`.
        max_pairs: See :func:`relax_batched`.
        device: See :func:`relax_batched`.
        on_refused: Called with the error of an initial structure that is rejected, and then left out; by
            default the error is raised.

    Returns:
        Results in the order of the structures.

    Raises:
        StructureError: While iterating, if the potential rejects an initial structure.
        TypeError: If ``structures`` is one structure, or holds something else.
        ValueError: If an argument is out of range.
    """
    check_sequence(structures)
    check_goal(fmax, steps)
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be at least 1, got {max_pairs}")
    own = evaluation_copy(potential, device)
    warn_of_motion(own)
    compile_copy(own)
    return _relax_in_order(_Queue(own, structures, max_pairs, on_refused), fmax, steps)


def _relax_in_order(queue: _Queue, fmax: float, steps: int) -> Iterator[Relaxation]:
    """Relax the structures of a queue and yield their results in its order."""
    finished: dict[int, Relaxation] = {}
    number, fire = 0, None
    while fire := queue.refill(fire):
        while True:
            finished |= fire.finish(fmax, steps)
            while number in finished or number in queue.rejected:
                if number in finished:
                    outside = queue.starts_outside.pop(number)
                    yield replace(finished.pop(number), start_outside=outside)
                number += 1
            if fire.fraction_finished() >= _REFILL_FRACTION:
                break
            fire.step()


class _Queue:
    """Structures that wait for a place in the batch.

    Args:
        potential: Potential in evaluation mode.
        structures: Structures to relax.
        max_pairs: Largest number of neighbor pairs of a batch.
        on_rejected: See ``on_refused`` of :func:`relax_stream`.
    """

    def __init__(
        self,
        potential: Potential | Ensemble,
        structures: Iterable[Atoms],
        max_pairs: int,
        on_rejected: Callable[[StructureError], None] | None,
    ):
        self.potential, self.max_pairs, self.on_rejected = potential, max_pairs, on_rejected
        self.rejected: set[int] = set()
        self.starts_outside: dict[int, str | None] = {}  # of structures that are not finished
        self._structures = enumerate(structures)
        self._next: tuple[int, Atoms] | None = None  # which did not fit into the batch before
        self._pairs: dict[int, int] = {}

    def refill(self, fire: Fire | None) -> Fire | None:
        """Replace finished structures of a batch by waiting ones; ``None`` if no structure is left."""
        kept = [] if fire is None else fire.unfinished()
        numbers = [] if fire is None else [fire.system.numbers[k] for k in kept]
        added = self._take(sum(self._pairs[number] for number in numbers))
        self._pairs = {number: self._pairs[number] for number in [*numbers, *added]}
        frames = [] if fire is None else fire.system.frames(kept)
        structures = dict(zip(numbers, frames, strict=True)) | added
        warn_of_other_molecules(self.potential, added.values())
        while structures:
            try:
                system = BatchedSystem(self.potential, list(structures.values()), list(structures))
            except StructureError as error:
                for each in (error, *error.others):
                    self._reject(each)
                    del structures[each.number]
            else:
                return Fire(system) if fire is None else Fire(system, fire, kept)
        return None

    def _take(self, pairs: int) -> dict[int, Atoms]:
        """Return the next structures, until the batch is full; at least one if ``pairs`` is 0."""
        taken = {}
        while not pairs or pairs < self.max_pairs:
            self._next = self._next or next(self._structures, None)
            if self._next is None:
                break
            number, atoms = self._next
            try:
                _check(self.potential, atoms, number)
                added = max(1, self._count(atoms, number))
            except StructureError as error:
                self._next = None
                self._reject(error)
                continue
            if pairs and pairs + added > self.max_pairs:
                break
            self._next = None
            pairs += added
            self._pairs[number], taken[number] = added, atoms
            self.starts_outside[number] = outside_of_domain(atoms, self.potential.domain)
        return taken

    def _count(self, atoms: Atoms, number: int) -> int:
        try:
            return count_pairs(atoms, self.potential.cutoff)
        except ValueError as error:
            raise StructureError(number, str(error)) from error

    def _reject(self, error: StructureError) -> None:
        if self.on_rejected is None:
            raise error
        self.on_rejected(error)
        self.rejected.add(error.number)


def _check(potential: Potential | Ensemble, atoms: Atoms, number: int) -> None:
    """Raise a StructureError if a structure cannot be relaxed in a batch, without computing it."""
    check_batched(potential, atoms, number)
    for constraint in atoms.constraints:
        if type(constraint) is not FixAtoms:
            raise StructureError(
                number, f"FixAtoms is the only constraint in batches, got {constraint}; relax it alone"
            )
