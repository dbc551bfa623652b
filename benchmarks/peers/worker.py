"""The process of one implementation: reads a JSON object a line, answers with one.

    python -m benchmarks.peers.worker IMPLEMENTATION THREADS

Between two questions it waits for input, and takes no time from the others.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.dynamics import BatchedSystem, Dynamics
from benchmarks.peers.peer import Peer


class Worker:
    """Answers the questions; each method is one."""

    def __init__(self, build: type[Peer]):
        self.build = build
        self.step: Callable[[], object] | None = None
        self.dynamics: Dynamics | None = None
        self.command: Callable[[int], float] | None = None  # gives its seconds, with those of a start

    def prepare(self, spec: dict[str, Any], data: str) -> dict[str, Any]:
        """Build the model and the tensors of a task, and drop those of the last one."""
        self.step = self.dynamics = self.command = None
        if spec.get("compile"):
            torch.compiler.reset()
        if spec.get("variant") == "cli":
            from benchmarks.peers.command import Command  # in our environment alone

            self.command = Command(torch.get_num_threads())
            self.command(20)
            return {}
        peer = self.build(spec, data)
        together = hasattr(peer, "move_together") and "one by one" not in spec.get("variant", "")
        if spec["kind"] == "replicas" and together:
            self.command = BatchedSystem(peer, spec["replicas"])
            self.command(2)
        elif spec["kind"] in ("dynamics", "replicas"):
            self.dynamics = Dynamics(peer)
        elif spec["kind"] == "train":
            self.step = training_step(peer)
        else:
            frames = itertools.cycle(range(len(peer.pos)))
            self.step = lambda: peer.frame(next(frames))
        return {"parameters": sum(parameter.numel() for parameter in peer.model.parameters())}

    def run(self, repeats: int, warm_up: int = 1) -> dict[str, Any]:
        """Time some runs, in seconds, after one that brings the caches back; of dynamics one long run."""
        if self.command is not None:
            return {"seconds": [(self.command(20 + repeats) - self.command(20)) / repeats]}
        if self.dynamics is not None:
            self.dynamics(warm_up)
            start = time.perf_counter()
            self.dynamics(repeats)
            return {"seconds": [(time.perf_counter() - start) / repeats]}
        assert self.step is not None
        for _ in range(warm_up):
            self.step()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def memory(self, repeats: int = 3) -> dict[str, Any]:
        """Give the peak of a few steps beyond what the process had before, in MB."""
        assert self.step is not None
        start_libraries()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
        for _ in range(repeats):
            self.step()
        return {"megabytes": status("VmHWM") - before}

    def outputs(
        self, spec: dict[str, Any], data: str, dtype: str, weights: str | None = None, save: str | None = None
    ) -> dict[str, Any]:
        """Give energies and forces of the first frame; write the weights.

        With them come the norms of the loss's gradient with respect to each weight, which training needs:
        their logarithms, so that small ones count, in ascending order, as each calls its weights otherwise.
        """
        peer = self.build({**spec, "kind": "infer", "forces": True}, data, getattr(torch, dtype), weights)
        if save is not None:
            peer.save(save)
        energy, forces = peer.frame(0)
        assert forces is not None
        answer = {"energy": energy.tolist(), "forces": forces.flatten().tolist()}
        peer = self.build({**spec, "kind": "train", "forces": True}, data, getattr(torch, dtype), weights)
        peer.loss(0).backward()
        norms = [float(p.grad.double().norm()) for p in peer.model.parameters() if p.grad is not None]
        return {**answer, "gradient": sorted(math.log(norm) for norm in norms if norm > 0)}

    def limit(self, megabytes: float) -> dict[str, Any]:
        """Fail rather than take more memory."""
        size = int(megabytes * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        return {}


def training_step(peer: Peer) -> Callable[[], object]:
    """Make the function that takes a step of training."""
    optimizer = torch.optim.Adam(peer.model.parameters(), lr=1e-3, fused=True)
    frames = itertools.cycle(range(len(peer.pos)))

    def step() -> None:
        optimizer.zero_grad()
        peer.loss(next(frames)).backward()
        optimizer.step()

    return step


def start_libraries() -> None:
    """Use once what every implementation uses, so that its start is nobody's memory."""
    layer = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(256, 64)).square().sum().backward()
    optimizer.step()


def status(name: str) -> float:
    """Read a size of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    implementation, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    module = importlib.import_module(f"benchmarks.peers.{implementation}")
    worker = Worker(module.Peer)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # of other people's code, and to be told: the next task goes on
            text = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {text[0]}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
