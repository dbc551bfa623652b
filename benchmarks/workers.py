"""Worker processes: one for each implementation and number of threads, asleep unless it is asked."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of

ROOT = Path(__file__).parents[1]


class WorkerError(Exception):
    """What a worker could not do, in one line."""


@dataclass(frozen=True)
class Contender:
    """One line of the table.

    Attributes:
        label: In the table.
        implementation: Module in ``peers/``.
        environment: Name in ``environments.py``.
        variant: What the module is to do differently.
        judged: Whether the goals are about it.
    """

    label: str
    implementation: str
    environment: str = "own"
    variant: str = ""
    judged: bool = True

    @property
    def ours(self) -> bool:
        """Whether this is pyg_schnet."""
        return self.implementation == "ours"

    @property
    def alone(self) -> bool:
        """Whether it moves one molecule after the other."""
        return not self.ours or "one by one" in self.variant


class Worker:
    """A process that answers one JSON line to each JSON line.

    Args:
        contender: What it runs.
        threads: Number of threads of torch and of its libraries.
    """

    def __init__(self, contender: Contender, threads: int):
        self.contender, self.threads = contender, threads
        command = [python_of(contender.environment), "-m", "benchmarks.peers.worker"]
        command += [contender.implementation, str(threads)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if os.environ.get("BENCHMARK_VERBOSE") else subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
            text=True,
        )
        try:
            self.versions = self._answer(120.0)  # importing takes seconds
        except WorkerError:
            self.stop()
            raise

    def ask(self, do: str, timeout: float = 600.0, **arguments: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer.

        Raises:
            WorkerError: If it failed, died or took too long; it is stopped in the last case.
        """
        assert self.process.stdin is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError("the process ended") from None
        return self._answer(timeout)

    def stop(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        # One answer to one question: nothing waits in the buffer when the pipe is empty.
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.process.kill()
            self.process.wait()
            raise WorkerError(f"no answer within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"the process ended (exit status {self.process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer
