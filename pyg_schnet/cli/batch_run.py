"""Runs of `predict` and `relax` over the structures of a file: options, progress and messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pyg_schnet.io.console import out
from pyg_schnet.io.hashes import hash_content
from pyg_schnet.io.outputs import check_distinct, check_output, check_stores_many

if TYPE_CHECKING:
    from ase import Atoms

    from pyg_schnet.potentials.training_domain import TrainingDomain
    from pyg_schnet.prediction.results import ResultFile
    from pyg_schnet.prediction.run import BatchRun
    from pyg_schnet.prediction.shards import ShardSpec

_MAX_LISTED = 10  # rejected structures in the output


class CommandRun:
    """A run over the structures of IN, with its settings and the messages of a command.

    Args:
        options: Options of the command: ``model``, ``input``, ``out``, ``index``, ``overwrite``, ``resume``,
            ``skip``, ``quiet`` and ``json``.
        settings: Settings on which results depend, except models, input and index.
        is_same: Function that returns whether a frame of OUT comes from a structure of IN.
        shard: Shard of OUT to write; all of OUT by default.
        domain: Training domain to compare structures with; ``None`` for no comparison.

    Attributes:
        run: Run over the structures.
        results: Results of the run.
        settings: Settings on which results depend.
        input_sha256: SHA-256 of IN.
        is_of_many: Whether IN has two structures or more.
    """

    def __init__(
        self,
        options: Namespace,
        settings: Mapping[str, Any],
        is_same: Callable[[Atoms, Atoms], bool],
        shard: ShardSpec | None = None,
        domain: TrainingDomain | None = None,
    ):
        from pyg_schnet.datasets.structure_file import StructureFile
        from pyg_schnet.potentials.model_files import hash_models, model_files
        from pyg_schnet.prediction.results import ResultFile, earlier_paths, partial_path
        from pyg_schnet.prediction.run import BatchRun

        self._options = options
        source = StructureFile(options.input, options.index)
        models = model_files(options.model)
        self.settings = {**settings, "index": options.index, "models": hash_models(options.model)}
        check_output(options.out, overwrite=True)
        path = options.out if shard is None else shard.path(options.out)
        outputs = {"OUT": options.out, "the partial results of OUT": partial_path(path)}
        outputs |= {f"OUT{file.name[len(Path(path).name) :]}": file for file in earlier_paths(path)}
        check_distinct(
            {"MODEL": models, "IN": [options.input]}, {**outputs, "--trajectory": options.get("trajectory")}
        )
        self.input_sha256 = hash_content(options.input)
        self.is_of_many = len(list(islice(source, 2))) > 1
        if self.is_of_many:
            check_stores_many(options.out)
        own = None if shard is None else shard.settings
        self.results: ResultFile = ResultFile(
            path, self.settings, options.overwrite, options.resume, self.input_sha256, own
        )
        self.run: BatchRun = BatchRun(source, self.results, is_same, options.skip, domain, shard)

    @contextmanager
    def open_results(self) -> Iterator[None]:
        """Open the results within the context; on an error, print how many are kept."""
        try:
            with self.results:
                yield
        except BaseException:
            if written := self.results.written:
                some = f"{written:,} structure{'s are' if written > 1 else ' is'}"
                print(
                    f"pyg-schnet: {some} done, in {self.results.partial}; --resume continues", file=sys.stderr
                )
            raise

    @contextmanager
    def progress(self, name: str) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on a terminal; yields a function that advances it by a number of structures.

        Args:
            name: Label of the bar.
        """
        hidden = self._options.quiet or self._options.json or not out.is_terminal
        columns = TextColumn(name), BarColumn(30), MofNCompleteColumn(), _Speed(), _Remaining()
        with Progress(*columns, console=out, disable=hidden) as bar:
            total = None if hidden else self.run.total()
            task = bar.add_task("", total=total, completed=self.results.written)
            yield lambda count: bar.advance(task, count)

    def reasons(self) -> dict[str, list[dict[str, Any]]]:
        """Return structures that were rejected or are outside the training domain, with reasons, for JSON."""
        return {
            name: [{"frame": number, "reason": reason} for number, reason in reasons.first]
            for name, reasons in (("refused", self.results.rejected), ("outside", self.results.outside))
        }

    def print(self, text: str) -> None:
        """Print a line, unless ``--quiet`` or ``--json`` is set."""
        if not self._options.quiet and not self._options.json:
            out.print(text, highlight=False)

    def print_reasons(self) -> None:
        """Print which structures were rejected, and how many are outside the training domain."""
        rejected, outside = self.results.rejected, self.results.outside
        for number, reason in rejected.first[:_MAX_LISTED]:
            self.print(f"left out: frame {number}, {reason}")
        if rejected.total > _MAX_LISTED:
            self.print(f"left out: {rejected.total - _MAX_LISTED:,} more")
        if outside.total:
            number, reason = outside.first[0]
            self.print(
                f"{outside.total:,} structures are outside the training domain, and their energies may be "
                f"far off; the first is frame {number}: {reason}"
            )


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the structures per second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s" if speed < 100 else f"{speed:,.0f}/s")


class _Remaining(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the estimated remaining time."""
        remaining = task.time_remaining
        return Text("" if remaining is None else f"{timedelta(seconds=int(remaining))} left")
