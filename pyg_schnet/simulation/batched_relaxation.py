"""Relaxation of many structures in one call of the model a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms
from ase.constraints import FixAtoms

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.batched_system import BatchedSystem, check_known, count_pairs
from pyg_schnet.simulation.calculator import Model, compile_copy, evaluation_copy
from pyg_schnet.simulation.fire import Fire
from pyg_schnet.simulation.relaxation import Relaxation, check_goal
from pyg_schnet.simulation.structures import StructureError, check_initial_structure, check_structure

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
    if isinstance(structures, Atoms):
        raise TypeError("`structures` must be a list of ase.Atoms, got one Atoms; use [atoms]")
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    own = evaluation_copy(potential, device)
    for number, atoms in enumerate(structures):  # before the work, not in the middle of it
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
    own = evaluation_copy(potential, device)
    compile_copy(own)
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
        self._cutoff = potential.cutoff

    def refill(self, search: Fire | None) -> Fire | None:
        """Replace what is done by what waits; ``None`` when there is neither."""
        kept = [] if search is None else search.active()
        numbers = [] if search is None else [search.replicas.numbers[place] for place in kept]
        newcomers = self._take(sum(self._pairs[number] for number in numbers))
        self._pairs = {number: self._pairs[number] for number in [*numbers, *newcomers]}
        frames = [] if search is None else search.replicas.frames(kept)
        structures = dict(zip(numbers, frames, strict=True)) | newcomers
        while structures:
            try:
                replicas = BatchedSystem(self.potential, list(structures.values()), list(structures))
            except StructureError as error:
                for each in (error, *error.others):
                    self._refuse(each)
                    del structures[each.number]
            else:
                return Fire(replicas) if search is None else Fire(replicas, search, kept)
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
                _check(self.potential, atoms, number)
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


def _check(potential: Potential | Ensemble, atoms: Atoms, number: int) -> None:
    """Refuse what cannot be relaxed side by side, without computing it."""
    check_structure(atoms, number)
    try:
        check_initial_structure(atoms)
    except ValueError as error:
        raise StructureError(number, str(error)) from error
    for constraint in atoms.constraints:
        if type(constraint) is not FixAtoms:
            raise StructureError(
                number, f"side by side only FixAtoms is a constraint, got {constraint}; relax it alone"
            )
    check_known(potential, atoms, number)
