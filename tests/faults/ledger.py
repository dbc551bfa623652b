"""The ledger of faults, ``benchmarks/results/faults.csv``, and the tables made from it."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from pathlib import Path

from pyg_schnet.io.atomic import atomic_write

ROOT = Path(__file__).parents[2]
PATH = ROOT / "benchmarks" / "results" / "faults.csv"
_MOST_ROWS = 6


def _commit() -> str:
    """Name the commit, and say whether something is changed since but what the ledger writes."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    own = [f":!{path.relative_to(ROOT)}" for path in (PATH, *PAGES)]
    changed = git("diff", "--quiet", "HEAD", "--", ".", *own).returncode == 1
    return (git("describe", "--always").stdout.strip() or "unknown") + ("-dirty" if changed else "")


@dataclass(frozen=True)
class Entry:
    """What one kind of fault did to one part of the program.

    Attributes:
        trial: ``"kills"``, ``"fuzz"``, ``"steadiness"``, …: a module of this package.
        subject: What was hurt, as ``"train"``.
        tried: How often.
        unit: Of ``tried``, as ``"kills"``.
        failed: How often something was lost, went on wrongly or ended without a clear message.
        figures: What was measured beside it, in words.
        seed: Of the random choices.
        minutes: How long it took.
        commit: Of this repository.
        day: When.
        machine: Where.
    """

    trial: str
    subject: str
    tried: int
    unit: str
    failed: int
    figures: str
    seed: int
    minutes: float
    commit: str = field(default_factory=_commit)
    day: str = field(default_factory=lambda: date.today().isoformat())
    machine: str = field(default_factory=lambda: f"{platform.machine()}, {os.cpu_count()} cores")

    @property
    def key(self) -> tuple[str, str]:
        """What a later trial replaces."""
        return self.trial, self.subject


def read(path: Path = PATH) -> list[Entry]:
    """Read the ledger; none is an empty one."""
    if not path.exists():
        return []
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Entry(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(Entry)})
            for row in csv.DictReader(file)
        ]


def record(entries: Sequence[Entry], path: Path = PATH) -> None:
    """Put trials in, in place of earlier ones of the same key; the file is whole at any time."""
    kept = {entry.key: entry for entry in [*read(path), *entries]}
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        for entry in sorted(kept.values(), key=lambda e: e.key):
            writer.writerow({**asdict(entry), "minutes": f"{entry.minutes:.1f}"})


def table(entries: Sequence[Entry]) -> str:
    """Lay trials out in Markdown."""
    lines = [
        "| fault | where | tried | failed | measured | seed, minutes, commit |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *_rows(entries)]) + "\n"


def _rows(entries: Sequence[Entry]) -> list[str]:
    lines = []
    for entry in entries:
        made = f"{entry.seed}, {entry.minutes:.1f}, {entry.commit}"
        tried = f"{entry.tried:,} {entry.unit}"
        lines.append(
            f"| {entry.trial} | {entry.subject} | {tried} | {entry.failed:,} | {entry.figures} | {made} |"
        )
    return lines


def with_tables(text: str, entries: Sequence[Entry]) -> str:
    """Replace what stands between ``<!-- faults -->``, or ``<!-- faults kills -->``, and ``<!-- end -->``."""

    def filled(mark: re.Match[str]) -> str:
        own = [entry for entry in entries if mark[2] in ("", entry.trial)]
        return f"{mark[1]}\n{table(own) if not mark[2] else table_of_trial(own)}<!-- end -->"

    return re.sub(r"(<!-- faults ?(\w*) -->)\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


def table_of_trial(entries: Sequence[Entry]) -> str:
    """Lay the entries of one trial out in Markdown."""
    lines = ["| where | tried | failed | measured | seed, minutes, commit |", "|---" * 5 + "|"]
    lines += [
        line.replace(f"| {entry.trial} ", "", 1) for entry, line in zip(entries, _rows(entries), strict=True)
    ]
    return "\n".join(lines) + "\n"


def joined(entries: Sequence[Entry]) -> list[Entry]:
    """Make one row of a trial that has very many: the page has the sum, the log the rows."""
    rows = []
    for trial in dict.fromkeys(entry.trial for entry in entries):
        own = [entry for entry in entries if entry.trial == trial]
        if len(own) <= _MOST_ROWS:
            rows += own
            continue
        rows.append(
            replace(
                own[0],
                subject=f"{len(own)} readers of files",
                tried=sum(entry.tried for entry in own),
                failed=sum(entry.failed for entry in own),
                figures="by reader in benchmarks/LOG.md",
                minutes=sum(entry.minutes for entry in own),
                commit=", ".join(dict.fromkeys(entry.commit for entry in own)),
            )
        )
    return rows


def write_pages() -> None:
    """Put the table between its markers in docs/robustness.md, with sums, and in the log."""
    for page, rows in PAGES.items():
        page.write_text(with_tables(page.read_text(encoding="utf-8"), rows(read())), encoding="utf-8")


PAGES: dict[Path, Callable[[Sequence[Entry]], list[Entry]]] = {
    ROOT / "docs" / "robustness.md": joined,
    ROOT / "benchmarks" / "LOG.md": list,
}
