"""Kill -9 at random moments, and the same command again: does it end as if it had never been killed?

Each subject first runs undisturbed, which is the reference and gives its length. Then rounds begin in new
folders: the same command is started, killed, and started again until it ends. Half of the kills come at a
moment drawn over the whole length, the others as soon as the files were seen to change for the n-th time, n
drawn. Most starts are forks of this process, which has all imported; some are the true command. Meanwhile
another process reads all files, which must be whole whenever they have their final names.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.faults import killing, ledger, server
from tests.faults.comparison import Lost
from tests.faults.killing import Ending, Reader, When
from tests.faults.subjects import ModelAdapter, subjects

NAMES = ("download", "process", "train", "predict", "md")
_MOST_IN_A_ROUND = 12  # then it may end
_TRUE = 0.1  # part of the starts that are the true command
_BYTES_A_SECOND = 1e6


@dataclass
class Tally:
    """What became of a subject.

    Attributes:
        kills: How many came before the command had ended.
        at_writes: Of these, as files were seen to change.
        true: Of these, of the true command.
        rounds: Commands that were repeated until they ended.
        files: How often a file was read meanwhile.
        difference: The largest of a number from the undisturbed run's, in eV, eV/Å or Å.
        failures: What was lost, in words, with how to do it again.
    """

    kills: int = 0
    at_writes: int = 0
    true: int = 0
    rounds: int = 0
    files: int = 0
    difference: float = 0.0
    failures: list[str] = field(default_factory=list)

    def entry(self, name: str, seed: int, minutes: float) -> ledger.Entry:
        equal = "to the bit" if self.difference == 0 else f"to {self.difference:.0e} (eV, Å)"
        figures = (
            f"{self.rounds} runs, each equal to an undisturbed one {equal}; {self.at_writes} kills amid "
            f"writes, {self.true} of the true command; files read meanwhile {self.files:,} times, all whole"
        )
        if self.failures:
            figures = f"{self.rounds} runs; {len(self.failures)} with losses"
        return ledger.Entry("kills", name, self.kills, "kills", len(self.failures), figures, seed, minutes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the trial's options."""
    parser.add_argument("--kills", type=int, default=200, help="of all subjects together, at least")
    parser.add_argument("--only", choices=NAMES, help="one subject")
    parser.add_argument("--true", type=float, default=_TRUE, help="part of the starts that are no forks")
    parser.add_argument("--folder", type=Path, help="where; folders of failures are kept there")


