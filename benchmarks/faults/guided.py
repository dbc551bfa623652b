"""Fuzz the readers by what their code does with an input: atheris keeps inputs that reach new branches.

Needs atheris (``pip install atheris``, for Linux), which is no dependency. Each door is a process of its own;
an input that fails is kept, and the search goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.faults.doors import DOORS
from benchmarks.faults.ledger import ROOT, Entry

_TOO_LONG = 60.0  # s beyond its time, after which a door hangs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this trial."""
    parser.add_argument("--minutes", type=float, default=10.0, help="for all doors together")
    parser.add_argument("--doors", nargs="*", choices=list(DOORS), default=list(DOORS), metavar="DOOR")
    parser.add_argument("--keep", type=Path, default=Path("fuzzing"), help="folder of inputs that failed")


def run(options: argparse.Namespace) -> list[Entry]:
    """Search door by door."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("guided fuzzing needs atheris: pip install atheris; `fuzz` does without")
    return [_door(name, options) for name in options.doors]


def _door(name: str, options: argparse.Namespace) -> Entry:
    seconds = max(1, round(60 * options.minutes / len(options.doors)))
    with TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        keep = options.keep.absolute() / f"{name.replace(' ', '_')}-guided-{options.seed}"
        command = [sys.executable, "-m", "benchmarks.faults.guided_door", name, str(told), str(keep)]
        command += [str(options.seed), str(seconds)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        failed, log = 0, ""
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
                timeout=seconds + _TOO_LONG + 240,
            )  # fmt: skip
            log, failed = done.stderr, int(done.returncode != 0)
        except subprocess.TimeoutExpired as late:
            log, failed = str(late.stderr or ""), 1
        found = json.loads(told.read_text()) if told.exists() else {"tried": 0, "accepted": 0, "failures": {}}
    if failed:
        print(f"{name}: the process ended wrongly\n{log[-2000:]}")
    for text, kept in found["failures"].items():
        print(f"{name}: {text}\n  python benchmarks/withstand.py fuzz --doors {name!r} --again {kept!r}")
    failed += len(found["failures"])
    reached = re.findall(r"cov: (\d+) ft: (\d+)", log)
    first, last = (reached[0][0], reached[-1][0]) if reached else ("?", "?")
    refused = found["tried"] - found["accepted"] - len(found["failures"])
    figures = (
        f"{found['accepted']:,} read, {refused:,} refused with a clear error; edges of our code reached by "
        f"valid files {first}, in the end {last}"
    )
    print(f"{name}: {found['tried']:,} inputs, {failed} failed", flush=True)
    return Entry("guided", name, found["tried"], "inputs", failed, figures, options.seed, seconds / 60)
