"""Run over the structures of a file, which can be resumed after its process was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import numpy as np
from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.export import encode
from pyg_schnet.prediction.partial_output import DamagedRowError, PredictionResult
from pyg_schnet.prediction.results import ResultFile
from pyg_schnet.prediction.shards import ShardSpec
from pyg_schnet.simulation.limits import outside_of_domain
from pyg_schnet.simulation.structures import StructureError, hash_structure
from pyg_schnet.transforms.ase_atoms import from_ase

_START = "start_sha256"  # entry of a relaxed frame: hash of the structure that was relaxed
# Entries that hold results of an earlier run.
_STALE_INFO = (
    _START,
    "input_frame",
    "converged",
    "steps",
    "fmax",
    "stopped",
    "start_outside",
    "energy_deviation",
    "max_forces_deviation",
    "property_units",
)
_STALE_ARRAYS = ("forces_deviation",)


class BatchRun:
    """Structures of IN that become frames of OUT, in order and each once, also if resumed after a kill.

    ``frame.info["input_frame"]`` is the number of a frame in IN.

    Args:
        source: IN.
        results: OUT, or a shard of it.
        is_same: Whether a frame of OUT comes from a structure of IN.
        skip: Whether structures that are rejected are left out.
        domain: Domain of the training, if it is known.
        shard: Which structures of IN belong to ``results``; all by default.

    Attributes:
        first: Place in IN of the first structure without a result, known after :meth:`check_earlier`.
    """

    def __init__(
        self,
        source: StructureFile,
        results: ResultFile,
        is_same: Callable[[Atoms, Atoms], bool],
        skip: bool = False,
        domain: TrainingDomain | None = None,
        shard: ShardSpec | None = None,
    ):
        self.source, self.results, self.domain = source, results, domain
        self.shard = shard or ShardSpec()
        self.first = 0
        self._is_same, self.skip = is_same, skip

    def check_earlier(self) -> None:
        """Check the results of an earlier run against IN, and find where to continue.

        Where IN is the same to the byte, the numbers suffice; else each structure is compared. Results from
        the first structure on that has none, or a damaged one, are removed.

        Raises:
            ValueError: If results come from other structures.
        """
        last = -1
        with suppress(DamagedRowError):
            for (number, rejected), place in zip(self.results.rows(), self.shard.places(), strict=False):
                if number != self.source.number(place) or (rejected and not self.results.has_same_input):
                    break
                last, self.first = number, place + 1
        self.results.remove_from(last + 1)
        if self.results.has_same_input:
            return
        structures = self.source.read(self.shard.places())
        for frame in self.results.frames():
            number, atoms = next(structures, (-1, None))
            if atoms is None or number != frame.info.get("input_frame") or not self._is_same(frame, atoms):
                raise ValueError(
                    f"{self.results.partial}: its frame {frame.info.get('input_frame')} does not come from "
                    f"{self.source.path}; use the file of the earlier run, or --overwrite to start again"
                )

    def total(self) -> int | None:
        """Return the number of structures that belong to OUT, where it is known without reading them."""
        total = self.source.count()
        return None if total is None else self.shard.count(total)

    def structures(self) -> Iterator[Atoms]:
        """Yield the structures without results, with their numbers and hashes in ``info``."""
        for number, atoms in self.source.read(count(self.first)):
            structure = with_number(atoms, number)
            structure.info[_START] = _start_of(structure)
            yield structure

    def reject(self, error: StructureError) -> None:
        """Store the rejection of a structure by its number among :meth:`structures`.

        Raises:
            ValueError: Without ``skip``.
        """
        number = self.source.number(self.first + error.number)
        self.add([PredictionResult(number, None, error.reason)])

    def add(self, results: list[PredictionResult]) -> int:
        """Store results, and return how many of them are frames.

        Raises:
            ValueError: If a structure was rejected, without ``skip``; the results before it are stored.
        """
        rejected = next((k for k, result in enumerate(results) if result.frame is None), None)
        done = results if self.skip or rejected is None else results[:rejected]
        before = self.results.written
        if done:
            self.results.add(done)
        if rejected is not None and not self.skip:
            again = "--resume --skip" if self.results.written else "--skip"
            number, _, reason, _ = results[rejected]
            raise ValueError(
                f"{self.source.path}: frame {number}, counted from 0: {reason}; repair it, or leave such "
                f"structures out with {again}"
            )
        return self.results.written - before

    def write(self, frame: Atoms) -> None:
        """Store one relaxed structure with its results."""
        outside = outside_of_domain(frame, self.domain)
        frame.info["run"] = self.results.run
        number = frame.info["input_frame"]
        self.add([PredictionResult(number, encode(frame, self.results.kind), None, outside)])


def with_number(atoms: Atoms, number: int) -> Atoms:
    """Remove the results of an earlier run from a structure, and store its number in the input."""
    without_results(atoms).info["input_frame"] = number
    return atoms


def without_results(atoms: Atoms) -> Atoms:
    """Remove the results of an earlier run from a structure."""
    for name in _STALE_INFO:
        atoms.info.pop(name, None)
    for name in _STALE_ARRAYS:
        atoms.arrays.pop(name, None)
    return atoms


def out_of_domain_reason(frame: Atoms, domain: TrainingDomain | None) -> str | None:
    """Return how a structure leaves the domain of the training; ``None`` if it does not, or none is known."""
    if domain is None:
        return None
    try:
        domain.check(from_ase(frame))
    except ValueError as error:
        return str(error)
    return None


def has_same_start(frame: Atoms, atoms: Atoms) -> bool:
    """Return whether a relaxed frame comes from a structure."""
    return _has_same_atoms(frame, atoms) and frame.info.get(_START) == _start_of(atoms)


def has_same_positions(frame: Atoms, atoms: Atoms) -> bool:
    """Return whether a frame is of a structure, to the digits of extended xyz."""
    if not _has_same_atoms(frame, atoms):
        return False
    pairs = (frame.positions, atoms.positions), (frame.cell.array, atoms.cell.array)
    return all(np.allclose(one, other, rtol=1e-7, atol=1e-7) for one, other in pairs)


def _has_same_atoms(frame: Atoms, atoms: Atoms) -> bool:
    return np.array_equal(frame.numbers, atoms.numbers) and np.array_equal(frame.pbc, atoms.pbc)


def _start_of(atoms: Atoms) -> str:
    """Return a hash of a structure; a letter first, because ASE reads some digits as a number."""
    return f"s{hash_structure(atoms)[:15]}"
