"""Output of `predict` and `relax`, which process the structures of a file: progress and messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.prediction.partial_output import Reasons

_MAX_LISTED = 10  # rejected structures in the output


class BatchProgress:
    """Progress of a command over the structures of IN: a bar on a terminal, and what is kept on an error.

    Args:
        options: Options of the command: ``out``, ``shard``, ``quiet`` and ``json``.
        name: Label of the bar.
    """

    def __init__(self, options: Namespace, name: str):
        self._out, self._shard, self._done = options.out, options.get("shard"), 0
        columns = TextColumn(name), BarColumn(30), MofNCompleteColumn(), _Speed(), _Remaining()
        hidden = options.quiet or options.json or not out.is_terminal
        self._bar = Progress(*columns, console=out, disable=hidden)
        self._task = self._bar.add_task("")

    def show(self, done: int, total: int | None) -> None:
        """Show how many structures are done, and how many there are if it is known."""
        self._done = done
        self._bar.update(self._task, completed=done, total=total)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar within the context; on an error, print how many results are kept."""
        from pyg_schnet.prediction.results import partial_path
        from pyg_schnet.prediction.shards import ShardSpec

        try:
            with self._bar:
                yield
        except BaseException:
            if self._done:
                some = f"{self._done:,} structure{'s are' if self._done > 1 else ' is'}"
                shard = self._shard and ShardSpec.parse(self._shard, batch_size=1)
                where = partial_path(shard.path(self._out) if shard else self._out)
                print(f"pyg-schnet: {some} done, in {where}; --resume continues", file=sys.stderr)
            raise


def print_line(options: Namespace, text: str) -> None:
    """Print a line, unless ``--quiet`` or ``--json`` is set."""
    if not options.quiet and not options.json:
        out.print(text, highlight=False)


def reasons_as_dict(rejected: Reasons, outside: Reasons) -> dict[str, list[dict[str, Any]]]:
    """Return structures that were rejected or are outside the training domain, with reasons, for JSON."""
    return {
        name: [{"frame": number, "reason": reason} for number, reason in reasons.first]
        for name, reasons in (("refused", rejected), ("outside", outside))
    }


def print_reasons(options: Namespace, rejected: Reasons, outside: Reasons) -> None:
    """Print which structures were rejected, and how many are outside the training domain."""
    for number, reason in rejected.first[:_MAX_LISTED]:
        print_line(options, f"left out: frame {number}, {reason}")
    if rejected.total > _MAX_LISTED:
        print_line(options, f"left out: {rejected.total - _MAX_LISTED:,} more")
    if outside.total:
        number, reason = outside.first[0]
        one = outside.total == 1
        which = "1 structure is" if one else f"{outside.total:,} structures are"
        what = "its energy" if one else "their energies"
        print_line(
            options,
            f"{which} outside the training domain, and {what} may be far off; the first is frame {number}: "
            f"{reason}",
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
