"""Bars on terminals, for what takes minutes: downloads, and reading what was downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TimeElapsedColumn

from pyg_schnet.io.formats.chunks import Chunk

_silent = ContextVar("silent", default=False)


@contextmanager
def silence() -> Iterator[None]:
    """Show no bars meanwhile, on terminals neither."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def bar(*columns: str | ProgressColumn, hidden: bool = False, transient: bool = False) -> Progress:
    """Make a bar on standard error, which is hidden unless that is a terminal."""
    console = Console(stderr=True)
    disable = hidden or _silent.get() or not console.is_terminal
    return Progress(*columns, console=console, disable=disable, transient=transient)


def counted(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Give chunks on, and show how many structures they hold from the second on: the first may download."""
    whole = iter(chunks)
    first = next(whole, None)
    if first is None:
        return
    yield first
    columns = SpinnerColumn(), "{task.completed:,} structures processed", TimeElapsedColumn()
    with bar(*columns, transient=True) as shown:
        task = shown.add_task("", total=None, completed=len(first))
        for chunk in whole:
            shown.advance(task, len(chunk))
            yield chunk
