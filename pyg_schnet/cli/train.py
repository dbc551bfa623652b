"""The command ``train``: a potential from energies and forces, configured by recipes and options.

Recipes are YAML files of options. Names of classes or of other files in them, which jsonargparse would import
or open, are rejected.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_verbosity, make_parser
from pyg_schnet.io.console import out
from pyg_schnet.io.recipes import find_recipe

if TYPE_CHECKING:
    from pyg_schnet.training import RunDirectory

_FLAGS = {"config", "resume", "overwrite", "quiet", "json", "help", "print_config"}


def build() -> ArgumentParser:
    """Return the parser of the command."""
    from pyg_schnet.training import TrainConfig

    parser = make_parser(
        "Train a potential on energies and forces. A recipe is a YAML file of the options below; options "
        "with a dot are in sections: --trainer.max_steps is the line max_steps in the section trainer. "
        "Options on the command line override the recipe. "
        "pyg-schnet recipes lists the recipes that come with the package. "
        "Example: pyg-schnet train own_file --data.path frames.extxyz --out RUN\n"
        'pyg-schnet train own_file --data.path FILE --data.units "Hartree, Bohr"\n'
        "pyg-schnet train own_file --data.path FILE --init MODEL --out RUN\n"
        "pyg-schnet train RUN/config.yaml --out RUN --resume",
        usage="pyg-schnet train RECIPE [--key value …]",
    )
    parser.add_argument(
        "--config",
        action="config",
        metavar="RECIPE",
        help="the recipe, a name or a file; also the first argument",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    add_verbosity(parser)
    parser.add_class_arguments(TrainConfig)
    for action in parser._actions:
        if action.dest == "print_config":
            action.help, action.metavar = "print all options as a recipe, and exit", ""
        elif action.dest in ("data", "model", "trainer", "fabric"):  # a section in its own file
            action.help = argparse.SUPPRESS
    return parser


def run(options: Namespace) -> int:
    """Train a potential, and return the exit code."""
    from torch import distributed

    from pyg_schnet.cli.training_report import ConsoleReport
    from pyg_schnet.nn import SchNetConfig
    from pyg_schnet.training import DataConfig, FabricConfig, Report, TrainConfig, TrainerConfig, train

    config = TrainConfig(
        data=DataConfig(**options.data.as_dict()),
        model=SchNetConfig(**options.model.as_dict()),
        trainer=TrainerConfig(**options.trainer.as_dict()),
        out=options.out,
        fabric=FabricConfig(**options.fabric.as_dict()),
        init=options.init,
    )
    report = Report() if options.quiet or options.json else ConsoleReport(out)
    run = train(config, report, options.resume, options.overwrite)
    if options.json and (not distributed.is_initialized() or distributed.get_rank() == 0):
        print(json.dumps(_as_dict(run)))
    return 0


def _as_dict(run: RunDirectory) -> dict[str, Any]:
    """Return the output of --json: the files, and the validation errors of the kept potential."""
    from pyg_schnet.potentials.checkpoint import provenance

    rows = run.read_metrics()
    best = provenance(run.model)["validation"] if run.model.exists() else None
    return {
        "out": str(run.path),
        "model": str(run.model),
        "steps": int(rows[-1]["step"]) if rows else 0,
        "best": best,
    }


def with_recipe(arguments: Sequence[str]) -> list[str]:
    """Turn ``RECIPE --a.b c`` into ``--config RECIPE --a.b c``, and check all option names."""
    from pyg_schnet.training.options import check_names, read_recipe, section_names

    entries: dict[str, Any] = {}
    init, after = None, 0
    sections = section_names()
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--config")
    for number, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, equals, value = argument[2:].partition("=")
        check_names([name], dashes="--", flags=_FLAGS)
        if name in sections:
            raise ValueError(f"`--{name}` is a section; pass its options one by one, as --{name}.KEY VALUE")
        if name == "config" and (equals or number + 1 < len(arguments)):
            recipe = find_recipe(value if equals else arguments[number + 1])
            entries = read_recipe(recipe)
            after = number + (1 if equals else 2)
            if equals:
                arguments[number] = f"--config={recipe}"
            else:
                arguments[number + 1] = str(recipe)
        if name == "init" and (equals or number + 1 < len(arguments)):
            init = value if equals else arguments[number + 1]
    return [*arguments[:after], *_options_of_init(init, entries), *arguments[after:]]


def _options_of_init(init: str | None, recipe: dict[str, Any]) -> list[str]:
    """Return arguments for the options that the model to start from defines."""
    if init is None and recipe.get("init") is None:
        return []  # without importing torch
    from pyg_schnet.training.initialization import options_beside

    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in options_beside(init, recipe).items()
    }
    return [f"--{name}={text}" for name, text in texts.items() if name != "init" or init is None]
