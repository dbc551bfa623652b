"""Fixtures of the training's tests: a smooth analytic potential, and runs of a few steps on it."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from rich.console import Console

from pyg_schnet.cli.training_report import ConsoleReport
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.training import DataConfig, FabricConfig, TrainConfig, TrainerConfig, train

SHAPES = {
    "water": ([8, 1, 1], [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.8, -0.44]]),
    "ammonia": (
        [7, 1, 1, 1],
        [[0.0, 0.0, 0.1], [0.0, 0.95, -0.3], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.3]],
    ),
}


def morse(positions):
    """Energy (kcal/mol) and forces (kcal/mol/Å) of Morse springs between all atoms."""
    energy, forces = np.zeros(len(positions)), np.zeros_like(positions)
    depth, width, length = 80.0, 1.5, 1.1  # kcal/mol, 1/Å, Å
    for i in range(positions.shape[1]):
        for j in range(i):
            vector = positions[:, i] - positions[:, j]
            distance = np.linalg.norm(vector, axis=1)
            decay = np.exp(-width * (distance - length))
            slope = 2 * depth * width * decay * (1 - decay)
            energy += depth * (1 - decay) ** 2
            forces[:, i] -= (slope / distance)[:, None] * vector
            forces[:, j] += (slope / distance)[:, None] * vector
    return energy - 47000.0, forces


@pytest.fixture
def write(tmp_path):
    """Write frames of a molecule, and return the path; arrays are replaced by name, or left out by None."""

    def to_file(name="train.npz", molecule="water", frames=16, seed=0, **changes):
        numbers, shape = SHAPES[molecule]
        noise = np.random.default_rng(seed).normal(size=(frames, len(numbers), 3))
        positions = np.array(shape) + 0.05 * noise
        energy, forces = morse(positions)
        arrays = {"z": np.array(numbers), "R": positions, "E": energy, "F": forces, **changes}
        np.savez(tmp_path / name, **{key: value for key, value in arrays.items() if value is not None})
        return str(tmp_path / name)

    return to_file


@pytest.fixture
def recipe(tmp_path, write):
    """A run of 20 steps on 12 frames, four a batch; options are changed by name."""

    def make(out="run", model=None, data=None, **trainer):
        data = {"path": None, "n_train": 12, "n_val": 4} | (data or {})
        if data["path"] is None:
            data["path"] = write()
        small = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12}
        options = {"max_steps": 20, "batch_size": 4, "val_every": 5, "lr": 1e-2, "ema_decay": 0.9}
        return TrainConfig(
            DataConfig(**data),
            SchNetConfig(**small | {"cutoff": 4.0} | (model or {})),
            TrainerConfig(**options | trainer),
            str(tmp_path / out),
            FabricConfig("cpu"),
        )

    return make


class Recorded(ConsoleReport):
    """A report that keeps what it says, and can be interrupted after a step."""

    def __init__(self, interrupt_after=None):
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=80))
        self.interrupt_after = interrupt_after
        self.losses = []

    def step(self, step, done, loss):
        self.losses.append(loss)
        if step == self.interrupt_after:
            raise KeyboardInterrupt


@pytest.fixture
def run(monkeypatch):
    """Train in silence, and without the picture, which takes longer than the steps."""
    module = sys.modules["pyg_schnet.training.run"]  # as an attribute, the function hides it
    monkeypatch.setattr(module, "plot_learning_curve", lambda rows, path: None)

    def start(config, interrupt_after=None, **kwargs):
        return train(config, Recorded(interrupt_after), **kwargs)

    return start


@pytest.fixture
def report():
    return Recorded
