"""The directive ``options``: the arguments and options of a command, read from its parser.

``{options} md`` lists all, ``{options} train trainer`` those of a section, ``{options} train -`` the others.
"""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_VALUES = {
    int: "INTEGER",
    float: "NUMBER",
    bool: "true|false",
    str: "TEXT",
    NoneType: "null",
    dict: "{KEY: VALUE}",
}


def select(command: str, section: str | None) -> dict[str, list[argparse.Action]]:
    """Return the arguments and options of a command by the titles under which its help lists them.

    Args:
        command: Name of the command.
        section: Section whose options are returned, ``"trainer"`` for instance; ``"-"`` for those in none;
            all by default.
    """
    parser = import_module(f"pyg_schnet.cli.{command}").build()
    wanted = "" if section == "-" else section
    groups = {}
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and action.dest != "help"
            if wanted is None or action.dest.rpartition(".")[0] == wanted
        ]
        if shown:
            groups[group.title or "options"] = shown
    return groups


def value_of(action: argparse.Action) -> str:
    """Return the placeholder of an option's value, ``"NUMBER"`` for instance; empty for flags."""
    if action.nargs == 0 or not action.option_strings or action.metavar == "":
        return ""
    if action.metavar:
        return f"{action.metavar} …" if action.nargs == "+" else str(action.metavar)
    hint = getattr(action, "_typehint", None) or action.type or str
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = []
    for kind in kinds:
        origin = get_origin(kind) or kind
        names.append("TEXT …" if origin is list else _VALUES.get(origin, "TEXT"))
    names = [name for name in dict.fromkeys(names) if name != "null"]
    return "|".join(names) if names else "null"


def default_of(action: argparse.Action) -> str | None:
    """Return the default of an option as it is typed; ``None`` for flags and where nothing is the default."""
    value: Any = action.default
    if value is None or value == argparse.SUPPRESS or action.nargs == 0 or not action.option_strings:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Options(SphinxDirective):
    """The directive."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the description of the options."""
        command, section = self.arguments[0], self.arguments[1] if len(self.arguments) > 1 else None
        groups = select(command, section)
        if not groups:
            raise self.error(f"`pyg-schnet {command}` has no options in {section}")
        found: list[nodes.Node] = []
        for title, actions in groups.items():
            if len(groups) > 1:
                found.append(nodes.rubric("", title.capitalize()))
            found.append(
                nodes.definition_list("", *(self._item(command, one) for one in actions), classes=["options"])
            )
        return found

    def _item(self, command: str, action: argparse.Action) -> nodes.definition_list_item:
        name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
        value = value_of(action)
        term = nodes.term("", "", nodes.literal("", f"{name} {value}".strip()))
        term["ids"].append(f"{command}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}")
        text = (action.help or "").strip()
        text = text[:1].upper() + text[1:] + ("" if text.endswith((".", "…")) else ".")
        paragraph = nodes.paragraph()
        paragraph += self._inline(text)
        default = default_of(action)
        if default is not None:
            paragraph += [nodes.Text(" Default: "), nodes.literal("", default), nodes.Text(".")]
        return nodes.definition_list_item("", term, nodes.definition("", paragraph))

    def _inline(self, text: str) -> list[nodes.Node]:
        """Return a text whose options, files and quoted values are in a monospaced font."""
        pieces = re.split(
            r"""(--\w[\w.]*\w|"[^"]*"|'[^'\s]+'|\b[\w./]+\.(?:json|npz|csv|yaml|safetensors|png)\b)""", text
        )
        return [nodes.literal("", one) if at % 2 else nodes.Text(one) for at, one in enumerate(pieces) if one]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("options", Options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
