"""Recipes: YAML files of options, and what their options are called.

What stands in them are values and nothing else: no tags that make objects, no aliases, which turn kilobytes
into gigabytes, and no names of classes or other files, which jsonargparse would import or open.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pyg_schnet.training.config import TrainConfig

_LARGEST = 2**20  # bytes
_DEEPEST = 20  # sections within sections
_SHOWN = 100  # characters of a name in a message
# What PyYAML raises, also of numbers with thousands of digits, of names that are lists, and of deep nesting.
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError)


def with_recipe(arguments: list[str]) -> list[str]:
    """Turn ``train RECIPE --a.b c`` into ``train --config RECIPE --a.b c``; check all names."""
    known = set(_names(TrainConfig))
    sections = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
    verb = arguments.index("train")
    if len(arguments) > verb + 1 and not arguments[verb + 1].startswith("-"):
        arguments[verb + 1 : verb + 2] = ["--config", arguments[verb + 1]]
    flags = {"config", "resume", "overwrite", "quiet", "json", "help", "print_config"}
    for number, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, given, value = argument[2:].partition("=")
        _check_name(name, known | flags, dashes="--")
        if name in sections:
            raise ValueError(f"`--{name}` is a section; give its options one by one, as --{name}.KEY VALUE")
        if name == "config" and (given or number + 1 < len(arguments)):
            _check_recipe(Path(value if given else arguments[number + 1]), known, sections)
    return arguments


def read_yaml(path: Path, largest: int = _LARGEST) -> Any:
    """Read a file of YAML that holds values only.

    Args:
        path: The file.
        largest: How many bytes it may have.

    Raises:
        ValueError: If it is no YAML, if it is large, or if it has tags or aliases.
    """
    if not path.is_file() or path.stat().st_size > largest:
        raise ValueError(f"{path}: must be a text in YAML of at most {largest:,} bytes, got something else")
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("it must have no aliases (*name); write the values out")
            if depth > _DEEPEST:
                raise yaml.YAMLError(f"it must be nested {_DEEPEST} times at most")
        return yaml.safe_load(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: must be a text in YAML; a data file goes to --data.path") from None
    except _NO_YAML as error:
        raise ValueError(f"{path}: must be YAML: {str(error)[:1000]}") from None


def _check_recipe(recipe: Path, known: set[str], sections: set[str]) -> None:
    if not recipe.is_file():
        raise FileNotFoundError(f"{recipe}: no such recipe; `train` takes a YAML file first")
    entries = read_yaml(recipe)
    if not isinstance(entries, dict):
        raise ValueError(f"{recipe}: must hold options by name, got {type(entries).__name__}")
    for name in _flatten(entries, known - sections):
        _check_name(name, known, f"{recipe}: ")
    for name in sections:
        if not isinstance(section := entries.get(name, {}), dict):
            got = type(section).__name__
            raise ValueError(
                f"{recipe}: `{name}` must hold options by name, got {got}; other files are not read"
            )


def _names(config: type, prefix: str = "") -> Iterator[str]:
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        yield prefix + field.name
        if dataclasses.is_dataclass(types[field.name]):
            yield from _names(types[field.name], f"{prefix}{field.name}.")


def _flatten(entries: dict, values: set[str], prefix: str = "") -> Iterator[str]:
    """Give the names in a recipe; not those inside of an option's value, as of energies by element."""
    for name, value in entries.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and f"{prefix}{name}" not in values:
            yield from _flatten(value, values, f"{prefix}{name}.")


def _check_name(name: str, known: set[str], where: str = "", dashes: str = "") -> None:
    if name not in known:
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{dashes}{nearest[0]}`?" if nearest else "See pyg-schnet train --help."
        raise ValueError(f"{where}`{dashes}{name}` is not an option. {hint}")
