"""The tests that need a GPU, each a row."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.accelerator.rows import FAILED, MEASURED, SKIPPED, Row, Rows, one_line
from benchmarks.accelerator.timing import Settings

ROOT = Path(__file__).parents[2]
_OUTCOMES = {"PASSED": MEASURED, "FAILED": FAILED, "ERROR": FAILED, "SKIPPED": SKIPPED}
_LINE = re.compile(r"^(tests/\S+?)::(.+?) (PASSED|FAILED|ERROR|SKIPPED)(?: \((.*)\))?(?:\s+\[\s*\d+%\])?$")


def measure(rows: Rows, settings: Settings) -> None:
    """Run the tests marked ``gpu``; those that fail are written at the end, with their reasons."""
    files = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    )
    if settings.quick:
        files = ["tests/test_gpu.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-v",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        "-rf",
    ]
    process = subprocess.Popen(
        [*command, *files], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    failed, reasons, count = {}, {}, 0
    for line in process.stdout:
        if match := _LINE.match(line.strip()):
            row = outcome(match)
            row.section = rows.section
            if row.status == FAILED:
                failed[f"{match[1]}::{match[2]}"] = row
            else:
                rows.add(row)
            count += 1
        elif line.startswith(("FAILED ", "ERROR ")):
            name, _, reason = line.strip().partition(" ")[2].partition(" - ")
            reasons[name] = reason
    for name, row in failed.items():
        row.note = one_line(reasons.get(name, ""))
        rows.add(row)
    if process.wait() not in (0, 1) or count == 0:
        status = SKIPPED if process.returncode == 5 else FAILED
        rows.add(
            Row(rows.section, "tests", "pytest -m gpu", status, note=f"exit status {process.returncode}")
        )


def outcome(match: re.Match) -> Row:
    """Return the row of a line of pytest's output."""
    name = match[2].removeprefix("test_").replace("_", " ")
    return Row("", name, match[1], _OUTCOMES[match[3]], note=one_line(match[4] or ""))
