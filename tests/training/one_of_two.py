"""One of two processes that train together: runs the recipes of a file, one after another.

Started twice by test_distributed.py, with the environment that torchrun gives its processes.
"""

import json
import os
import sys
from pathlib import Path

import torch

from pyg_schnet.nn import SchNetConfig
from pyg_schnet.training import DataConfig, FabricConfig, Report, TrainConfig, TrainerConfig, train
from pyg_schnet.training.distributed import ProcessLostError

NOT_FOR_ALL = "only process 0 sees "


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
            train(config, Report(), resume=resume)
            told[name] = "done"
        except (FileNotFoundError, FloatingPointError, ProcessLostError, SystemExit) as error:
            told[name] = f"{type(error).__name__}: {error}"
    path.with_name(f"told{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
