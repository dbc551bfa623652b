"""Progress bars on terminals for downloads and for reading large files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TimeElapsedColumn

_Piece = TypeVar("_Piece", bound=Sized)
_silent = ContextVar("silent", default=False)


@contextmanager
def silence() -> Iterator[None]:
    """Hide all progress bars within the context."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def bar(*columns: str | ProgressColumn, hidden: bool = False, transient: bool = False) -> Progress:
    """Build a progress bar on standard error, hidden unless standard error is a terminal."""
    console = Console(stderr=True)
    disable = hidden or _silent.get() or not console.is_terminal
    return Progress(*columns, console=console, disable=disable, transient=transient)


def counted(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """Yield the pieces, and show the number of structures read so far.

    The bar appears with the second piece, because reading the first one may show a download bar.
    """
    remaining = iter(pieces)
    first = next(remaining, None)
    if first is None:
        return
    yield first
    columns = SpinnerColumn(), "{task.completed:,} structures processed", TimeElapsedColumn()
    with bar(*columns, transient=True) as shown:
        task = shown.add_task("", total=None, completed=len(first))
        for piece in remaining:
            shown.advance(task, len(piece))
            yield piece
