"""Everything that only a GPU can show, in eight minutes: tests, kernels, steps of training, dynamics, memory.

    python benchmarks/gpu.py                      # writes benchmarks/results/gpu.json and docs/benchmarks.md
    python benchmarks/gpu.py --sections box       # some sections alone
    python benchmarks/gpu.py pages                # the section of docs/benchmarks.md alone, from that file
    python benchmarks/gpu.py --device cpu --quick --json numbers.json    # tries the script itself

Each section runs in a process of its own, with a budget of time: a failure, a crash or a time that is up
costs its section alone. Results are compared before they are timed; times are medians by CUDA events, after
warm-up. PyG's SchNet, the same by torch.compile, and SchNetPack, where it is installed, run side by side with
ours, with ready-made edges and equal weights. The exit status is 2 without a GPU, and 1 where anything
failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose `profile.py` the standard library would take for its own
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import json
import os
import platform
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

from benchmarks.accelerator import pages
from benchmarks.accelerator.rows import FAILED, Row, Rows, one_line, read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/gpu.json"
LIMIT = 470.0  # s, of all sections; the rest of eight minutes is for the start and the end
RESERVE = 30.0  # s that a section leaves to each of those after it

# Name: module, function, and budget in s.
SECTIONS = {
    "operations": ("operations", "measure", 80.0),
    "paper-forces": ("steps", "paper_forces", 120.0),
    "large-energies": ("steps", "large_energies", 100.0),
    "box": ("steps", "box", 70.0),
    "dynamics": ("dynamics", "measure", 60.0),
    "tests": ("tests", "measure", 120.0),
    "command": ("steps", "command", 60.0),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the sections, write the numbers, print the table; return the exit code."""
    options = parse(arguments)
    if options.action == "pages":
        pages.write(RESULTS)
        return 0
    import torch

    if options.section:
        run_section(options)
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA device, and PyTorch finds none here", file=sys.stderr)
        return 2
    if not options.device.startswith("cuda") and options.json is None:
        print("`--json` must name a file for numbers of another device than a GPU", file=sys.stderr)
        return 2
    path = options.json or RESULTS
    with tempfile.TemporaryDirectory() as folder:
        rows = run_sections(options, Path(folder), path)
    for table in pages.tables(rows):
        pages.console().print(table)
    print(f"{path}: {summary(rows)}")
    if path == RESULTS:
        pages.write(RESULTS)
    return 0 if all(row.good for row in rows) else 1


def run_sections(options: argparse.Namespace, folder: Path, path: Path) -> list[Row]:
    """Run each section in its process, and write the file again after each."""
    began, rows = time.monotonic(), []
    machine = describe(options.device) | {"seconds": {}}
    for number, name in enumerate(options.sections):
        left = LIMIT - (time.monotonic() - began) - RESERVE * (len(options.sections) - number - 1)
        budget = min(SECTIONS[name][2], left)
        print(f"{name}: at most {max(budget, 0):.0f} s", flush=True)
        start = time.monotonic()
        rows += run_in_process(name, options, folder / f"{name}.jsonl", budget)
        machine["seconds"][name] = round(time.monotonic() - start)
        write(path, machine, rows)
    return rows


def run_in_process(name: str, options: argparse.Namespace, path: Path, budget: float) -> list[Row]:
    """Run a section; what stopped it becomes a row."""
    if budget <= 1:
        return [Row(name, name, "section", FAILED, note="no time was left for it")]
    command = [sys.executable, __file__, "--section", name, "--rows", str(path)]
    command += ["--device", options.device, "--seconds", str(options.seconds)]
    command += ["--quick"] if options.quick else []
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(path.parent / "inductor")}
    with (path.parent / f"{name}.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code = process.wait(budget)
            log.seek(0)
            last = [line for line in log.read().splitlines() if line.strip()][-1:]
            stopped = f"exit status {code}: {''.join(last)}" if code else ""
        except subprocess.TimeoutExpired:
            stopped = f"its {budget:.0f} s were up"
        finally:  # with the processes that it started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows = read(path)
    return [*rows, Row(name, name, "section", FAILED, note=one_line(stopped))] if stopped else rows


def run_section(options: argparse.Namespace) -> None:
    """Measure one section, in this process."""
    import importlib

    import torch

    from benchmarks.accelerator import implementations
    from benchmarks.accelerator.timing import Settings

    module, function, _ = SECTIONS[options.section]
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)  # set_device needs the index
        torch.cuda.set_device(device)
    settings = Settings(device, options.seconds, options.quick)
    if options.quick:
        settings = replace(settings, variants=implementations.QUICK)
    measure = getattr(importlib.import_module(f"benchmarks.accelerator.{module}"), function)
    measure(Rows(options.rows, options.section), settings)


def describe(device: str) -> dict[str, Any]:
    """Describe the machine and the versions."""
    import torch
    import torch_geometric

    where = {"device": device, "processor": platform.machine(), "cores": os.cpu_count()}
    if device.startswith("cuda"):
        where |= {
            "device": torch.cuda.get_device_name(device),
            "driver": driver(),
            "cuda": torch.version.cuda,
        }
    versions = {
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
    }
    date = datetime.now(timezone.utc).date().isoformat()
    return {**where, **versions, "commit": output("git", "rev-parse", "--short", "HEAD"), "date": date}


def driver() -> str:
    """Return the version of NVIDIA's driver."""
    return output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def output(*command: str) -> str:
    """Return what a command prints; "unknown" if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def write(path: Path, machine: dict[str, Any], rows: list[Row]) -> None:
    """Write all that was measured so far."""
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def summary(rows: list[Row]) -> str:
    """Count the rows."""
    bad = sum(not row.good for row in rows)
    skipped = sum(row.status == "skipped" for row in rows)
    return f"{len(rows)} rows, {bad} of them failed, {skipped} skipped"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("action", nargs="?", choices=("run", "pages"), default="run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=0.7, help="of the measurement of each row")
    parser.add_argument(
        "--json", type=Path, help="write the numbers there, and leave docs/benchmarks.md as it is"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: is everything in place?")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
