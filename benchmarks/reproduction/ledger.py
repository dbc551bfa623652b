"""The ledger: a row for each number that was measured, in ``datasets/<name>/results.csv``."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pyg_schnet.io.atomic import atomic_write

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """One number.

    Attributes:
        table: ``"table1"``, ``"table2"``, ``"table2-revised"`` or ``"table3"``.
        row: Of the table: a molecule, a number of molecules, a test set.
        column: Of the table: the system, with what it is trained on.
        quantity: ``"energy"``, ``"forces"`` or another property.
        unit: Of the errors.
        n_train: Number of training structures.
        labels: Which labels.
        split: Which split.
        seed: Of weights and order of batches.
        steps: Of training.
        minutes: Of training.
        device: On which it was trained.
        threads: With how many threads.
        commit: Of this repository, at the end of training.
        mae: Mean absolute error on the test set.
        paper: The paper's, if it has one.
    """

    table: str
    row: str
    column: str
    quantity: str
    unit: str
    n_train: int
    labels: str
    split: str
    seed: int
    steps: int
    minutes: float
    device: str
    threads: int
    commit: str
    mae: float
    paper: float | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a later measurement replaces."""
        return self.table, self.row, self.column, self.quantity


def path_of(dataset: str) -> Path:
    """Give the ledger of a data set."""
    return ROOT / "datasets" / dataset / "results.csv"


def read(path: Path) -> list[Entry]:
    """Read a ledger; none is an empty one."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_entry(row) for row in csv.DictReader(file)]


def _entry(row: dict[str, str]) -> Entry:
    kinds = {"int": int, "float": float, "str": str, "float | None": lambda t: float(t) if t else None}
    return Entry(**{field.name: kinds[str(field.type)](row[field.name]) for field in fields(Entry)})


def record(path: Path, entries: list[Entry]) -> None:
    """Put numbers in, in place of earlier ones of the same cell; the file is whole at any time."""
    kept = {entry.key: entry for entry in [*read(path), *entries]}
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        for entry in sorted(kept.values(), key=lambda e: e.key):
            row = asdict(entry)
            writer.writerow({**row, "minutes": f"{entry.minutes:.1f}", "mae": f"{entry.mae:.5g}"})
