"""Hurt files of every kind at random and read them: errors must be clear, and nothing else may happen."""

from __future__ import annotations

import argparse
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults.doors import DOORS
from tests.faults.ledger import Entry
from tests.faults.mutations import mutate
from tests.faults.watched import Outcome, Watched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this trial."""
    parser.add_argument("--minutes", type=float, default=10.0, help="for all doors together")
    parser.add_argument("--inputs", type=int, default=10**9, help="of each door at most")
    parser.add_argument("--doors", nargs="*", choices=list(DOORS), default=list(DOORS), metavar="DOOR")
    parser.add_argument("--keep", type=Path, default=Path("fuzzing"), help="folder of inputs that failed")
    parser.add_argument("--again", type=Path, help="such an input, to be tried again at the one of --doors")
    parser.add_argument("--seconds", type=float, default=10.0, help="that an input may take")


@dataclass
class Tally:
    """What came of the inputs of one door."""

    tried: int = 0
    accepted: int = 0
    slowest: float = 0.0
    memory: int = 0
    failures: dict[str, list[int]] = field(default_factory=dict)  # inputs by what went wrong
    minutes: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count an input; ``tried`` is its number."""
        if outcome.kind == "failed":
            self.failures.setdefault(_sort(outcome), []).append(self.tried)
        self.tried += 1
        self.accepted += outcome.kind == "accepted"
        self.slowest = max(self.slowest, outcome.seconds)
        self.memory = max(self.memory, outcome.memory)

    def entry(self, door: str, seed: int) -> Entry:
        """Give the row of the ledger."""
        figures = (
            f"{self.accepted:,} read, {self.tried - self.accepted - self.failed:,} refused with a clear "
            f"error; slowest {self.slowest:.2f} s, largest {self.memory / 2**20:.0f} MiB"
        )
        return Entry("fuzz", door, self.tried, "inputs", self.failed, figures, seed, self.minutes)

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(map(len, self.failures.values()))


def run(options: argparse.Namespace) -> list[Entry]:
    """Hurt files, door by door."""
    if options.again is not None:
        return _again(options)
    entries = []
    with Watched(options.seconds, doors=options.doors) as child:
        for door in options.doors:
            tally = _trial(door, options, child)
            entries.append(tally.entry(door, options.seed))
            print(f"{door}: {tally.tried:,} inputs, {tally.failed} failed", flush=True)
    return entries


def inputs(door: str, seed: int, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Give hurt files without end, the same for the same seed: where each belongs, and its content."""
    valid = {folder / name: (folder / name).read_bytes() for name in DOORS[door].hurt}
    number = 0
    while True:
        random = Random(f"{seed} {door} {number}")
        path = random.choice(list(valid))
        yield path, mutate(valid[path], path.name, random)
        number += 1


def _trial(door: str, options: argparse.Namespace, child: Watched) -> Tally:
    child.started()  # before the clock
    tally, begin = Tally(), time.monotonic()
    until = begin + 60 * options.minutes / len(options.doors)
    with TemporaryDirectory() as made:
        folder = Path(made)
        DOORS[door].make(folder)
        valid = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        for path, content in inputs(door, options.seed, folder):
            if tally.tried >= options.inputs or time.monotonic() > until:
                break
            path.write_bytes(content)
            outcome = child.enter(door, path)
            if outcome.kind == "failed" and _sort(outcome) not in tally.failures:
                _keep(options, door, tally.tried, path, outcome)
            tally.add(outcome)
            restore(folder, valid)
    tally.minutes = (time.monotonic() - begin) / 60
    return tally


def _sort(outcome: Outcome) -> str:
    """Tell failures of one place and kind from others: only the first of each is kept."""
    return ":".join(outcome.text.split(":")[:3])


def restore(folder: Path, valid: dict[Path, bytes]) -> None:
    """Make the folder as it was."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in valid:
            path.unlink()
    for path, content in valid.items():
        path.write_bytes(content)


def _keep(options: argparse.Namespace, door: str, number: int, path: Path, outcome: Outcome) -> None:
    """Keep an input, and tell how to try it again."""
    place = options.keep / f"{door.replace(' ', '_')}-{options.seed}-{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / path.name).write_bytes(path.read_bytes())
    print(f"{door}: {outcome.text}")
    again = shlex.join(["fuzz", "--doors", door, "--again", str(place / path.name)])
    print(f"  python benchmarks/withstand.py {again}", flush=True)


def _again(options: argparse.Namespace) -> list[Entry]:
    (door,) = options.doors
    tally = Tally()
    with TemporaryDirectory() as folder, Watched(options.seconds) as child:
        DOORS[door].make(Path(folder))
        path = shutil.copy(options.again, folder)
        outcome = child.enter(door, Path(path))
    print(f"{outcome.kind}: {outcome.text}")
    tally.add(outcome)
    return [tally.entry(door, options.seed)]
