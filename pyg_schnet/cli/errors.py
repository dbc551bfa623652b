"""Messages for errors in the command line: the option, what it requires, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from pyg_schnet.cli.help import display_name, usage_line
from pyg_schnet.io.spelling import nearest

_SHOWN = 200  # characters of a value in a message
_OF_READERS = (
    "units",
    "energy_key",
    "forces_key",
    "stress_key",
)  # arguments of Python and options of commands
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def check_options(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Raise if a command does not have an option; abbreviations are not accepted.

    Raises:
        ValueError: With the most similar option.
    """
    known = [name for action in parser._actions for name in action.option_strings]
    for argument in arguments:
        name = argument.split("=")[0]
        if name.startswith("--") and name != "--" and name not in known:
            shown = [other for other in known if other.startswith("--") and not other.endswith("+")]
            hint = nearest(name, shown).replace("'", "`") or f" See {parser.prog} --help."
            raise ValueError(f"`{name}` is not an option.{hint}")


def name_options(message: str, command: str) -> str:
    """Return the message of a reader with the options of a command in place of arguments of Python."""
    sections = {"train": "data.", **dict.fromkeys(("data", "evaluate", "plot", "report"), "")}
    if command not in sections:
        return message
    return re.sub(rf"`({'|'.join(_OF_READERS)})`", rf"`--{sections[command]}\1`", message)


def explain(error: ArgumentError, parser: ArgumentParser) -> str:
    """Return the message for an error of jsonargparse in the form of all other errors."""
    text = str(error)
    actions = {action.dest: action for action in parser._actions}
    expected = usage_line(parser.prog, parser._actions) if parser.usage is None else parser.usage
    if match := re.match(r"the following arguments are required: (.*)", text):
        dests = match[1].split(", ")
        names = [f"`{display_name(actions[dest]) if dest in actions else dest}`" for dest in dests]
        return f"{_listed(names)} must be given; usage: {expected}"
    if match := re.match(r"unrecognized arguments: (.*)", text):
        return f"`{match[1]}` is one argument too many; usage: {expected}"
    if match := re.match(r"argument (\S+?)(?:/\S+)?: expected (?:one|at least one) argument", text):
        return f"`{match[1]}` must be followed by a value"
    if match := re.match(r"argument (\S+?)(?:/\S+)?: ignored explicit argument '(.*)'", text):
        return f"`{match[1]}` must have no value, got '{match[2]}'"
    if (match := re.match(r'Parser key "(\S+)":', text)) and match[1] in actions:
        value = re.search(r"(?:Got value|Given value): (.*)", text)
        kinds = _type_names(getattr(actions[match[1]], "_typehint", actions[match[1]].type))
        if value is not None and kinds:
            return (
                f"`{display_name(actions[match[1]])}` must be {' or '.join(kinds)}, got '{value[1][:_SHOWN]}'"
            )
        return f"`{display_name(actions[match[1]])}` is wrong: {' '.join(text[match.end() :].split())[:1000]}"
    return text[:4000]


def _type_names(hint: Any) -> list[str]:
    """Return names of the types that an option accepts; empty if there are none for them."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [_TYPE_NAMES[part] for part in parts] if all(part in _TYPE_NAMES for part in parts) else []


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
