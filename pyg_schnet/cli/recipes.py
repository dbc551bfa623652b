"""The command ``recipes``: the recipes that come with the package, for ``train``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from pyg_schnet.cli.options import make_parser
from pyg_schnet.io.console import out
from pyg_schnet.io.recipes import data_set_of, find_recipe, named_recipes, read_title

_OWN_FILE = "own_file"


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        "List the recipes that come with the package, or print one. A recipe is a YAML file of options of "
        "train; train takes it by its name, or a changed copy by its path. "
        "Example: pyg-schnet recipes\n"
        "pyg-schnet recipes own_file > mine.yaml\n"
        "pyg-schnet train mine.yaml --data.path frames.extxyz --out RUN",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="recipe to print; all are listed without it")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def run(options: Namespace) -> int:
    """List the recipes, or print one."""
    if options.name is not None:
        path = find_recipe(options.name)
        text = path.read_text(encoding="utf-8")
        print(json.dumps({"path": str(path), "text": text}) if options.json else text.rstrip("\n"))
        return 0
    recipes = named_recipes()
    if options.json:
        print(json.dumps({name: {"path": str(p), "title": read_title(p)} for name, p in recipes.items()}))
        return 0
    out.print(_table(recipes), soft_wrap=False)
    out.print(
        "Print one: pyg-schnet recipes NAME\nUse one:   pyg-schnet train NAME --data.path FILE --out RUN"
    )
    return 0


def _table(recipes: Mapping[str, Path]) -> Table:
    """Return names and titles, grouped by the data set, the one for a user's own file first."""
    groups: dict[str, list[str]] = {"your own data": [_OWN_FILE]}
    for name, path in recipes.items():
        if name != _OWN_FILE:
            groups.setdefault(data_set_of(path), []).append(name)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for title, names in groups.items():
        table.add_row(Text(title, style="bold"))
        for name in names:
            table.add_row(f"  {name}", read_title(recipes[name]))
        table.add_row()
    return table
