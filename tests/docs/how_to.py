"""Pages that change the source: blocks whose caption is a file are written or applied to a copy of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r'^```\{code-block\} (\w+)\n:caption: "`(\S+)`"\n\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """A block of a page.

    Attributes:
        path: File that it changes.
        text: Content of a new file, or the changes.
        is_change: Whether the file exists, and ``text`` has a marked line for each change and its context.
    """

    path: str
    text: str
    is_change: bool


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that name a file."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(path, text, language == "diff") for language, path, text in found]


def apply(block: Block, folder: Path) -> None:
    """Write the new file of a block, or change the existing one.

    Raises:
        ValueError: If a new file exists already, or the lines to change are not in the file exactly once.
    """
    file = folder / block.path
    if not block.is_change:
        if file.exists():
            raise ValueError(f"{block.path}: exists already")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        return
    text = file.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@\n", block.text, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        if ("\n" + text).count("\n" + old) != 1:
            raise ValueError(f"{block.path}: has {text.count(old)} places like these lines:\n{old}")
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
