"""Console output: control characters in texts of files and names are escaped before they reach a terminal."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Control characters except line ends and tabs, invisible ones, marks of writing direction, and surrogates,
# which no terminal can print.
_UNPRINTABLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return text with control characters as escapes: a bell becomes ``\x07``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _EscapingConsole(Console):
    """Console that escapes control characters in texts, but not its own colors and progress bars."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, str):  # before layout, because an escape is wider than its character
            renderable = printable(renderable)
        elif isinstance(renderable, Text):
            renderable = _printable(renderable)
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError if the reader of a pipe has ended; Rich would end the process."""
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _printable(text: Text) -> Text:
    places = [place for found in _UNPRINTABLE.finditer(text.plain) for place in found.span()]
    if not places:
        return text
    pieces = text.divide(places)
    for piece in pieces:
        piece.plain = printable(piece.plain)
    return text.blank_copy("").join(pieces)


class _EscapingStderr:
    """Standard error with escaped control characters."""

    def __init__(self, stream: TextIO):
        self.rich_proxied_file = stream  # the name under which rich finds the stream for its progress bars

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def printable_errors() -> Iterator[None]:
    """Escape control characters in messages, warnings and logs on standard error."""
    before = sys.stderr
    sys.stderr = cast(TextIO, _EscapingStderr(before))
    try:
        yield
    finally:
        sys.stderr = before


# Brackets and colons in names of files and messages are no markup.
out = _EscapingConsole(soft_wrap=True, markup=False, emoji=False)
