"""Commands that are killed end as if they had not been; and the trial that says so can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
]

# A command that appends to its result without care for what an earlier start left.
SLOPPY = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.faults import kills
from tests.faults.comparison import Lost
from tests.faults.subjects import ModelAdapter

class Sloppy(ModelAdapter):
    def act(self):
        for number in range(40):
            with open("rows.txt", "a") as file:
                file.write(f"{number}\\n")
            time.sleep(0.005)
        return 0

def look(folder):
    return 1

def compare(folder, reference):
    rows = (folder / "rows.txt").read_text().split()
    if rows != (reference / "rows.txt").read_text().split():
        raise Lost(f"{len(rows)} rows")
    return 0.0

subject = Sloppy("predict", "sloppy", [], look, compare)
tally = kills.kill([subject], Path(sys.argv[2]), 6, seed=0, true=0)
assert tally.kills >= 6
print("; ".join(tally.failures))
"""


def trial(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_command_that_loses_and_doubles_rows_is_noticed(tmp_path):
    found = trial("-c", SLOPPY, str(ROOT), str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert "rows | --seed 0 --only predict, round " in found.stdout


@pytest.mark.parametrize("name", ["predict", "process"])
def test_killed_commands_end_as_if_they_had_not_been(tmp_path, name):
    options = ["--dry", "--seed", "5", "--kills", "4", "--true", "0", "--folder", str(tmp_path)]
    found = trial(str(ROOT / "benchmarks" / "withstand.py"), "kills", "--only", name, *options)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"| kills | {name} |" in found.stdout


def test_all_commands_withstand_kills(tmp_path):
    options = ["--dry", "--seed", "6", "--kills", "40", "--folder", str(tmp_path)]
    found = trial(str(ROOT / "benchmarks" / "withstand.py"), "kills", *options)
    assert found.returncode == 0, found.stdout + found.stderr
