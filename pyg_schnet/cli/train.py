"""The verb ``train``: a potential from energies and forces."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_talk, parser_of
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.training import RunDirectory


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = parser_of(
        "Train a potential on energies and forces. A recipe in YAML holds the options below, those without "
        "dot as they are and the others in sections: a section trainer with a line max_steps for "
        "--trainer.max_steps. Options of the command line win over the recipe's. "
        "Example: pyg-schnet train RECIPE.yaml --data.path frames.extxyz --out RUN\n"
        "pyg-schnet train RECIPE.yaml --out RUN --resume --trainer.max_minutes 60",
        usage="pyg-schnet train RECIPE.yaml [--key value …]",
    )
    if full:
        from pyg_schnet.training import TrainConfig

        parser.add_argument("--config", action="config", metavar="RECIPE", help="a recipe; or give it first")
        parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
        parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
        add_talk(parser)
        parser.add_class_arguments(TrainConfig)
        for action in parser._actions:
            if action.dest == "print_config":
                action.help, action.metavar = "print a recipe of all options, and exit", ""
            elif action.dest in ("data", "model", "trainer", "fabric"):  # a section in a file of its own
                action.help = argparse.SUPPRESS
    return "train a potential on energies and forces", parser


def run(options: Namespace) -> int:
    """Train a potential."""
    from torch import distributed

    from pyg_schnet.nn import SchNetConfig
    from pyg_schnet.training import DataConfig, FabricConfig, Report, TrainConfig, TrainerConfig, train

    config = TrainConfig(
        data=DataConfig(**options.data.as_dict()),
        model=SchNetConfig(**options.model.as_dict()),
        trainer=TrainerConfig(**options.trainer.as_dict()),
        out=options.out,
        fabric=FabricConfig(**options.fabric.as_dict()),
    )
    run = train(config, Report(out, options.quiet or options.json), options.resume, options.overwrite)
    if options.json and (not distributed.is_initialized() or distributed.get_rank() == 0):
        print(json.dumps(_as_dict(run)))
    return 0


def _as_dict(run: RunDirectory) -> dict[str, Any]:
    """Give what --json prints: the files, and the validation of the potential that was kept."""
    from pyg_schnet.potentials.checkpoint import provenance

    rows = run.read_metrics()
    best = provenance(run.model)["validation"] if run.model.exists() else None
    return {
        "out": str(run.path),
        "model": str(run.model),
        "steps": int(rows[-1]["step"]) if rows else 0,
        "best": best,
    }
