"""Time and memory by number of atoms: the default model within 5 Å, energy and forces, ours alone."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks import inputs
from benchmarks.rounds import progress, spec_of
from benchmarks.tasks import TASKS
from benchmarks.workers import Contender, Worker, WorkerError

REFERENCE = 1000  # atoms


@dataclass(frozen=True)
class Line:
    """What one size took with the best number of threads.

    Attributes:
        label: Eager or compiled.
        atoms: The size.
        seconds: Median of a call.
        threads: Best number of threads.
        megabytes: Peak memory of a call.
        error: Why there is nothing.
    """

    label: str
    atoms: int
    seconds: float | None = None
    threads: int | None = None
    megabytes: float | None = None
    error: str = ""


def measure(sizes: list[int], threads: list[int], folder: Path, compiled: bool) -> list[Line]:
    """Measure all sizes, each in fresh processes; edges are found by ours."""
    contenders = [Contender("eager", "ours", variant="search")]
    if compiled:
        contenders.append(Contender("compiled", "ours", variant="compiled search"))
    lines = []
    for atoms in sizes:
        path = folder / f"box{atoms}.npz"
        np.savez(path, **inputs.box(atoms, edges=False))
        for contender in contenders:
            lines.append(_best([_measure(contender, atoms, number, path) for number in threads]))
    progress("")
    return lines


def _measure(contender: Contender, atoms: int, threads: int, path: Path) -> Line:
    progress(f"{atoms:,} atoms, {contender.label}, threads {threads}")
    worker = Worker(contender, threads)
    try:
        worker.ask("limit", megabytes=0.8 * available())  # an error here, and no trouble for others
        worker.ask("prepare", spec=spec_of(TASKS["box"], contender), data=str(path))
        megabytes = worker.ask("memory", repeats=1)["megabytes"]
        seconds = worker.ask("run", repeats=3 if atoms > REFERENCE else 20)["seconds"]
        return Line(contender.label, atoms, statistics.median(seconds), threads, megabytes)
    except WorkerError as error:
        return Line(contender.label, atoms, error=str(error))
    finally:
        worker.stop()


def _best(lines: list[Line]) -> Line:
    measured = [line for line in lines if line.seconds is not None]
    return min(measured, key=lambda line: line.seconds or 0.0) if measured else lines[0]


def available() -> float:
    """Give the memory that is free, in MB."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def table(lines: list[Line]) -> Table:
    """Lay the sizes out, per atom and relative to 1,000 atoms."""
    title = "Default model, cutoff 5 Å, energy + forces, own neighbor search, by number of atoms"
    out = Table(title=title, title_justify="left")
    columns = ("line", "atoms", "ms", "threads", "µs/atom", "to 1,000", "MB", "kB/atom", "to 1,000")
    for column in columns:
        out.add_column(column, justify="left" if column == "line" else "right")
    reference = {line.label: line for line in lines if line.atoms == REFERENCE}
    for line in lines:
        if line.seconds is None or line.megabytes is None:
            out.add_row(line.label, f"{line.atoms:,}", f"failed: {line.error}")
            continue
        time, memory = line.seconds / line.atoms, line.megabytes / line.atoms
        base = reference.get(line.label)
        known = base is not None and base.seconds is not None and base.megabytes is not None
        relative = (
            (f"{time * REFERENCE / base.seconds:.2f}", f"{memory * REFERENCE / base.megabytes:.2f}")
            if known
            else ("", "")
        )
        cells = (f"{line.seconds * 1e3:,.1f}", str(line.threads), f"{time * 1e6:.1f}", relative[0])
        cells += (f"{line.megabytes:,.0f}", f"{memory * 1024:.1f}", relative[1])
        out.add_row(line.label, f"{line.atoms:,}", *cells)
    return out
