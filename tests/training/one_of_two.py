"""One of two processes that train together: runs the recipes of a file, one after another.

Started twice by test_distributed.py, with the environment that torchrun gives its processes.
"""

import json
import os
import sys
from pathlib import Path

import torch

from pyg_schnet.nn import SchNetConfig
from pyg_schnet.training import Callback, DataConfig, FabricConfig, Report, TrainConfig, TrainerConfig, train
from pyg_schnet.training.distributed import ProcessLostError

NOT_FOR_ALL = "only process 0 sees "


class StopAfter(Callback):
    """Ends the training after a step or validation; only rank 0 is asked to."""

    def __init__(self, method, step):
        self.when = method, step

    def on_step(self, training, loss):
        self.stop("step", training)

    def on_validation(self, training, metrics):
        self.stop("validation", training)

    def stop(self, method, training):
        if (method, training.step) == self.when:
            training.stop()


def main(path: Path) -> None:
    """Train each recipe, and write what happened beside it."""
    told = {}
    rank = int(os.environ["RANK"])
    for name, (recipe, resume) in json.loads(path.read_text()).items():
        if recipe["data"]["path"].startswith(NOT_FOR_ALL):
            path_here = recipe["data"]["path"].removeprefix(NOT_FOR_ALL) if rank == 0 else "missing.xyz"
            recipe["data"]["path"] = path_here
        config = TrainConfig(
            DataConfig(**recipe["data"]),
            SchNetConfig(**recipe["model"]),
            TrainerConfig(**recipe["trainer"]),
            recipe["out"],
            FabricConfig(**recipe["fabric"]),
        )
        try:
            callbacks = [StopAfter(*recipe["stop"])] if "stop" in recipe else []
            train(config, Report(), resume=resume, callbacks=callbacks)
            told[name] = "done"
        except (FileNotFoundError, FloatingPointError, ProcessLostError, SystemExit) as error:
            told[name] = f"{type(error).__name__}: {error}"
    path.with_name(f"told{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
