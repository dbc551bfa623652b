"""TOML files as dataclasses, with strict keys and types."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pyg_schnet.io.spelling import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def parse_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise ValueError if it is none."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def read_toml(cls: type[_T], path: Path) -> _T:
    """Read a dataclass from a TOML file, as :func:`from_table` builds it.

    Raises:
        ValueError: If the file is not TOML, or a key or value is wrong, with file and key.
    """
    try:
        return from_table(cls, parse_toml(path))
    except ValueError as error:  # also of text that is not UTF-8
        raise ValueError(f"{path}: {error}") from None


def from_table(cls: type[_T], table: Mapping[str, Any]) -> _T:
    """Build a dataclass from a table with its fields as keys.

    Lists become tuples, and nested tables the dataclasses of the annotations.

    Args:
        cls: Dataclass with fields of text, numbers, booleans, tuples and dictionaries of these, other such
            dataclasses, or unions of one of these with ``None``.
        table: Values by field.

    Raises:
        ValueError: If a key is unknown or missing or a value has another type, with the key.
    """
    known = {entry.name: entry for entry in fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            raise ValueError(f"`{key}` must be one of the keys {', '.join(known)}.{nearest(key, known)}")
    for key, entry in known.items():
        if key not in table and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"`{key}` must be given, got none")
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, key) for key, value in table.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):  # with None, which TOML does not have
        hint = get_args(hint)[0]
    origin = get_origin(hint)
    if origin is tuple:
        _require(isinstance(value, list), key, "a list", value)
        return tuple(_value(get_args(hint)[0], item, _label(key, item, i)) for i, item in enumerate(value))
    if origin is dict:
        _require(isinstance(value, dict), key, "a table", value)
        return {name: _value(get_args(hint)[1], item, f"{key}.{name}") for name, item in value.items()}
    if is_dataclass(hint):
        _require(isinstance(value, dict), key, "a table", value)
        try:
            return from_table(hint, value)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise ValueError(f"in {key}: {error}") from None
    accepted = (int, float) if hint is float else (hint,)
    _require(type(value) in accepted, key, _NAMES[hint], value)  # a boolean is not a number
    return hint(value)


def _label(key: str, item: Any, index: int) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f"{key} {name!r}" if isinstance(name, str) else f"{key}[{index}]"


def _require(true: bool, key: str, kind: str, value: Any) -> None:
    if not true:
        raise ValueError(f"`{key}` must be {kind}, got {value!r}")
