"""Options of a training run by dotted names, such as ``trainer.max_steps``, and recipes that set them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from pyg_schnet.io.spelling import nearest
from pyg_schnet.io.yaml_file import read_yaml
from pyg_schnet.training.config import TrainConfig

_MAX_SHOWN = 100  # characters of a name in a message
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def build_config(entries: Mapping[str, Any]) -> TrainConfig:
    """Build the configuration of a run.

    Args:
        entries: Values of options by their dotted names, such as ``trainer.max_steps``.

    Raises:
        ValueError: If an option is unknown, its value is of another type or out of range, or ``data.path`` is
            missing.
    """
    check_names(entries)
    if "data.path" not in entries:
        raise ValueError("`data.path` must be given: the file of structures and energies to train on")
    hints: dict[str, Any] = get_type_hints(TrainConfig)
    sections: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        hint, name = hints[field.name], field.name
        if dataclasses.is_dataclass(hint):
            types = get_type_hints(hint)
            own = {key: f"{name}.{key}" for key in types if f"{name}.{key}" in entries}
            options = {key: _convert(dotted, entries[dotted], types[key]) for key, dotted in own.items()}
            sections[name] = cast(Any, hint)(**options)
        elif name in entries:
            sections[name] = _convert(name, entries[name], hint)
    return TrainConfig(**sections)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, and return the values of its options by their dotted names.

    Raises:
        ValueError: If it is not a YAML file of options in sections.
    """
    try:
        entries = read_yaml(path)
    except ValueError as error:
        hint = "" if path.suffix in (".yaml", ".yml") else "; pass a data file as --data.path"
        raise ValueError(f"{error}{hint}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: must hold options by name, got {type(entries).__name__}")
    known = set(option_names())
    sections = section_names()
    flat = dict(_flatten(entries, known - sections))
    check_names(flat, f"{path}: ")
    for name in sections:
        if not isinstance(section := entries.get(name, {}), dict):
            got = type(section).__name__
            raise ValueError(
                f"{path}: `{name}` must hold options by name, got {got}; other files are not read"
            )
    return {name: value for name, value in flat.items() if name not in sections}


def option_names(config: type = TrainConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the options of a dataclass, and of its sections."""
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        yield prefix + field.name
        if dataclasses.is_dataclass(section := types[field.name]):
            yield from option_names(section, f"{prefix}{field.name}.")  # pyright: ignore[reportArgumentType]


def section_names() -> set[str]:
    """Return the names of the sections: data, model, trainer and fabric."""
    hints = get_type_hints(TrainConfig)
    return {
        field.name for field in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(hints[field.name])
    }


def check_names(
    names: Collection[str], where: str = "", dashes: str = "", flags: Collection[str] = ()
) -> None:
    """Raise if a name is not that of an option.

    Args:
        names: Dotted names.
        where: What the message begins with.
        dashes: ``"--"`` for names on the command line.
        flags: Other names that are known.

    Raises:
        ValueError: With the most similar option.
    """
    known = {*option_names(), *flags}
    for name in names:
        if name not in known:
            name = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
            hint = nearest(name, [f"{dashes}{other}" for other in sorted(known)]).replace("'", "`")
            raise ValueError(
                f"{where}`{dashes}{name}` is not an option.{hint or ' See pyg-schnet train --help.'}"
            )


def _flatten(entries: dict, options: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values in a recipe, without those inside a value (energies by element)."""
    for name, value in entries.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict) and f"{prefix}{name}" not in options:
            yield from _flatten(value, options, f"{prefix}{name}.")


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return a value as the type of its option.

    Raises:
        ValueError: If it is of another type.
    """
    kinds = (hint,) if get_origin(hint) is list else get_args(hint) or (hint,)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    for kind in kinds:
        if kind in (NoneType, bool, str) and isinstance(value, kind):
            return value
        if kind is int and isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        if kind is float and isinstance(value, Real) and not isinstance(value, bool):
            return float(value)
        if (
            kind is float and isinstance(value, str) and _is_number(value)
        ):  # 1e-3, which YAML 1.1 reads as text
            return float(value)
        if get_origin(kind) is list and isinstance(value, list | tuple):
            return [dict(part) if isinstance(part, Mapping) else os.fspath(part) for part in value]
        if get_origin(kind) is dict and isinstance(value, Mapping):
            return dict(value)
    wanted = " or ".join(_TYPE_NAMES[kind] for kind in kinds if kind in _TYPE_NAMES) or "a list"
    raise ValueError(f"`{name}` must be {wanted}, got {value!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
