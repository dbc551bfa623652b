"""Tables of the benchmark on a GPU: on the terminal, and the section of docs/benchmarks.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.accelerator.rows import FAILED, MEASURED, SKIPPED, Row

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = "`python benchmarks/gpu.py`"
UNMEASURED = (
    f"No time was measured on a GPU so far, and none is claimed. {COMMAND} measures everything in eight\n"
    "minutes and writes this section.\n"
)
QM9_STEPS = -(-110_462 // 512)  # of an epoch of the paper's training set
_EPOCH = "QM9, 512, energy, 128 × 6, a training step"
_PYG, _PLAIN = "PyG", "plain PyTorch"
_COLUMNS = (  # of the page, those that were run
    *(_PYG, "PyG, torch.compile", "SchNetPack"),
    *("ours, eager", "ours, compiled", "ours, captured graph", "ours, pyg-schnet train"),
)


def write(results: Path) -> None:
    """Write the page's section from a file of results; that nothing was measured if there is none."""
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), load(results)), encoding="utf-8")


def load(results: Path) -> dict[str, Any] | None:
    """Read a file of results; ``None`` if there is none.

    Raises:
        ValueError: If it was not measured on a GPU.
    """
    if not results.exists():
        return None
    content = json.loads(results.read_text(encoding="utf-8"))
    if "driver" not in content["machine"]:
        raise ValueError(
            f"{results}: must be measured on a GPU for docs/benchmarks.md, "
            f"got '{content['machine'].get('device')}'"
        )
    return content


def with_section(text: str, content: dict[str, Any] | None) -> str:
    """Replace what stands between ``<!-- gpu -->`` and ``<!-- end -->``."""
    return re.sub(
        r"(<!-- gpu -->\n).*?(<!-- end -->)",
        lambda mark: mark[1] + section(content) + mark[2],
        text,
        flags=re.DOTALL,
    )


def section(content: dict[str, Any] | None) -> str:
    """Return the page's section in Markdown."""
    if content is None:
        return UNMEASURED
    rows = [Row(**row) for row in content["rows"]]
    machine = content["machine"]
    where = (
        f"{COMMAND}: {machine['device']}, driver {machine['driver']}, CUDA {machine['cuda']}, torch "
        f"{machine['torch']}, PyG {machine['torch_geometric']}, commit {machine['commit']}, "
        f"{machine['date']}; medians in ms, after results were compared.\n"
    )
    parts = [where, _markdown(rows), *(line + "\n" for line in remarks(rows))]
    return "\n".join(part for part in parts if part)


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return lines on operations, an epoch, tests and failures."""
    lines = []
    ratios = _operation_ratios(rows)
    own = [row for row in rows if row.section == "operations" and row.variant == "ours"]
    if own:
        good = sum(row.good for row in own)
        text = f"Operations: {good} of {len(own)} agree with plain PyTorch and repeat bit by bit"
        if ratios:
            text += f", {min(ratios):.3g} to {max(ratios):.3g} times as fast"
        lines.append(f"{text}.")
    if (best := best_of(rows, _EPOCH)) is not None:
        lines.append(
            f"An epoch of QM9 (128 × 6, batches of 512) takes {QM9_STEPS * best / 1e3:.1f} s, estimated from "
            f"{QM9_STEPS} times the step of {number(best)} ms alone."
        )
    tests = [row for row in rows if row.section == "tests"]
    if tests:
        counts = {
            name: sum(row.status == status for row in tests)
            for name, status in (("passed", MEASURED), ("failed", FAILED), ("skipped", SKIPPED))
        }
        text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        lines.append(f"Tests that need a GPU: {text}.")
    bad = [row for row in rows if not row.good]
    if bad:
        lines.append(f"Failed, {len(bad)} in all:")
        lines[-1] += "".join(f"\n* {row.task}, {row.variant}: {reason(row)}" for row in bad)
    return lines


def best_of(rows: Sequence[Row], task: str) -> float | None:
    """Return the shortest time of ours in ms, of rows that are good."""
    times = [r.ms for r in rows if r.task == task and r.variant.startswith("ours") and r.good and r.ms]
    return min(times, default=None)


def reason(row: Row) -> str:
    """Return what is wrong with a row."""
    if row.status == FAILED:
        return row.note or "failed"
    if not row.agrees:
        return f"results differ by {row.difference:.1e}, bound {row.bound:.0e}"
    return "results differ from run to run"


def remark(row: Row) -> str:
    """Write what there is to say about a row."""
    if not row.good:
        return f"failed: {reason(row)}"
    return f"skipped: {row.note}" if row.status == SKIPPED else row.note


def cell(row: Row | None) -> str:
    """Write a time, or why there is none."""
    if row is None or row.status == SKIPPED or (row.good and row.ms is None):
        return "–"
    if not row.good:
        return "failed" if row.status == FAILED else "differs"
    assert row.ms is not None
    return number(row.ms)


def number(value: float) -> str:
    """Write a number with three digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.task for row in rows if row.variant in _COLUMNS))


def _markdown(rows: Sequence[Row]) -> str:
    found = {(row.task, row.variant): row for row in rows}
    columns = [name for name in _COLUMNS if any(r.variant == name and r.ms for r in rows)]
    lines = []
    for task in _tasks(rows):
        best, theirs = best_of(rows, task), found.get((task, _PYG))
        cells = [cell(found.get((task, name))) for name in columns]
        cells.append(_ratio(theirs, best))
        memory = [
            r.megabytes for r in rows if r.task == task and r.variant.startswith("ours") and r.megabytes
        ]
        peak = None if theirs is None else theirs.megabytes
        cells.append(f"{number(min(memory))}{f' ({number(peak)})' if peak else ''}" if memory else "–")
        lines.append("| " + " | ".join([task, *cells]) + " |")
    if not lines:
        return ""
    titles = ["ms", *columns, "PyG over ours", "MB, ours (PyG)"]
    return "\n".join(["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *lines]) + "\n"


def _ratio(theirs: Row | None, ours: float | None) -> str:
    if theirs is None or theirs.ms is None or not theirs.good or not ours:
        return "–"
    return f"{number(theirs.ms / ours)}×"


def _operation_ratios(rows: Sequence[Row]) -> list[float]:
    times = {(row.task, row.variant): row.ms for row in rows if row.section == "operations" and row.good}
    return [
        plain / ms
        for (task, variant), ms in times.items()
        if variant == "ours" and ms and (plain := times.get((task, _PLAIN)))
    ]


def console() -> Console:
    """Make a console that keeps its width in a pipe."""
    out = Console()
    return out if out.is_terminal else Console(width=150)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Lay all rows out for the terminal, a table for each section."""
    found = []
    for name in dict.fromkeys(row.section for row in rows):
        table = Table(title=name, title_justify="left")
        for column in ("task", "variant", "ms", "MB", "difference", "bits", "first, s", "remark"):
            table.add_column(column, overflow="fold")
        for row in (r for r in rows if r.section == name):
            cells = (
                row.task,
                row.variant,
                "" if row.ms is None else number(row.ms),
                "" if row.megabytes is None else number(row.megabytes),
                "" if row.difference is None else f"{row.difference:.0e}",
                {None: "", True: "same", False: "vary"}[row.repeats],
                "" if row.preparation is None else f"{row.preparation:.1f}",
                remark(row),
            )
            table.add_row(*map(escape, cells))
        found.append(table)
    return found
