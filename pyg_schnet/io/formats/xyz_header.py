"""Headers of extended xyz: the second line of a frame, parsed as ASE does and checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ase.io.extxyz import key_val_str_to_dict

_LONGEST = 2**20  # characters; ASE takes some hundred bytes for each pair of them
_MOST_COLUMNS = 2**14  # of an atom; ASE takes half a kilobyte for each
_SHOWN = 40  # characters of a key or value in a message
_CLOSING = {'"': '"', "'": "'", "{": "}", "[": "]"}
_INSIDE = "|".join(rf"\{a}(?:\\.|[^\{b}\\])*\{b}?" for a, b in _CLOSING.items())
# What ASE keeps together, with quotes, brackets and backslashes; an equals sign; or blanks.
_TOKEN = re.compile(rf"((?:\\.?|{_INSIDE}|[^\s=\\\"'{{\[])+)|(=)|\s+", re.DOTALL)

# Units in free text: "units: kcal/mol", or i-PI's "positions{atomic_unit}".
_UNITS = re.compile(r"(?:^|\s)#?(\w*units?):\s*([^\s:=]+)|\s(positions)\{(\w+)\}", re.IGNORECASE)


def parse_header(line: str, atoms: Sequence[str]) -> dict[str, Any]:
    """Parse the header of a frame.

    Args:
        line: The header.
        atoms: The lines of the atoms, which must have the columns that the header announces.

    Returns:
        What ASE reads there, to be used in place of the header; and ``units`` that free text names.

    Raises:
        ValueError: If the header is very long, has two values for a key, or announces more columns than
            the atoms have.
    """
    line = line.strip()
    if len(line) > _LONGEST:
        raise ValueError(f"it must have a header of at most {_LONGEST:,} characters, got {len(line):,}")
    info = key_val_str_to_dict(line)
    valued = sum(
        value is not True and not (isinstance(value, str) and value == "T") for value in info.values()
    )
    if line.count("=") > valued:  # as many as there are values, if no key comes twice
        _check_unique(line)
    _check_columns(info.get("Properties"), atoms)
    return info | _units(line)


def header_pairs(line: str) -> list[tuple[str, str | None]]:
    """List keys and values of a header in their order, as ASE splits it; a key alone has no value."""
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
    return {key or f"{place}_units": unit or named for key, unit, place, named in found}


def _check_unique(line: str) -> None:
    values: dict[str, str] = {}
    for key, value in header_pairs(line):
        if value is not None and values.setdefault(key, value) != value:
            raise ValueError(
                f"it must have one value for '{key[:_SHOWN]}' in its header, got "
                f"{values[key][:_SHOWN]!r} and {value[:_SHOWN]!r}; remove one"
            )


def _check_columns(layout: Any, atoms: Sequence[str]) -> None:
    if not isinstance(layout, str):  # ASE's own, or an error of ASE's
        return
    columns = sum(int(number) for number in layout.split(":")[2::3])
    given = min((len(line.split()) for line in (*atoms[:1], *atoms[-1:])), default=columns)
    if columns > given:
        raise ValueError(f"it must have the {columns} columns of its `Properties`, got {given}")
    if columns > _MOST_COLUMNS:
        raise ValueError(f"it must have at most {_MOST_COLUMNS:,} columns, got {columns:,}")
