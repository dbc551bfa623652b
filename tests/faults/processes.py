"""Two processes with a thread each, against one: structures a second of a training on QM9.

Judged is the median of the rounds' ratios. Where other programs take turns on the processors, one process
waits for the other at each step; the fastest hundred steps of each tell what is left without them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.ledger import ROOT, Entry

_BOUND = 1.7  # times the throughput of one
_EVERY = 100  # steps between two looks at the clock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this trial."""
    parser.add_argument("--qm9", type=Path, required=True, help="processed QM9, qm9.safetensors")
    parser.add_argument("--steps", type=int, default=600, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of one process and two, in turn")
    parser.add_argument("--optimizers", nargs="+", default=["adam", "soap"])
    parser.add_argument("--batch_size", type=int, default=32, help="structures a step of one process")


def run(options: argparse.Namespace) -> list[Entry]:
    """Measure each optimizer; the batch grows with the processes, so that each has as much to do as one."""
    entries = []
    for optimizer in options.optimizers:
        began = time.perf_counter()
        rounds = [
            [_structures_a_second(options, optimizer, processes) for processes in (1, 2)]
            for _ in range(options.rounds)
        ]
        tried = options.rounds * options.steps * 2
        ratio, figures = _judged(rounds)
        subject = f"training on QM9, {optimizer}, {options.batch_size} structures a step and process"
        minutes = (time.perf_counter() - began) / 60
        failed = int(ratio < _BOUND)
        entries.append(Entry("processes", subject, tried, "steps", failed, figures, options.seed, minutes))
    return entries


def _judged(rounds: list[list[list[float]]]) -> tuple[float, str]:
    """Give the ratio, and tell it, from the rates of one process and of two in each round."""
    medians = [[statistics.median(rates) for rates in pair] for pair in rounds]
    ratio = statistics.median(two / one for one, two in medians)
    one, two = (statistics.median(column) for column in zip(*medians, strict=True))
    best, of_two = (max(map(max, column)) for column in zip(*rounds, strict=True))
    return ratio, (
        f"{one:,.0f} structures a second by one process, {two:,.0f} by two: {ratio:.2f} times "
        f"(bound {_BOUND}); the fastest {_EVERY} steps {best:,.0f} and {of_two:,.0f}: "
        f"{of_two / best:.2f} times"
    )


def _structures_a_second(options: argparse.Namespace, optimizer: str, processes: int) -> list[float]:
    """Train, and give the rate of each hundred steps."""
    batch = options.batch_size * processes
    with tempfile.TemporaryDirectory() as folder:
        trainer = {
            "max_steps": options.steps,
            "val_every": _EVERY,
            "batch_size": batch,
            "optimizer": optimizer,
            "threads": 1,
            "compile": "true",
            "seed": options.seed,
        }
        command = [sys.executable, "-m", "pyg_schnet.cli", "train", "--data.path", str(options.qm9)]
        command += ["--data.energy_key", "U0", "--data.n_train", "20000", "--data.n_val", "64"]
        command += [f"--trainer.{name}={value}" for name, value in trainer.items()]
        command += [f"--fabric.devices={processes}", "--out", f"{folder}/run", "--quiet"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        subprocess.run(command, env=environment, check=True)
        with open(f"{folder}/run/metrics.csv", newline="", encoding="utf-8") as file:
            minutes = [float(row["minutes"]) for row in csv.DictReader(file)]
    return [batch * _EVERY / (60 * (after - before)) for before, after in itertools.pairwise(minutes)]
