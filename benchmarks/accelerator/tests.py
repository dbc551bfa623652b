"""The tests that need a GPU, each a row."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.accelerator.rows import FAILED, MEASURED, SKIPPED, Row, Rows, one_line
from benchmarks.accelerator.timing import Settings

ROOT = Path(__file__).parents[2]
_OUTCOMES = {"PASSED": MEASURED, "FAILED": FAILED, "ERROR": FAILED, "SKIPPED": SKIPPED}
_OUTCOME = r"(?P<outcome>PASSED|FAILED|ERROR|SKIPPED)"
_LINES = (  # of one process, and of pytest-xdist
    re.compile(rf"^(?P<file>tests/\S+?)::(?P<name>.+?) {_OUTCOME}(?: \((?P<note>.*)\))?(?:\s+\[\s*\d+%\])?$"),
    re.compile(rf"^\[gw\d+\] \[\s*\d+%\] {_OUTCOME} (?P<file>tests/\S+?)::(?P<name>.+?)(?P<note>)$"),
)
_PROCESSES = "4"  # most of the time is Inductor's


def measure(rows: Rows, settings: Settings) -> None:
    """Run the tests marked ``gpu``, in several processes where pytest-xdist is installed."""
    files = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    )
    if settings.quick:
        files = ["tests/test_gpu.py"]
    options = "-m gpu -v -rf --tb=line -p no:cacheprovider"
    command = [sys.executable, "-m", "pytest", *options.split()]
    if find_spec("xdist") is not None:
        command += ["-n", _PROCESSES]
    process = subprocess.Popen(
        [*command, *files], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    failed, reasons, count = {}, {}, 0
    for line in process.stdout:
        if row := outcome(line):
            row.section = rows.section
            rows.add(row)
            count += 1
            if row.status == FAILED:
                failed[f"{row.variant}::{row.task}"] = row
        elif line.startswith(("FAILED ", "ERROR ")):
            name, _, reason = line.strip().partition(" ")[2].partition(" - ")
            reasons[name] = reason
    for name, row in failed.items():
        row.note = one_line(reasons.get(name, ""))
        rows.add(row)  # again, with its reason, which pytest prints at the end
    if process.wait() not in (0, 1) or count == 0:
        status = SKIPPED if process.returncode == 5 else FAILED
        rows.add(
            Row(rows.section, "tests", "pytest -m gpu", status, note=f"exit status {process.returncode}")
        )


def outcome(line: str) -> Row | None:
    """Return the row of a line of pytest's output; ``None`` if it is of no test."""
    match = next((match for pattern in _LINES if (match := pattern.match(line.strip()))), None)
    if match is None:
        return None
    return Row(
        "", match["name"], match["file"], _OUTCOMES[match["outcome"]], note=one_line(match["note"] or "")
    )
