"""Memory, open files and threads over long runs: do they stay as they are?

Training and dynamics run through the code of the commands, with checkpoints, trajectory, log and restart
file; predictions over one long stream of structures; loading and evaluating again and again in one process.
What is left after garbage collection is sampled 100 times a run. The first quarter is warm-up. After it
memory may grow by 1 MiB in 10,000 steps at most, which is a hundred bytes a step: less than any object or
tensor that a step could leave behind; the slope is Theil and Sen's, the median over all pairs of samples,
so that a jump of the allocator is none. Python's objects may grow by 100 in 10,000 steps, open files and
threads not at all.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import ase.io
import numpy as np
import yaml

from tests.faults import inputs, ledger

NAMES = ("train", "md", "predict", "evaluate")
MOST_MEMORY, MOST_OBJECTS = 1.0, 100.0  # MiB and objects, in 10,000 steps
# safetensors 0.8 itself keeps 1.1 KiB of each file that is opened, and torch some objects until it has all.
OF_LOADING = {"most_memory": 15.0, "most_objects": 1000.0}
_SAMPLES = 100
_WARM_UP = 0.25  # of a run


@dataclass(frozen=True)
class Sample:
    """What the process holds at a step: MiB of memory, files, threads and Python's objects."""

    step: int
    memory: float
    files: int
    threads: int
    objects: int

    @classmethod
    def at(cls, step: int) -> Sample:
        """Take one, by Linux's ``/proc``."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
        return cls(step, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads, len(gc.get_objects()))


@dataclass
class Watch:
    """Samples of a run.

    Args:
        steps: How long it is.
        samples: How many to take.
        most_memory: By which memory may grow, in MiB in 10,000 steps.
        most_objects: The same of Python's objects.
    """

    steps: int
    samples: int = _SAMPLES
    most_memory: float = MOST_MEMORY
    most_objects: float = MOST_OBJECTS
    taken: list[Sample] = field(default_factory=list)

    def __call__(self, step: int, *_: object) -> None:
        """Look at a step, if it is its turn."""
        if step % max(1, self.steps // self.samples) == 0:
            sample = Sample.at(step)
            sample = replace(sample, objects=sample.objects - len(self.taken))  # its own, one a sample
            self.taken.append(sample)

    @property
    def settled(self) -> list[Sample]:
        """Samples after the warm-up."""
        return [sample for sample in self.taken if sample.step >= _WARM_UP * self.steps]

    def slope(self, name: str) -> float:
        """Growth of what a sample holds, in 10,000 steps."""
        steps = np.array([sample.step for sample in self.settled], dtype=float)
        values = np.array([getattr(sample, name) for sample in self.settled], dtype=float)
        first, second = np.triu_indices(len(steps), k=1)
        return 1e4 * float(np.median((values[second] - values[first]) / (steps[second] - steps[first])))

    def complaints(self) -> list[str]:
        """Say what grew."""
        found = []
        for name, unit, most in (
            ("memory", "MiB", self.most_memory),
            ("objects", "objects", self.most_objects),
        ):
            if (slope := self.slope(name)) > most:
                found.append(f"{name} grows by {slope:.2f} {unit} in 10,000 steps")
        for name in ("files", "threads"):
            first, most = getattr(self.settled[0], name), max(getattr(s, name) for s in self.settled)
            if most > first:
                found.append(f"{name} grow from {first} to {most}")
        return found

    def figures(self) -> str:
        """Tell what was measured."""
        last = self.settled[-1]
        return (
            f"{last.memory:.0f} MiB, {self.slope('memory'):+.3f} MiB and {self.slope('objects'):+.1f} "
            f"objects in 10,000; {last.files} open files, {last.threads} threads"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the trial's options."""
    parser.add_argument("--only", choices=NAMES, help="one of them")
    parser.add_argument("--train_steps", type=int, default=20_000)
    parser.add_argument("--md_steps", type=int, default=200_000)
    parser.add_argument("--predictions", type=int, default=50_000, help="structures in one stream")
    parser.add_argument("--evaluations", type=int, default=3000, help="loads and evaluations in one process")


def run(options: argparse.Namespace) -> list[ledger.Entry]:
    """Run all, and tell what grew."""
    lengths: dict[str, tuple[Callable[[Path, Watch, int], None], int, str]] = {
        "train": (train, options.train_steps, "steps"),
        "md": (md, options.md_steps, "steps"),
        "predict": (predict, options.predictions, "structures"),
        "evaluate": (evaluate, options.evaluations, "rounds"),
    }
    entries = []
    for name, (work, steps, unit) in lengths.items():
        if options.only not in (None, name):
            continue
        began = time.monotonic()
        watch = Watch(steps, **(OF_LOADING if name == "evaluate" else {}))
        gc.collect()
        gc.freeze()  # what was imported is not looked at again, which takes a second each time
        with tempfile.TemporaryDirectory(prefix="steadiness-") as folder:
            work(Path(folder), watch, options.seed)
        complaints = watch.complaints()
        for complaint in complaints:
            print(f"{name}: {complaint}")
        minutes = (time.monotonic() - began) / 60
        figures = "; ".join([watch.figures(), *complaints])
        entries.append(
            ledger.Entry("steadiness", name, steps, unit, len(complaints), figures, options.seed, minutes)
        )
        print(ledger.table(entries[-1:]).splitlines()[-1], flush=True)
    return entries


def train(folder: Path, watch: Watch, seed: int) -> None:
    """Train with a validation and a checkpoint every 100 steps."""
    from pyg_schnet.nn import SchNetConfig
    from pyg_schnet.training import DataConfig, Report, TrainConfig, TrainerConfig, train

    class Watched(Report):
        def step(self, step, done, loss) -> None:
            super().step(step, done, loss)
            watch(step)

    content = yaml.safe_load(inputs.recipe(folder, 0).read_text())
    trainer = content["trainer"] | {"max_steps": watch.steps, "val_every": 100, "seed": seed}
    config = TrainConfig(
        DataConfig(**content["data"]),
        SchNetConfig(**content["model"]),
        TrainerConfig(**trainer | {"compile": "auto"}),
        str(folder / "run"),
    )
    train(config, Watched())


def md(folder: Path, watch: Watch, seed: int) -> None:
    """Run ethanol in a bath, with trajectory, log and restart file."""
    from pyg_schnet.simulation import SchNetCalculator, run_md

    atoms = ase.io.read(inputs.start(folder))
    atoms.calc = SchNetCalculator(inputs.model(folder))
    run_md(
        atoms,
        duration=0.5e-3 * watch.steps,
        thermostat="langevin",
        trajectory=folder / "out.extxyz",
        log=folder / "out.csv",
        interval=20,
        seed=seed,
        max_force=None,
        on_step=watch,
    )


def predict(folder: Path, watch: Watch, seed: int) -> None:
    """Predict one long stream of structures."""
    from pyg_schnet.simulation import predict

    frames = ase.io.read(inputs.frames(folder), ":")
    rng = np.random.default_rng(seed)

    def stream() -> Iterator[ase.Atoms]:
        for number in rng.integers(len(frames), size=watch.steps):
            yield frames[number].copy()

    for number, _ in enumerate(predict([inputs.model(folder)], stream(), 32)):
        watch(number)


def evaluate(folder: Path, watch: Watch, seed: int) -> None:
    """Load a checkpoint and a data set and compare them, again and again."""
    from pyg_schnet import load
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.potentials.metrics import evaluate

    model, data = inputs.model(folder), inputs.extxyz(folder, 40)
    for number in range(watch.steps):
        evaluate(load(model), AtomsDataset(path=str(data)), 16)
        watch(number)
