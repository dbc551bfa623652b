"""Recipes: YAML files of options, and what their options are called.

What stands in them are values and nothing else: no tags that make objects, no aliases, which turn kilobytes
into gigabytes, and no names of classes or other files, which jsonargparse would import or open.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pyg_schnet.io.spelling import nearest
from pyg_schnet.training.config import TrainConfig

_INSTALLED = Path(__file__).parents[1] / "datasets" / "recipes"  # filled by the wheel, see pyproject.toml
_CHECKOUT = Path(__file__).parents[2] / "datasets"
_LARGEST = 2**20  # bytes
_DEEPEST = 20  # sections within sections
_SHOWN = 100  # characters of a name in a message
# What PyYAML raises, also of numbers with thousands of digits, of names that are lists, and of deep nesting.
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError)


def named_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by their names."""
    folder, pattern = (_INSTALLED, "*/*.yaml") if _INSTALLED.is_dir() else (_CHECKOUT, "*/recipes/*.yaml")
    return {path.stem: path for path in sorted(folder.glob(pattern))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given by its path or, if it comes with the package, by its name.

    Args:
        name: A file, ``"own_file"``, or the path that the recipe has in a clone of the repository,
            ``"datasets/md17/recipes/own_file.yaml"``, wherever the command runs.

    Raises:
        FileNotFoundError: If there is neither; it lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = named_recipes()
    in_clone = path.parts[:1] == ("datasets",) and path.parts[2:3] == ("recipes",)
    if (path.name == name or in_clone) and path.stem in known and path.suffix in ("", ".yaml"):
        return known[path.stem]
    raise FileNotFoundError(
        f"{name}: no such recipe; give a YAML file, or one of {', '.join(known)}.{nearest(path.stem, known)}"
    )


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
            recipe = find_recipe(value if given else arguments[number + 1])
            _check_recipe(recipe, known, sections)
            if given:
                arguments[number] = f"--config={recipe}"
            else:
                arguments[number + 1] = str(recipe)
    return arguments


def read_yaml(path: Path, largest: int = _LARGEST) -> Any:
    """Read a file of YAML that holds values only.

    Args:
        path: The file.
        largest: How many bytes it may have.

    Raises:
        ValueError: If it is no YAML, if it is large, if it has tags or aliases, or a name twice.
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
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: must be a text in YAML; a data file goes to --data.path") from None
    except _NO_YAML as error:
        raise ValueError(f"{path}: must be YAML: {str(error)[:1000]}") from None


class _Loader(yaml.SafeLoader):
    """Loads values, and refuses a name that stands twice in a section: the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in names.items():
            if times > 1:
                raise yaml.YAMLError(f"it must have each name once in a section, got `{name[:_SHOWN]}` twice")
        return super().construct_mapping(node, deep)


def _check_recipe(recipe: Path, known: set[str], sections: set[str]) -> None:
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
        hint = nearest(name, [f"{dashes}{other}" for other in sorted(known)]).replace("'", "`")
        raise ValueError(
            f"{where}`{dashes}{name}` is not an option.{hint or ' See pyg-schnet train --help.'}"
        )
