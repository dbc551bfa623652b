"""Extended xyz, compressed or not: frames are delimited and headers checked here, and parsed by ASE."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from pyg_schnet.io.compression import COMPRESSED, unpacked_limit

_LONGEST_LINE = 2**24  # characters
_LARGEST_FRAME = 2**28  # characters; some millions of atoms
_LONGEST_HEADER = 2**20  # characters; ASE needs some hundred bytes for each pair of them
_MOST_COLUMNS = 2**14  # per atom; ASE needs half a kilobyte for each
_SHOWN = 40  # characters of a key or value in a message
_CLOSING = {'"': '"', "'": "'", "{": "}", "[": "]"}
_INSIDE = "|".join(rf"\{a}(?:\\.|[^\{b}\\])*\{b}?" for a, b in _CLOSING.items())
# What ASE keeps together, with quotes, brackets and backslashes; an equals sign; or blanks.
_TOKEN = re.compile(rf"((?:\\.?|{_INSIDE}|[^\s=\\\"'{{\[])+)|(=)|\s+", re.DOTALL)
# Units in free text: "units: kcal/mol", or i-PI's "positions{atomic_unit}".
_UNITS = re.compile(r"(?:^|\s)#?(\w*units?):\s*([^\s:=]+)|\s(positions)\{(\w+)\}", re.IGNORECASE)


class ExtxyzReader:
    """Reader of chosen structures; it skips others in a microsecond each.

    Attributes:
        place: Number in the file, from 0, of the structure that is read next.
    """

    def __init__(self, path: Path):
        self._path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Yield the structures of these ascending numbers; see :class:`StructureReader`."""
        self.place = 0
        with open_lines(self._path) as lines:
            frames = _frames(lines)
            for number in numbers:
                while self.place < number:
                    if not _skip_frame(lines):
                        return
                    self.place += 1
                frame = next(frames, None)
                if frame is None:
                    return
                atoms = parse_frame(frame)
                self.place += 1
                yield number, atoms

    def count(self) -> int:
        """Count the structures by their first lines, up to the first that is damaged."""
        found = 0
        with open_lines(self._path) as lines:
            try:
                while _skip_frame(lines):
                    found += 1
            except ValueError:  # reading raises it with the number of the structure
                return found
        return found


def read_extxyz(path: Path) -> Iterator[Atoms]:
    """Read all structures, one at a time; ASE's own loop ends silently at an empty line."""
    with open_lines(path) as lines:
        yield from map(parse_frame, _frames(lines))


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """Open a text file, compressed or not, and yield its lines with bounded lengths.

    Reading the lines raises a ``ValueError`` if one, or the whole file, is too long.
    """
    opened = COMPRESSED.get(path.suffix.lower(), open)
    with opened(path, "rb") as binary, io.TextIOWrapper(cast(Any, binary), "utf-8", "replace") as file:
        yield _bounded_lines(file, unpacked_limit(path))


def _bounded_lines(file: io.TextIOBase, most: float = math.inf) -> Iterator[str]:
    size = 0
    while line := file.readline(_LONGEST_LINE):
        size += len(line)
        if size > most:
            raise ValueError(f"it must unpack to at most {most:,} bytes, got more; unpack it if you trust it")
        if len(line) == _LONGEST_LINE:
            raise ValueError(
                f"it must have lines of less than {_LONGEST_LINE:,} characters, got a longer one"
            )
        yield line


