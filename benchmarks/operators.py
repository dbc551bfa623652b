"""The operators of a step and their time: what ``profile.py`` prints."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

from benchmarks import inputs
from benchmarks.tables import console
from benchmarks.tasks import TASKS

# Parts of operators' names; the first group that fits counts.
GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear"),
    "optimizer": ("optimizer", "adam", "_foreach"),
    "convolution kernels": ("pyg_schnet", "spline", "convol", "combine_rows", "correlate_rows"),
    "gathering and adding up": ("index", "scatter", "gather", "segment", "embedding"),
    "activations": ("softplus", "sigmoid", "aten::exp", "aten::log", "tanh"),
    "compiled kernels": ("graph_", "inductor", "compiled"),
    "copies and memory": ("copy_", "empty", "zeros", "zero_", "clone", "fill_", "cat", "resize"),
    "other arithmetic": ("aten::",),
}
REST = "Python, autograd and the rest"


class Operator(NamedTuple):
    """Self time, in seconds, and calls of an operator."""

    name: str
    seconds: float
    calls: float


def group_of(name: str) -> str:
    """Name the group of an operator."""
    lowered = name.lower()
    if lowered.startswith(("autograd::", "torch::autograd")):
        return REST
    return next((group for group, parts in GROUPS.items() if any(p in lowered for p in parts)), REST)


def shares(operators: list[Operator], wall: float) -> dict[str, float]:
    """Sum the groups, in seconds a step; the rest is what the wall clock has beyond them."""
    sums = dict.fromkeys(GROUPS, 0.0)
    for operator in operators:
        group = group_of(operator.name)
        if group != REST:
            sums[group] += operator.seconds
    return {**sums, REST: max(wall - sum(sums.values()), 0.0)}


def profile(step: Callable[[], object], steps: int) -> tuple[list[Operator], float]:
    """Profile some steps: operators, the slowest first, and the wall clock, both a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wall = (time.perf_counter() - start) / steps
    operators = [
        Operator(event.key, event.self_cpu_time_total / 1e6 / steps, event.count / steps)
        for event in profiler.key_averages()
    ]
    return sorted(operators, key=lambda operator: -operator.seconds), wall


def operator_table(operators: list[Operator], wall: float, title: str, rows: int) -> Table:
    """Lay out the operators with the most time of their own."""
    table = Table(title=title, title_justify="left")
    for column in ("operator", "self, ms", "calls", "share"):
        table.add_column(column, justify="left" if column == "operator" else "right", max_width=60)
    for operator in operators[:rows]:
        cells = (f"{operator.seconds * 1e3:.3f}", f"{operator.calls:.0f}", f"{operator.seconds / wall:.1%}")
        table.add_row(operator.name, *cells)
    return table


def group_table(groups: dict[str, float], wall: float) -> Table:
    """Lay out the groups."""
    table = Table(title=f"Groups, of {wall * 1e3:.2f} ms a step under the profiler", title_justify="left")
    for column in ("group", "ms", "share"):
        table.add_column(column, justify="left" if column == "group" else "right")
    for name, seconds in sorted(groups.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{seconds * 1e3:.3f}", f"{seconds / wall:.1%}")
    return table


def main() -> None:
    """Profile a task and print."""
    timed = [name for name, task in TASKS.items() if task.kind != "dynamics"]
    parser = argparse.ArgumentParser(description="Where the time of a step goes.")
    parser.add_argument("--task", choices=timed, default="ethanol-train")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="compile the potential")
    parser.add_argument("--search", action="store_true", help="find the edges in each step")
    parser.add_argument("--ethanol", type=Path, help="npz of revised MD17")
    parser.add_argument("--aspirin", type=Path, help="npz of revised MD17")
    options = parser.parse_args()

    from benchmarks.peers import ours, worker  # they set nothing up that --help needs

    torch.set_num_threads(options.threads)
    task = TASKS[options.task]
    arrays, source = inputs.build(task.data, options.ethanol, options.aspirin)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "structures.npz")
        np.savez(path, **arrays)
        variant = "search" if options.search else ""
        timer = worker.Worker(ours.Peer)
        timer.prepare({**task.spec(), "variant": variant, "compile": options.compile}, path)
    assert timer.step is not None
    median = float(np.median(timer.run(options.steps, warm_up=8)["seconds"]))
    operators, wall = profile(timer.step, options.steps)
    out = console()
    out.print(operator_table(operators, wall, f"{task.title}: operators, a step", options.rows))
    out.print(group_table(shares(operators, wall), wall))
    out.print(f"{source}; {options.threads} thread(s); {median * 1e3:.2f} ms a step without the profiler.")
