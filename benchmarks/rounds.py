"""Interleaved timings: in each round every worker runs a short burst, in rotated order, the others asleep."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.tasks import Task
from benchmarks.workers import Contender, Worker, WorkerError

COMPILE_LIMIT = 120.0  # s
NVE_STEPS = 300
REPLICA_STEPS = 200


@dataclass
class Result:
    """What was measured of one contender on one task.

    Attributes:
        times: Seconds of each run by number of threads.
        errors: Why there are none, by number of threads.
        megabytes: Peak memory of a step.
    """

    times: dict[int, list[float]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    megabytes: float | None = None


class Pool:
    """The workers, started when they are first needed and again after they died."""

    def __init__(self):
        self._workers: dict[tuple[str, int], Worker] = {}

    def get(self, contender: Contender, threads: int) -> Worker:
        """Give the worker of a contender with a number of threads."""
        key = (contender.label, threads)
        if key not in self._workers or not self._workers[key].alive:
            self._workers[key] = Worker(contender, threads)
        return self._workers[key]

    def stop(self) -> None:
        """End all of them."""
        for worker in self._workers.values():
            worker.stop()


def spec_of(task: Task, contender: Contender) -> dict[str, Any]:
    """Describe a task to the worker of a contender."""
    return {**task.spec(), "variant": contender.variant, "compile": "compiled" in contender.variant}


def measure(
    task: Task,
    data: str,
    contenders: list[Contender],
    threads: list[int],
    pool: Pool,
    rounds: int,
    burst: float,
) -> dict[str, Result]:
    """Time all contenders on a task.

    Args:
        task: The task.
        data: Its structures.
        contenders: Who takes part.
        threads: Numbers of threads, each in a process of its own.
        pool: The workers.
        rounds: How often everybody has a turn.
        burst: Seconds of a turn, roughly; three runs at least.
    """
    results = {contender.label: Result() for contender in contenders}
    ready: list[tuple[Worker, int]] = []
    for contender in contenders:
        for number in threads:
            progress(f"{task.name}: {contender.label}, threads {number}")
            try:
                worker = pool.get(contender, number)
                ready.append((worker, _prepare(worker, task, data, burst)))
            except WorkerError as error:
                results[contender.label].errors[number] = str(error)
    for turn in range(rounds):
        shift = turn % max(len(ready), 1)
        for worker, repeats in ready[shift:] + ready[:shift]:
            result = results[worker.contender.label]
            if not worker.alive:
                continue
            try:
                seconds = worker.ask("run", repeats=repeats)["seconds"]
                result.times.setdefault(worker.threads, []).extend(seconds)
            except WorkerError as error:
                result.errors[worker.threads] = str(error)
    progress("")
    return results


def measure_memory(task: Task, data: str, contenders: list[Contender], results: dict[str, Result]) -> None:
    """Measure the peak memory of a step of each contender, in a fresh process with one thread."""
    for contender in contenders:
        if contender.label in results and results[contender.label].times:
            progress(f"{task.name}: memory, {contender.label}")
            worker = Worker(contender, 1)
            try:
                worker.ask("prepare", spec=spec_of(task, contender), data=data)
                results[contender.label].megabytes = worker.ask("memory")["megabytes"]
            except WorkerError as error:
                results[contender.label].errors[0] = str(error)
            worker.stop()
    progress("")


def progress(text: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _prepare(worker: Worker, task: Task, data: str, burst: float) -> int:
    """Build, warm up, and choose the number of runs of a burst."""
    spec = spec_of(task, worker.contender)
    worker.ask("prepare", COMPILE_LIMIT, spec=spec, data=data)
    if worker.contender.variant == "cli":
        return 3000 if burst > 0 else 40  # so many that it compiles, as a user's run does
    if task.kind == "replicas" and not worker.contender.alone:
        return REPLICA_STEPS if burst > 0 else 2
    if task.kind in ("dynamics", "replicas"):
        worker.ask("run", COMPILE_LIMIT, repeats=5)
        return NVE_STEPS if burst > 0 else 20
    # Each frame once: a compiled model may specialize on what differs.
    seconds = worker.ask("run", COMPILE_LIMIT, repeats=3, warm_up=4)["seconds"]
    return max(3, min(200, int(burst / min(seconds))))