def _frames(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield the lines of each frame; the caller may take lines between two frames.

    Raises:
        ValueError: If a frame is not complete, or does not begin with the number of its atoms.
    """
    while line := _first_line(lines):
        atoms = int(line)
        frame = [line]
        size = 0
        for line in islice(lines, atoms + 1):
            frame.append(line)
            size += len(line)
            if size > _LARGEST_FRAME:
                raise ValueError(f"it must have at most {_LARGEST_FRAME:,} characters, got more")
        if len(frame) < atoms + 2:
            raise ValueError(f"it must have {atoms} atoms, the file ends after {max(0, len(frame) - 2)}")
        yield frame


def _skip_frame(lines: Iterator[str]) -> bool:
    """Skip a frame by the number of atoms in its first line; return whether there was one."""
    line = _first_line(lines)
    if line:
        next(islice(lines, int(line), int(line) + 1), None)
    return bool(line)


def _first_line(lines: Iterator[str]) -> str:
    """Return the line with the number of atoms, after empty lines; ``""`` at the end of the file."""
    line = next(lines, "")
    while line and not line.strip():
        line = next(lines, "")
    if line and not line.strip().isdigit():
        raise ValueError(f"it must begin with the number of its atoms, got {line.strip()[:40]!r}")
    return line


def parse_frame(lines: list[str]) -> Atoms:
    """Parse one frame.

    Raises:
        ValueError: If its header is invalid; ASE raises other errors.
    """
    info = parse_header(lines[1], lines[2:])
    return next(read_xyz(io.StringIO("".join(lines)), 0, lambda _: info))


def parse_header(line: str, atoms: Sequence[str]) -> dict[str, Any]:
    """Parse the header of a frame.

    Args:
        line: The header.
        atoms: The lines of the atoms, which must have the columns that the header announces.

    Returns:
        The keys and values that ASE reads, and ``units`` stated in free text.

    Raises:
        ValueError: If the header is too long, has two values for a key, or announces more columns than the
            atoms have.
    """
    line = line.strip()
    if len(line) > _LONGEST_HEADER:
        raise ValueError(
            f"it must have a header of at most {_LONGEST_HEADER:,} characters, got {len(line):,}"
        )
    info = key_val_str_to_dict(line)
    valued = sum(
        value is not True and not (isinstance(value, str) and value == "T") for value in info.values()
    )
    if line.count("=") > valued:  # equal if each key occurs once
        _check_unique(line)
    _check_columns(info.get("Properties"), atoms)
    return info | _units(line)


def header_pairs(line: str) -> list[tuple[str, str | None]]:
    """Return keys and values of a header in their order, split as ASE does; a key alone has no value."""
    pairs: list[list[str]] = []
    complete = True  # whether a word would begin the next pair
    for word, equals in _TOKEN.findall(line.strip()):
        text = _unquoted(word)
        if equals and pairs:
            pairs[-1].append("")
            complete = False
        elif text and complete:
            pairs.append([text])
            complete = False
        elif text:
            pairs[-1][-1] += text
        elif not word and pairs:  # blanks; a value may still follow the equals sign
            complete = complete or pairs[-1][-1] != ""
    return [(pair[0], "=".join(pair[1:]) if len(pair) > 1 else None) for pair in pairs]


def _unquoted(word: str) -> str:
    """Remove quotes, brackets and backslashes as ASE does."""
    if not any(character in word for character in "\\\"'{["):
        return word
    text, closing, escaped = [], None, False
    for character in word:
        if escaped:
            text.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif closing is not None and character == closing:
            closing = None
        elif closing is None and character in _CLOSING:
            closing = _CLOSING[character]
        else:
            text.append(character)
    return "".join(text)


def _units(line: str) -> dict[str, str]:
    found = [match.groups() for match in _UNITS.finditer(line)]
    return {key or f"{quantity}_units": unit or named for key, unit, quantity, named in found}


def _check_unique(line: str) -> None:
    values: dict[str, str] = {}
    for key, value in header_pairs(line):
        if value is not None and values.setdefault(key, value) != value:
            raise ValueError(
                f"it must have one value for '{key[:_SHOWN]}' in its header, got "
                f"{values[key][:_SHOWN]!r} and {value[:_SHOWN]!r}; remove one"
            )


def _check_columns(layout: Any, atoms: Sequence[str]) -> None:
    if not isinstance(layout, str):  # ASE's default, or an error that ASE reports
        return
    columns = sum(int(number) for number in layout.split(":")[2::3])
    given = min((len(line.split()) for line in (*atoms[:1], *atoms[-1:])), default=columns)
    if columns > given:
        raise ValueError(f"it must have the {columns} columns of its `Properties`, got {given}")
    if columns > _MOST_COLUMNS:
        raise ValueError(f"it must have at most {_MOST_COLUMNS:,} columns, got {columns:,}")