def run(options: argparse.Namespace) -> list[ledger.Entry]:
    """Kill all subjects, and tell what was lost."""
    names = NAMES if options.only is None else (options.only,)
    each = -(-options.kills // len(names))
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kills-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    with _serving(folder) as port:
        made = subjects(folder, options.only, lambda name: f"http://127.0.0.1:{port}/{name}")
        gc.collect()
        gc.freeze()
        for name in names:
            began = time.monotonic()
            variants = [subject for subject in made if subject.name == name]
            tally = kill(variants, folder / name, each, options.seed, options.true)
            for failure in tally.failures:
                print(f"{name}: {failure}")
            entries.append(tally.entry(name, options.seed, (time.monotonic() - began) / 60))
            print(ledger.table(entries[-1:]).splitlines()[-1], flush=True)
    if not any(entry.failed for entry in entries) and options.folder is None:
        shutil.rmtree(folder)
    return entries


def kill(variants: list[ModelAdapter], folder: Path, kills: int, seed: int, true: float = _TRUE) -> Tally:
    """Kill a subject so often, its variants in turn, and finish what was begun.

    Args:
        variants: Of one name.
        folder: Which is made; folders of failures stay.
        kills: At least how many.
        seed: Of all that is random.
        true: Part of the starts that are the true command.
    """
    tally = Tally()
    known = [
        _Reference.of(variant, folder / f"reference_{k}", true > 0) for k, variant in enumerate(variants)
    ]
    for number in range(10 * kills):
        if tally.kills >= kills:
            break
        place = number % len(variants)
        here = folder / f"round_{number}"
        rng = np.random.default_rng([seed, NAMES.index(variants[0].name), number])
        story: list[str] = []
        try:
            _round(variants[place], known[place], here, rng, true, tally, story)
        except Lost as lost:
            again = f"--seed {seed} --only {variants[place].name}, round {number} ({variants[place].variant})"
            tally.failures.append(f"{lost} | {again}: {', '.join(story)}; see {here}")
        else:
            shutil.rmtree(here)
        tally.rounds += 1
    return tally


@dataclass(frozen=True)
class _Reference:
    """An undisturbed run: its folder, and how it ended as a fork and as the true command."""

    folder: Path
    forked: Ending
    true: Ending | None

    @classmethod
    def of(cls, subject: ModelAdapter, folder: Path, true: bool) -> _Reference:
        endings = []
        for here in (folder, folder.with_name(f"{folder.name}_true"))[: 1 + true]:
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(parents=True)
            endings.append(_start(subject, here, true=here is not folder))
            if endings[-1].code != 0:
                told = _output(here).read_text()[-800:]
                raise RuntimeError(f"{subject.name}, undisturbed: exit code {endings[-1].code}: {told}")
            subject.look(here)
        if true:
            subject.compare(here, folder)
        return cls(folder, endings[0], endings[1] if true else None)


def _round(
    subject: ModelAdapter,
    known: _Reference,
    folder: Path,
    rng: np.random.Generator,
    true: float,
    tally: Tally,
    story: list[str],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    complaints = folder.with_name(f"{folder.name}.complaints")
    complaints.unlink(missing_ok=True)
    with Reader(lambda: subject.look(folder), complaints) as reader:
        for attempt in range(_MOST_IN_A_ROUND + 1):
            is_true = known.true is not None and rng.random() < true
            usual = known.true if is_true and known.true is not None else known.forked
            when = _moment(usual, rng) if attempt < _MOST_IN_A_ROUND else None
            ending = _start(subject, folder, when, is_true, attempt)
            story.append(f"{when}{' of the true command' if is_true else ''}")
            if ending.code is not None:
                break
            tally.kills += 1
            tally.at_writes += when is not None and when.writes < float("inf")
            tally.true += is_true
            try:
                subject.look(folder)
            except Exception as error:
                raise Lost(f"after a kill: {type(error).__name__}: {error}") from error
    tally.files += reader.files
    if ending.code != 0:
        raise Lost(f"exit code {ending.code}: {_output(folder).read_text()[-800:]}")
    if complaints.exists() and (text := complaints.read_text().strip()):
        raise Lost(f"while it was written, a file was not whole: {text.splitlines()[-1]}")
    complaints.unlink(missing_ok=True)
    tally.difference = max(tally.difference, subject.compare(folder, known.folder))
    _output(folder).unlink(missing_ok=True)


def _moment(usual: Ending, rng: np.random.Generator) -> When:
    """Draw the moment of a kill: over the whole length, or at any of the writes."""
    if rng.random() < 0.5:
        return When(seconds=float(rng.uniform(0, usual.seconds)))
    return When(writes=int(rng.integers(1, max(2, usual.writes + 1))))


def _start(
    subject: ModelAdapter, folder: Path, when: When | None = None, true: bool = False, attempt: int = 0
) -> Ending:
    output = _output(folder)
    if true:
        number = killing.launch(subject.command(), folder, output)
    else:
        number = killing.fork(subject.act, folder, output, attempt)
    return killing.wait(number, folder, when)


def _output(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.output")


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    """Serve the files of ``folder / "served"`` from a process of its own; gives the port."""
    own = server.make(folder / "served", _BYTES_A_SECOND, cut_every=7)
    number = killing.fork(lambda: own.serve_forever() or 0, Path("/"), folder / "server.output")
    try:
        yield own.server_address[1]
    finally:
        own.server_close()
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
