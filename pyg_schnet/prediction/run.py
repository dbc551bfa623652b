"""A run over the structures of a file: what it reads, writes, refuses and shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jsonargparse import Namespace

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.io.console import out
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.io.hashes import hash_content
from pyg_schnet.io.outputs import check_distinct, check_output, check_stores_many
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.model_files import checkpoint_paths, hash_models, model_files, resolve_models
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.partial_output import number_of, parsed
from pyg_schnet.prediction.progress import shown
from pyg_schnet.prediction.results import ResultFile, part_path
from pyg_schnet.prediction.shard_spec import Share
from pyg_schnet.prediction.shards import shard_path, shard_settings
from pyg_schnet.prediction.task import START, Row, fresh, start_of, what_is_outside
from pyg_schnet.simulation import StructureError

_LISTED = 1000  # structures that are named; of more, the number is kept
_SAMPLED = 64  # of so many earlier frames, one is compared with the structure that it came from


class BatchRun:
    """Structures of IN that become frames of OUT, in order and each once, through kills.

    ``frame.info["input_frame"]`` is the number of a frame in IN.

    Args:
        options: Of the verb: the files, ``index``, ``overwrite``, ``resume``, ``skip``, ``quiet``, ``json``.
        settings: What results depend on, besides the models.
        is_same: Tells whether a frame of OUT comes from a structure of IN.
        share: Of the structures, if only a shard of OUT is asked for.

    Attributes:
        results: OUT, or its shard.
        source: IN.
        settings: What results of the whole OUT depend on.
        fingerprint: Of IN.
        refused: What was wrong with structures that were left out.
        outside: How structures are unlike those of the training; they were written.
    """

    def __init__(
        self,
        options: Namespace,
        settings: Mapping[str, Any],
        is_same: Callable[[Atoms, Atoms], bool],
        share: Share | None = None,
    ):
        self._options, self._is_same = options, is_same
        self.source = StructureFile(options.input, options.index)
        self.models = resolve_models(options.model)
        self.domain = _common_domain(checkpoint_paths(self.models))
        models = hash_models(model_files(options.model))
        self.settings = {**settings, "index": options.index, "models": models}
        check_output(options.out, overwrite=True)
        path = options.out if share is None else shard_path(options.out, share)
        inputs = {"MODEL": model_files(options.model), "IN": [options.input]}
        outputs = {"OUT": options.out, "the part of OUT": part_path(path)}
        check_distinct(inputs, {**outputs, "--trajectory": options.get("trajectory")})
        self.fingerprint = hash_content(options.input)
        self.refused, self.outside = Notes(), Notes()
        self._first = 0  # place of the first of `structures`
        self._left = iter(self.source)
        start = list(islice(self._left, 2))
        self.is_of_many = len(start) > 1
        if self.is_of_many:
            check_stores_many(options.out)
        self._left = chain(start, self._left)
        self._share = share
        own = self.settings if share is None else shard_settings(self.settings, share)
        self.results = ResultFile(path, own, options.overwrite, options.resume, self.fingerprint)

    def earlier(self) -> Iterator[Atoms]:
        """Give the frames that an earlier run wrote, which are those of the first structures of IN.

        Raises:
            ValueError: If they are others.
        """
        for frame in self.results.earlier():
            number, atoms = next(self._left, (-1, None))
            self._first += 1
            while atoms is not None and number < frame.info.get("input_frame", -1):  # left out by --skip
                number, atoms = next(self._left, (-1, None))
                self._first += 1
            if atoms is None or number != frame.info.get("input_frame") or not self._is_same(frame, atoms):
                raise self._foreign()
            yield frame

    def _foreign(self) -> ValueError:
        return ValueError(
            f"{self.results.part}: its frame {self.results.written - 1} does not come from "
            f"{self._options.input}; give the file of the run before, or --overwrite to begin anew"
        )

    def pass_earlier(self) -> int:
        """Pass over the frames that an earlier run wrote, and give the place of the first structure after.

        Each tells its number; one of 64, and the last, are compared with the structures of IN, for to read
        them all would take as long as to compute them. All are compared where IN is not what it was.

        Raises:
            ValueError: If they come from others.
        """
        last, held = -1, deque[Atoms]()

        def sampled() -> Iterator[int]:
            nonlocal last
            for number, frame in self._numbered():
                if number <= last or number not in self.source:
                    raise _Foreign
                last = number
                if frame is not None:
                    held.append(frame)
                    yield self.source.place(number)

        try:
            for _, atoms in self.source.read(sampled()):
                if not self._is_same(held.popleft(), atoms):
                    raise _Foreign
            if held:
                raise _Foreign
        except _Foreign:
            raise self._foreign() from None
        return 0 if last < 0 else self.source.place(last) + 1

    def _numbered(self) -> Iterator[tuple[int, Atoms | None]]:
        """Give the numbers of earlier frames; some frames, and the last, too."""
        if not self.results.part.exists():
            return
        if not self.results.content.is_text:
            for frame in self.results.earlier():
                yield frame.info.get("input_frame", -1), frame
            return
        held, every = None, _SAMPLED if self.results.has_same_source else 1
        for text in chain(self.results.content.texts(), [None]):
            if held is not None:
                is_read = self.results.written % every == 0 or text is None
                self.results.written += 1
                try:
                    frame = parsed(held) if is_read else None
                except FAILURES:
                    raise _Foreign from None
                yield number_of(held) or 0, frame
            held = text

    def structures(self) -> Iterator[Atoms]:
        """Return the structures to relax, with their numbers in ``info["input_frame"]`` and their hashes."""
        for number, atoms in self._left:
            structure = fresh(atoms, number)
            structure.info[START] = start_of(structure)
            yield structure

    def refuse(self, error: StructureError) -> None:
        """Note a structure that is left out, or stop.

        Raises:
            ValueError: Without ``--skip``.
        """
        self.leave_out(self.source.number(self._first + error.number), error.reason)

    def leave_out(self, number: int, reason: str) -> None:
        """Note a structure by its number in IN, or stop.

        Raises:
            ValueError: Without ``--skip``.
        """
        if not self._options.skip:
            again = "--resume --skip" if self.results.written else "--skip"
            after = f"mend it, or leave such structures out with {again}"
            raise ValueError(f"{self._options.input}: frame {number}, counted from 0: {reason}; {after}")
        self.refused.add(number, reason)

    def add(self, rows: Iterable[Row], name: str) -> int:
        """Write what became of structures, as it comes; gives how many frames there were."""
        before = self.results.written
        with self.progress(name) as count:
            for row in rows:
                if row.frame is None:
                    self.leave_out(row.number, row.refused or "")
                    continue
                self.results.append(row.frame)
                if row.outside is not None:
                    self.outside.add(row.number, row.outside)
                count()
        return self.results.written - before

    def progress(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        """Show how many frames there are, on a terminal; gives what counts one."""
        hidden = self._options.quiet or self._options.json or not out.is_terminal
        total = None if hidden else self.source.count()
        if total is not None and self._share is not None:
            total = self._share.count(total)
        return shown(name, total, self.results.written, hidden)

    def write(self, frames: Iterable[Atoms], name: str) -> Iterator[Atoms]:
        """Write frames to OUT as they come, and give them on."""
        with self.progress(name) as count:
            for frame in frames:
                self.results.write(frame)
                outside = what_is_outside(frame, self.domain)
                if outside is not None:
                    self.outside.add(frame.info["input_frame"], outside)
                count()
                yield frame

    def tell_outside(self) -> None:
        """Warn of structures that are not like the training set."""
        if self.outside:
            number, reason = self.outside[0]
            self.tell(
                f"{self.outside.total:,} structures are not like those of the training, and their energies "
                f"may be far off; the first is frame {number}: {reason}"
            )

    def finish(self) -> None:
        """Make OUT of what was written, or its shard, which may be empty.

        Raises:
            ValueError: If every structure was refused.
        """
        if not self.results.written and self._share is None:
            number, reason = self.refused[0]
            raise ValueError(
                f"{self._options.input}: all structures are refused, the first, frame {number}: {reason}"
            )
        if not self.results.part.exists():
            self.results.open()  # a shard may be empty
        self.results.finish()

    def tell(self, text: str) -> None:
        """Print a line, unless nothing or JSON is asked for."""
        if not self._options.quiet and not self._options.json:
            out.print(text, markup=False, highlight=False, emoji=False)

    def tell_refused(self) -> None:
        """Print which structures were left out, the first of many."""
        for number, reason in self.refused[:10]:
            self.tell(f"left out: frame {number}, {reason}")
        if self.refused.total > 10:
            self.tell(f"left out: {self.refused.total - 10:,} more")


class Notes(list[tuple[int, str]]):
    """Numbers of structures, and what is to say of them; the first thousand, for memory is not endless.

    Attributes:
        total: How many there were.
    """

    total = 0

    def add(self, number: int, reason: str) -> None:
        """Note a structure."""
        self.total += 1
        if len(self) < _LISTED:
            self.append((number, reason))


class _Foreign(Exception):
    """A frame of an earlier run that does not come from IN."""


def has_same_atoms(frame: Atoms, atoms: Atoms) -> bool:
    """Whether elements and periodicity are the same; positions may have moved."""
    return np.array_equal(frame.numbers, atoms.numbers) and np.array_equal(frame.pbc, atoms.pbc)


def has_same_start(frame: Atoms, atoms: Atoms) -> bool:
    """Whether a relaxed structure began as another one; frames of earlier versions tell only its atoms."""
    return has_same_atoms(frame, atoms) and frame.info.get(START) in (None, start_of(atoms))


def has_same_places(frame: Atoms, atoms: Atoms) -> bool:
    """Whether it is the same structure, to the digits that extended xyz has."""
    if not has_same_atoms(frame, atoms):
        return False
    pairs = (frame.positions, atoms.positions), (frame.cell.array, atoms.cell.array)
    return all(np.allclose(one, other, rtol=1e-7, atol=1e-7) for one, other in pairs)


def _common_domain(models: list[str]) -> TrainingDomain | None:
    """Give what all models were trained on, if it is known."""
    return TrainingDomain.intersection([load(model).domain for model in models if Path(model).is_file()])
