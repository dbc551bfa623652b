"""Fuzz the readers by what their code does with an input: atheris keeps inputs that reach new branches.

Needs atheris (``pip install atheris``, for Linux), which is no dependency. Each door is a process of its own.
An input that fails is kept, and the search goes on; one that hangs, or ends the process, ends the search at
its door.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.doors import DOORS
from tests.faults.fuzzing import Tally
from tests.faults.ledger import ROOT, Entry

_PATIENCE = 300  # s beyond its time that a door may take to begin and to end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this trial."""
    parser.add_argument("--minutes", type=float, default=10.0, help="for all doors together")
    parser.add_argument("--doors", nargs="*", choices=list(DOORS), default=list(DOORS), metavar="DOOR")
    parser.add_argument("--keep", type=Path, default=Path("fuzzing"), help="folder of inputs that failed")


def run(options: argparse.Namespace) -> list[Entry]:
    """Search door by door."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("guided fuzzing needs atheris: pip install atheris; `fuzz` does without")
    return [_search(door, options) for door in options.doors]


def _search(door: str, options: argparse.Namespace) -> Entry:
    seconds = max(1, round(60 * options.minutes / len(options.doors)))
    keep = options.keep.absolute() / f"{door.replace(' ', '_')}-guided-{options.seed}"
    begin = time.monotonic()
    with TemporaryDirectory() as made:
        folder = Path(made)
        command = [sys.executable, "-m", "tests.faults.guided_door", door, str(folder), str(keep)]
        command += [str(options.seed), str(seconds)]
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        with (folder / "log.txt").open("w") as log:
            try:
                code = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=seconds + _PATIENCE,
                    check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = -1
        said = (folder / "log.txt").read_text(errors="replace")
        tally = Tally(**json.loads((folder / "tally.json").read_text()))
        if code:
            tally.failures["the process ended"] = [tally.tried]
            print(f"{door}: the process ended with {code}\n{said[-2000:]}")
            _keep_last(door, folder / "last", keep)
    tally.minutes = (time.monotonic() - begin) / 60
    for sort in tally.failures:
        print(f"{door}: {sort}")
    if tally.failures:
        again = shlex.join(["fuzz", "--doors", door, "--again"])
        print(f"  python benchmarks/withstand.py {again} FILE, of those in {keep}")
    print(f"{door}: {tally.tried:,} inputs, {tally.failed} failed", flush=True)
    return _entry(door, tally, said, options.seed)


def _keep_last(door: str, last: Path, keep: Path) -> None:
    """Keep the input that ended the process, if that came of one."""
    for content in (path.read_bytes() for path in last.parent.glob(f"{last.name}*")):
        hurt = DOORS[door].hurt
        keep.mkdir(parents=True, exist_ok=True)
        (keep / hurt[content[0] % len(hurt) if content else 0]).write_bytes(content[1:])


def _entry(door: str, tally: Tally, said: str, seed: int) -> Entry:
    edges = re.findall(r"cov: (\d+) ft: ", said) or ["?"]
    refused = tally.tried - tally.accepted - tally.failed
    figures = (
        f"{tally.accepted:,} read, {refused:,} refused with a clear error; "
        f"edges of our code reached by valid files {edges[0]}, in the end {edges[-1]}"
    )
    return Entry("guided", door, tally.tried, "inputs", tally.failed, figures, seed, tally.minutes)
