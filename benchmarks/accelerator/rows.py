"""Rows of the benchmark on a GPU: what was measured, what failed and what was skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"
_SHOWN = 200  # characters of a reason


@dataclass
class Row:
    """One line of the results.

    Attributes:
        section: Name of the section.
        task: What is computed.
        variant: How, such as "ours, compiled".
        status: "measured", "failed" or "skipped".
        ms: Median time in ms of one step or call.
        megabytes: Peak of the memory that PyTorch allocated on the GPU during a step, in MB (10^6 bytes).
        difference: Largest difference of the results from the reference, relative to its largest value.
        bound: Largest difference that counts as agreement.
        repeats: Whether two runs gave the same bits.
        preparation: Time in s until the first result, which includes compilation.
        note: Reason of a failure or of skipping, or a remark, in one line.
    """

    section: str
    task: str
    variant: str
    status: str = MEASURED
    ms: float | None = None
    megabytes: float | None = None
    difference: float | None = None
    bound: float | None = None
    repeats: bool | None = None
    preparation: float | None = None
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the results are within the bound of the reference's, where both are known."""
        return self.difference is None or self.bound is None or self.difference <= self.bound

    @property
    def good(self) -> bool:
        """Whether nothing failed, differs or varies from run to run."""
        return self.status != FAILED and self.agrees and self.repeats is not False


class Skipped(Exception):
    """A reason not to measure something here."""


class Rows:
    """A file of rows, one JSON object a line, complete after each row.

    Args:
        path: The file; rows are appended.
        section: Name of the section that writes.
    """

    def __init__(self, path: Path, section: str):
        self.path, self.section = path, section

    @contextmanager
    def row(self, task: str, variant: str, only_failure: bool = False) -> Iterator[Row]:
        """Write a row after the body has filled it; an exception becomes the row of a failure.

        Args:
            task: What is computed.
            variant: How.
            only_failure: Whether there is no row unless the body fails, as of preparations.
        """
        row = Row(self.section, task, variant)
        try:
            yield row
        except Skipped as reason:
            row.status, row.note = SKIPPED, one_line(str(reason))
        except Exception as error:  # of any library, in any state: the other rows go on
            row.status, row.note = FAILED, one_line(f"{type(error).__name__}: {error}")
        if row.status == FAILED or not only_failure:
            self.add(row)

    def add(self, row: Row) -> None:
        """Write a row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


Section = Callable[..., None]  # of Rows and Settings


def read(path: Path) -> list[Row]:
    """Read all complete rows, of equal tasks and variants the last.

    A line that was being written as its process ended is left out.
    """
    rows = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []:
        row = Row(**json.loads(line))
        rows[row.task, row.variant] = row
    return list(rows.values())


def one_line(text: str) -> str:
    """Return the first line of a text that says something, shortened."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= _SHOWN else f"{first[: _SHOWN - 1]}…"
