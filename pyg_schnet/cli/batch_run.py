"""A run over the structures of a file: what it reads, writes, refuses and shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jsonargparse import Namespace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pyg_schnet.checkpoint import load
from pyg_schnet.cli.files import (
    check_distinct,
    check_holds_many,
    checkpoints,
    fingerprint,
    hash_models,
    split_models,
)
from pyg_schnet.cli.results import ResultFile
from pyg_schnet.cli.source import Source
from pyg_schnet.cli.terminal import out
from pyg_schnet.domain import Domain
from pyg_schnet.simulation import StructureError
from pyg_schnet.structures import from_ase

# What an earlier run told of a structure, and no longer holds.
_STALE_INFO = ("input_frame", "converged", "steps", "stopped", "energy_deviation", "max_forces_deviation")
_STALE_ARRAYS = ("forces_deviation",)


class BatchRun:
    """Structures of IN that become frames of OUT, in order and each once, through kills.

    ``frame.info["input_frame"]`` is the number of a frame in IN.

    Args:
        options: Of the verb: the files, ``index``, ``overwrite``, ``resume``, ``skip``, ``quiet``, ``json``.
        settings: What results depend on, besides the models.
        is_same: Tells whether a frame of OUT comes from a structure of IN.

    Attributes:
        results: OUT.
        refused: What was wrong with structures that were left out.
    """

    def __init__(
        self,
        options: Namespace,
        settings: Mapping[str, Any],
        is_same: Callable[[Atoms, Atoms], bool],
    ):
        self._options, self._is_same = options, is_same
        self._source = Source(options.input, options.index)
        models = split_models(options.model)
        self._domain = _common_domain(checkpoints(models))
        models = hash_models(list(dict.fromkeys([*models, *checkpoints(models)])))
        settings = {**settings, "index": options.index, "models": models}
        check_distinct(IN=options.input, OUT=options.out, **{"--trajectory": options.get("trajectory")})
        source = fingerprint(options.input)
        self.results = ResultFile(options.out, settings, options.overwrite, options.resume, source)
        self.refused: list[tuple[int, str]] = []
        self.outside: list[tuple[int, str]] = []  # written, but not like the training set
        self._numbers: list[int] = []
        self._left = iter(self._source)
        if not self.results.is_complete:
            start = list(islice(self._left, 2))
            self.is_of_many = len(start) > 1
            if self.is_of_many:
                check_holds_many(options.out)
            self._left = chain(start, self._left)

    def earlier(self) -> Iterator[Atoms]:
        """Give the frames that an earlier run wrote, which are those of the first structures of IN.

        Raises:
            ValueError: If they are others.
        """
        for frame in self.results.earlier():
            number, atoms = next(self._left, (-1, None))
            while atoms is not None and number < frame.info.get("input_frame", -1):  # left out by --skip
                number, atoms = next(self._left, (-1, None))
            if atoms is None or number != frame.info.get("input_frame") or not self._is_same(frame, atoms):
                raise ValueError(
                    f"{self.results.part}: its frame {self.results.written - 1} does not come from "
                    f"{self._options.input}; give the file of the run before, or --overwrite to begin anew"
                )
            yield frame

    def structures(self) -> Iterator[Atoms]:
        """Give the structures that are left, with their numbers in ``info["input_frame"]``."""
        for number, atoms in self._left:
            for name in _STALE_INFO:
                atoms.info.pop(name, None)
            for name in _STALE_ARRAYS:
                atoms.arrays.pop(name, None)
            atoms.info["input_frame"] = number
            self._numbers.append(number)
            yield atoms

    def refuse(self, error: StructureError) -> None:
        """Note a structure that is left out, or stop.

        Raises:
            ValueError: Without ``--skip``.
        """
        number = self._numbers[error.number]
        if not self._options.skip:
            again = "--resume --skip" if self.results.written else "--skip"
            after = f"mend it, or leave such structures out with {again}"
            raise ValueError(
                f"{self._options.input}: frame {number}, counted from 0: {error.reason}; {after}"
            )
        self.refused.append((number, error.reason))

    @contextlib.contextmanager
    def progress(self, name: str) -> Iterator[Callable[[], None]]:
        """Show how many frames there are, on a terminal; gives what counts one."""
        hidden = self._options.quiet or self._options.json or not out.is_terminal
        columns = TextColumn(name), BarColumn(30), MofNCompleteColumn(), _Speed(), _Remaining()
        with Progress(*columns, console=out, disable=hidden) as bar:
            total = None if hidden else self._source.count()
            task = bar.add_task("", total=total, completed=self.results.written)
            yield lambda: bar.advance(task)

    def write(self, frames: Iterable[Atoms], name: str) -> Iterator[Atoms]:
        """Write frames to OUT as they come, and give them on."""
        with self.progress(name) as count:
            for frame in frames:
                self.results.write(frame)
                self._compare(frame)
                count()
                yield frame

    def _compare(self, frame: Atoms) -> None:
        """Note a structure whose atoms are closer than in training: the model was never told of such."""
        if self._domain is None:
            return
        try:
            self._domain.check(from_ase(frame))
        except ValueError as error:
            self.outside.append((frame.info["input_frame"], str(error)))

    def tell_outside(self) -> None:
        """Warn of structures that are not like the training set."""
        if self.outside:
            number, reason = self.outside[0]
            self.tell(
                f"{len(self.outside):,} structures are not like those of the training, and their energies "
                f"may be far off; the first is frame {number}: {reason}"
            )

    def finish(self) -> None:
        """Make OUT of what was written.

        Raises:
            ValueError: If every structure was refused.
        """
        if not self.results.written:
            number, reason = self.refused[0]
            raise ValueError(
                f"{self._options.input}: all structures are refused, the first, frame {number}: {reason}"
            )
        self.results.finish()

    def tell(self, text: str) -> None:
        """Print a line, unless nothing or JSON is asked for."""
        if not self._options.quiet and not self._options.json:
            out.print(text, markup=False, highlight=False, emoji=False)

    def tell_refused(self) -> None:
        """Print which structures were left out, the first of many."""
        for number, reason in self.refused[:10]:
            self.tell(f"left out: frame {number}, {reason}")
        if len(self.refused) > 10:
            self.tell(f"left out: {len(self.refused) - 10:,} more")


def has_same_atoms(frame: Atoms, atoms: Atoms) -> bool:
    """Whether elements and periodicity are the same; positions may have moved."""
    return np.array_equal(frame.numbers, atoms.numbers) and np.array_equal(frame.pbc, atoms.pbc)


def has_same_places(frame: Atoms, atoms: Atoms) -> bool:
    """Whether it is the same structure, to the digits that extended xyz has."""
    if not has_same_atoms(frame, atoms):
        return False
    pairs = (frame.positions, atoms.positions), (frame.cell.array, atoms.cell.array)
    return all(np.allclose(one, other, rtol=1e-7, atol=1e-7) for one, other in pairs)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Tell structures a second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s" if speed < 100 else f"{speed:,.0f}/s")


class _Remaining(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Tell the time that is left."""
        left = task.time_remaining
        if left is None:
            return Text("")
        hours, minutes = divmod(int(left) // 60, 60)
        return Text(f"{hours}:{minutes:02d}:{int(left) % 60:02d} left")


def _common_domain(models: list[str]) -> Domain | None:
    """Give what all models were trained on, if it is known."""
    return Domain.common([load(model).domain for model in models if Path(model).is_file()])
