"""Train and evaluate a baseline as `pyg-schnet train` and `pyg-schnet evaluate` do it with SchNet.

python -m benchmarks.baselines dtnn train RECIPE --data.path FILE --out RUN
python -m benchmarks.baselines dtnn evaluate RUN/model.safetensors FILE --part test --energy_key U0 --json
"""

from __future__ import annotations

import json
import sys

import torch
from torch import nn

from benchmarks.baselines.dtnn import DTNN
from benchmarks.baselines.enn_s2s import ENNS2S
from benchmarks.baselines.mean import MeanPredictor
from pyg_schnet import Ensemble, load
from pyg_schnet.cli import evaluate as evaluate_verb
from pyg_schnet.cli import train as train_verb
from pyg_schnet.cli.train import with_recipe
from pyg_schnet.cli.training_report import ConsoleReport
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.console import out
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.potentials.model_files import resolve_models
from pyg_schnet.training import DataConfig, Report, TrainConfig, TrainerConfig, train
from pyg_schnet.training.trained_data import read_part

MODELS = {"dtnn": DTNN, "enn-s2s": ENNS2S, "mean": MeanPredictor}


def main(arguments: list[str]) -> int:
    """Run ``MODEL train …`` or ``MODEL evaluate …``."""
    if len(arguments) < 2 or arguments[0] not in MODELS or arguments[1] not in ("train", "evaluate"):
        print(__doc__, file=sys.stderr)
        return 2
    name, verb, *rest = arguments
    return {"train": _train, "evaluate": _evaluate}[verb](name, rest)


def make(name: str, seed: int) -> nn.Module:
    """Make a baseline with weights of its own."""
    torch.manual_seed(seed)
    return MODELS[name]()


def _train(name: str, arguments: list[str]) -> int:
    options = train_verb.build().parse_args(with_recipe(arguments))
    trainer = TrainerConfig(**options.trainer.as_dict())
    config = TrainConfig(data=DataConfig(**options.data.as_dict()), trainer=trainer, out=options.out)
    report = Report() if options.quiet else ConsoleReport(out)
    train(config, report, options.resume, options.overwrite, make(name, trainer.seed))
    return 0


def _evaluate(name: str, arguments: list[str]) -> int:
    options = evaluate_verb.build().parse_args(arguments)
    models = resolve_models(options.model)
    potential = (
        load(models[0], model=make(name, 0))
        if len(models) == 1
        else Ensemble.load(models, make=lambda: make(name, 0))
    )
    dataset = AtomsDataset(
        path=options.file,
        energy_key=options.energy_key,
        forces_key=options.forces_key,
        memory_map=options.file.endswith(".safetensors"),
    )
    if options.part is not None:
        dataset = dataset[read_part(models, options.part, options.file, len(dataset))]
    print(json.dumps(evaluate(potential, dataset, options.batch_size).as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
