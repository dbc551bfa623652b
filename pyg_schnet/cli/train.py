"""The verb ``train``: a potential from energies and forces."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import parser_of
from pyg_schnet.cli.terminal import out


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = parser_of(
        description="Train a potential. Example: pyg-schnet train RECIPE.yaml --data.path FILE --out RUN",
    )
    if full:
        from pyg_schnet.training import TrainConfig

        parser.add_argument("--config", action="config", metavar="RECIPE", help="a recipe, in YAML")
        parser.add_class_arguments(TrainConfig)
        parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
        parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
        parser.add_argument("--quiet", action="store_true", help="show errors only")
    return "train a potential on energies and forces", parser


def run(options: Namespace) -> int:
    """Train a potential."""
    from pyg_schnet.nn import SchNetConfig
    from pyg_schnet.training import DataConfig, Report, TrainConfig, TrainerConfig, train

    config = TrainConfig(
        data=DataConfig(**options.data.as_dict()),
        model=SchNetConfig(**options.model.as_dict()),
        trainer=TrainerConfig(**options.trainer.as_dict()),
        out=options.out,
    )
    train(config, Report(out, options.quiet), options.resume, options.overwrite)
    return 0
