"""``pyg-schnet train`` as a user starts it, but for the start of Python."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from pyg_schnet.cli import main

ROOT = Path(__file__).parents[2]


class Command:
    """Trains on the ethanol sample, in batches of 32, with all that a run does between the steps.

    Args:
        threads: For ``--trainer.threads``.
        options: Further options, by name.
    """

    def __init__(self, threads: int, **options: str):
        settings = {
            "data.path": ROOT / "datasets/md17/ethanol_gfn2_xtb.npz",
            "data.n_train": 1000,
            "data.n_val": 32,
            "trainer.threads": threads,
            "trainer.val_every": 100_000,
            **options,
        }
        recipe = str(ROOT / "datasets/md17/recipes/own_file.yaml")
        self.arguments = ["train", recipe, "--overwrite", "--quiet"]
        self.arguments += [text for name, value in settings.items() for text in (f"--{name}", str(value))]

    def __call__(self, steps: int) -> float:
        """Train, and give the seconds that it took, reading the file included."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            code = main([*self.arguments, "--trainer.max_steps", str(steps), "--out", f"{folder}/run"])
            if code:
                raise RuntimeError(f"pyg-schnet train ended with exit status {code}")
            return time.perf_counter() - start
