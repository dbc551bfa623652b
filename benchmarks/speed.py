"""SchNet against PyTorch Geometric's, SchNetPack's and graph-pes': training, inference and dynamics.

    python benchmarks/speed.py [--tasks ...] [--rounds 7] [--peers pyg schnetpack graph-pes] [--threads 1 2]
    python benchmarks/speed.py --scaling [--sizes 100 1000 10000 50000]
    python benchmarks/speed.py --quick

Every implementation runs in processes of its own, one for each number of threads, in its own environment,
which is made from PyPI when it is first needed (some minutes and gigabytes). It gets the same structures,
with ready-made edges, and the same optimizer and loss; ours is called by its public interface. The runs are
interleaved, each side counts with its best number of threads, and times are medians. Peak memory is what a
step takes beyond what the process had with model and batch. Outputs are compared with equal weights, in
float64 and float32; the exit status is 1 if they disagree.

``--ethanol`` and ``--aspirin`` take npz files of revised MD17. BENCHMARK_VERBOSE=1 shows what workers print.
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
import tempfile
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import floor, inputs, scaling, tables
from benchmarks.agreement import Agreement, compare
from benchmarks.medians import medians
from benchmarks.rounds import Pool, measure, measure_memory
from benchmarks.tasks import TASKS, Task
from benchmarks.workers import Contender
from pyg_schnet import Potential

PEERS = {
    "pyg": Contender("PyG 2.8.1", "pyg"),
    "schnetpack": Contender("SchNetPack 2.1.1", "schnetpack", "schnetpack"),
    "graph-pes": Contender("graph-pes 1.0.2 (own weights)", "graph_pes", "graph-pes", judged=False),
}
OURS = [
    Contender("ours, ready-made edges", "ours"),
    Contender("ours, own neighbor search", "ours", variant="search"),
    Contender("ours, PyG's function and weights", "ours", variant="pyg"),
]
COMMAND = Contender("ours, pyg-schnet train, 3,000 steps", "ours", variant="cli", judged=False)
CALCULATOR = Contender(
    "SchNetPack 2.1.1, its own calculator", "schnetpack", "schnetpack", variant="calculator", judged=False
)
REPLICAS = [
    Contender("ours, one by one through ASE", "ours", variant="compiled one by one", judged=False),
    Contender("ours, run_md_batched", "ours", variant="compiled"),
]
COMPILED = [
    Contender("ours, compiled", "ours", variant="compiled"),
    Contender("ours, compiled, own search", "ours", variant="compiled search"),
]


def contenders_of(options: argparse.Namespace) -> list[Contender]:
    """Choose the lines of the table."""
    peers = [PEERS[name] for name in options.peers]
    if not options.no_compile_peers:
        peers += [
            Contender(f"{p.label}, compiled", p.implementation, p.environment, "compiled", p.judged)
            for p in peers
            if p.judged  # compiling graph-pes changes nothing: its `predict` calls the module inside
        ]
    peers += [CALCULATOR] if "schnetpack" in options.peers else []
    compiled = COMPILED if can_compile() and not options.no_compile else []
    return [*peers, *OURS, COMMAND, *compiled, *REPLICAS]


def takers_of(task: Task, contenders: list[Contender]) -> list[Contender]:
    """Choose who takes part in a task."""
    if task.kind == "replicas":
        return [c for c in contenders if not c.ours or c in REPLICAS]
    left_out = [*REPLICAS, *([] if task.kind == "dynamics" else [CALCULATOR])]
    left_out += [] if task.name == "ethanol-train" else [COMMAND]
    return [c for c in contenders if c not in left_out]


def can_compile() -> bool:
    """Whether ``Potential`` has a way of its own to be compiled; any module has PyTorch's."""
    return getattr(Potential, "compile", None) is not nn.Module.compile


def main() -> None:
    """Measure, compare, print."""
    options = parse()
    console = tables.console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.scaling:
            lines = scaling.measure(options.sizes, options.threads, folder, can_compile())
            console.print(scaling.table(lines))
            write(options.json, {"scaling": [asdict(line) for line in lines]})
            return
        tasks = [TASKS[name] for name in options.tasks]
        contenders = contenders_of(options)
        paths, sources = prepare_inputs(tasks, options, folder)
        pool = Pool()
        try:
            found = check_outputs(tasks, paths, contenders, pool, folder)
            results = time_tasks(tasks, paths, contenders, pool, options)
        finally:
            pool.stop()
        rates = floor.measure_rates(options.threads)
        work = {task.name: floor.count(task, dict(np.load(paths[task.data]))) for task in tasks}
    console.print(tables.speed(tasks, results, contenders, options.threads))
    console.print(tables.floor(tasks, results, contenders, work, rates))
    console.print(tables.agreements(found))
    for line in notes(options, sources, results):
        console.print(line, highlight=False, markup=False)
    write(options.json, as_json(results, found, rates, work))
    sys.exit(0 if all(one.holds for one in found) else 1)


