"""The floor: the time that a step needs on this machine if only its arithmetic and its memory traffic count.

Counted is our algorithm: filters from a table that is made once a step (quintic, a knot each 0.03 Å),
every pair of atoms evaluated once.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tasks import MODELS, Task

ROOT = Path(__file__).parents[1]
SPACING = 0.03  # Å, of the knots
TERMS = 6  # of a quintic interpolant

# Products of a dense layer's size: one forward, one for the forces, and two for each of them backward.
PASSES = {
    ("train", True): 6,
    ("train", False): 3,
    ("infer", True): 2,
    ("dynamics", True): 2,
    ("replicas", True): 2,
}


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a step."""

    operations: float
    bytes: float

    def seconds(self, rates: dict[int, dict[str, float]]) -> float:
        """Give the time at the best rates: the longer of arithmetic and traffic, which overlap."""
        gemm = max(max(rate["gemm_small"], rate["gemm_large"]) for rate in rates.values())
        copy = max(rate["copy"] for rate in rates.values())
        return max(self.operations / gemm, self.bytes / copy)


def count(task: Task, arrays: dict[str, np.ndarray]) -> Work:
    """Count what a step of a task needs.

    Dense layers: 3 of F x F in each interaction and F x F/2 in the readout, ``PASSES`` times. The table:
    K x G x F and K x F x F for each interaction, in training alone, forward and backward; a frozen one costs
    nothing. Pairs: interpolating, and multiplying and adding both ways, in each pass. Bytes: the features
    read and written by each layer and convolution, the table, and in training seven numbers a weight (of
    weight, gradient and Adam's two averages, read and written). Pairs are assumed not to touch the memory.
    """
    model = MODELS[task.model]
    features, interactions = model["hidden_channels"], model["num_interactions"]
    atoms, passes = len(arrays["z"]), PASSES[task.kind, task.forces]
    source, target = arrays["edge_index"]
    pos = arrays["pos"][0]
    distance = np.linalg.norm(pos[source] - pos[target], axis=1)
    knots = math.ceil((distance.max() - distance.min()) / SPACING) + TERMS
    centers = model["num_gaussians"] * min(1.0, distance.max() / model["cutoff"]) + 4
    training = task.kind == "train"

    dense = 2 * atoms * features**2 * (3 * interactions + 0.5) * passes
    table = 2 * knots * features * (2 * centers + 3 * features) * interactions * training
    pairs = len(source) / 2 * features * interactions * passes * (2 * TERMS + 4)
    weights = interactions * features * (centers + 4 * features + 4) + features**2 / 2
    traffic = (
        2 * atoms * features * 4 * interactions * passes + 3 * knots * features * interactions * training
    )
    return Work(dense + table + pairs, 4 * (traffic + 7 * weights * training))


def measure_rates(threads: list[int]) -> dict[int, dict[str, float]]:
    """Measure the machine, in a process for each number of threads."""
    rates = {}
    for number in threads:
        command = [sys.executable, "-m", "benchmarks.peers.machine", str(number)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(number)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        rates[number] = json.loads(done.stdout.splitlines()[-1])
    return rates
