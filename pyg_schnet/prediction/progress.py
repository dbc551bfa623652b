"""Progress through many structures, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pyg_schnet.io.console import out


@contextmanager
def shown(name: str, total: int | None, done: int, hidden: bool) -> Iterator[Callable[[], None]]:
    """Show a bar; gives what counts one structure."""
    columns = TextColumn(name), BarColumn(30), MofNCompleteColumn(), _Speed(), _Remaining()
    with Progress(*columns, console=out, disable=hidden) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda: bar.advance(task)


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