def prepare_inputs(
    tasks: list[Task], options: argparse.Namespace, folder: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the structures; give their paths and where they are from."""
    paths, sources = {}, {}
    for name in dict.fromkeys(task.data for task in tasks):
        arrays, sources[name] = inputs.build(name, options.ethanol, options.aspirin)
        paths[name] = str(folder / f"{name}.npz")
        np.savez(paths[name], **arrays)
    return paths, sources


def check_outputs(
    tasks: list[Task], paths: dict[str, str], contenders: list[Contender], pool: Pool, folder: Path
) -> list[Agreement]:
    """Compare the outputs, once for each set of structures."""
    first = {task.data: task for task in reversed(tasks)}
    return [
        one
        for data, task in first.items()
        for one in compare(task, paths[data], takers_of(task, contenders), 1, pool, folder)
    ]


def time_tasks(
    tasks: list[Task],
    paths: dict[str, str],
    contenders: list[Contender],
    pool: Pool,
    options: argparse.Namespace,
) -> tables.Results:
    """Time all tasks, and measure memory where there is a goal for it."""
    results = {}
    for task in tasks:
        data = paths[task.data]
        takers = takers_of(task, contenders)
        results[task.name] = measure(task, data, takers, options.threads, pool, options.rounds, options.burst)
        if task.memory_goal is not None and not options.quick:
            measure_memory(task, data, takers, results[task.name])
    return results


def notes(options: argparse.Namespace, sources: dict[str, str], results: tables.Results) -> list[str]:
    """Say what the numbers are of."""
    lines = [f"{name}: {source}." for name, source in sources.items()]
    lines += [f"failed: {line}" for line in tables.errors(results)]
    lines.append(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {options.rounds} rounds; load average {os.getloadavg()[0]:.1f}. "
        "In brackets the number of threads. Behind a task's title: the fastest of PyG and SchNetPack over "
        "our fastest line, and the goal."
    )
    if "ethanol-nve" in results:
        lines.append("Dynamics: peers have a minimal calculator that is given the edges, ours searches them.")
    if options.no_compile_peers:
        lines.append("Peers ran eagerly only: compiled, they may be faster than what is compared with here.")
    if not can_compile():
        lines.append("`Potential` has no `compile` of its own in this version.")
    return lines


def as_json(results: tables.Results, found: list[Agreement], rates: Any, work: Any) -> dict[str, Any]:
    """Gather all that was measured."""
    return {
        "results": {
            task: {label: {**asdict(r), "medians": medians(r.times)} for label, r in lines.items()}
            for task, lines in results.items()
        },
        "agreement": [{**asdict(one), "holds": one.holds} for one in found],
        "machine": rates,
        "work": {name: asdict(need) for name, need in work.items()},
    }


def write(path: Path | None, content: dict[str, Any]) -> None:
    """Write the numbers to a file, if that is wanted."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--burst", type=float, default=0.5, help="seconds of a turn")
    parser.add_argument("--ethanol", type=Path, help="npz; by default the sample in datasets/md17")
    parser.add_argument("--aspirin", type=Path, help="npz; by default a synthetic structure, shaken")
    parser.add_argument("--no-compile-peers", action="store_true", help="leave torch.compile of peers out")
    parser.add_argument("--no-compile", action="store_true", help="leave our compiled lines out")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument("--quick", action="store_true", help="a smoke run: is everything in place?")
    parser.add_argument("--scaling", action="store_true", help="time and memory by size, ours alone")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 1000, 10_000, 50_000])
    options = parser.parse_args()
    if options.quick:
        options.peers, options.threads, options.rounds, options.burst = ["pyg"], [1], 1, 0.0
        options.no_compile = options.no_compile_peers = True
        if options.tasks == list(TASKS):
            options.tasks = ["ethanol-train", "ethanol-one", "ethanol-nve"]
    return options


if __name__ == "__main__":
    main()
