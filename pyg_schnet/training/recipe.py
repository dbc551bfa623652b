"""Recipes: YAML files of options, and what their options are called."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import yaml

from pyg_schnet.training.config import TrainConfig


def with_recipe(arguments: list[str]) -> list[str]:
    """Turn ``train RECIPE --a.b c`` into ``train --config RECIPE --a.b c``; check all names."""
    known = set(_names(TrainConfig))
    verb = arguments.index("train")
    if len(arguments) > verb + 1 and not arguments[verb + 1].startswith("-"):
        recipe = Path(arguments[verb + 1])
        if not recipe.is_file():
            raise FileNotFoundError(f"{recipe}: no such recipe; `train` takes a YAML file first")
        try:
            entries = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{recipe}: must be a recipe in YAML; a data file goes to --data.path") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{recipe}: must be YAML: {error}") from None
        if not isinstance(entries, dict):
            raise ValueError(f"{recipe}: must hold options by name, got {type(entries).__name__}")
        values = {name for name in known if not any(other.startswith(f"{name}.") for other in known)}
        for name in _flatten(entries, values):
            _check_name(name, known, f"{recipe}: ")
        arguments[verb + 1 : verb + 2] = ["--config", str(recipe)]
    flags = {"config", "resume", "overwrite", "quiet", "json", "help", "print_config"}
    for argument in arguments:
        if argument.startswith("--"):
            _check_name(argument[2:].split("=")[0], known | flags, dashes="--")
    return arguments


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
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{dashes}{nearest[0]}`?" if nearest else "See pyg-schnet train --help."
        raise ValueError(f"{where}`{dashes}{name}` is not an option. {hint}")
