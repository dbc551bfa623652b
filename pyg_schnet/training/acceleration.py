"""How a run computes: compiled or not, and with how many threads; decided before its first step."""

from __future__ import annotations

import os
import time
from statistics import median

import torch
from torch_geometric.data import Data

from pyg_schnet.potentials.metrics import labelled
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.progress import Report

_STEPS_TO_COMPILE_FOR = 500  # compiling takes two seconds, a step some five milliseconds less
_STEPS_TO_TIME = 7
_GAIN = 0.9  # another thread must shorten a step to this part


def accelerate(
    potential: Potential,
    batch: Data,
    config: TrainerConfig,
    steps: int,
    report: Report,
    processes: int = 1,
) -> None:
    """Compile a potential if that pays, and choose the number of threads; say what was chosen.

    Args:
        potential: In training mode; its gradients are gone afterwards, nothing else changes.
        batch: A batch like those to come.
        config: With ``compile`` and ``threads``.
        steps: How many steps are to come.
        report: What to show.
        processes: How many do this, and share the batch and the CPU.

    Raises:
        RuntimeError: If ``config.compile`` is true and it cannot be done, with the reason.
    """
    compiled = _compile(potential, batch, config, steps, report)
    threads = config.threads or (
        _fastest(potential, batch, (os.cpu_count() or 1) // processes) if compiled else 1
    )
    torch.set_num_threads(threads)
    potential.zero_grad(set_to_none=True)
    if compiled:
        assert potential.compiled is not None
        count = "1 thread" if threads == 1 else f"{threads} threads"
        report.line(f"Compiled in {potential.compiled.seconds:.1f} s; {count}.")


def _compile(potential: Potential, batch: Data, config: TrainerConfig, steps: int, report: Report) -> bool:
    if config.compile is False:
        return False
    if config.compile == "auto" and steps < _STEPS_TO_COMPILE_FOR:
        report.line(f"Not compiled: {steps:,} steps are too few to pay for it.")
        return False
    potential.compile()
    reason = potential.why_eager()
    if reason is None:
        _step(potential, batch)
        assert potential.compiled is not None
        reason = potential.compiled.failure
    if reason is None:
        return True
    potential.compiled = None
    if config.compile is True:
        raise RuntimeError(f"`trainer.compile` is true, but {reason}; use 'auto' or false")
    report.line(f"Not compiled: {reason}.")
    return False


def _fastest(potential: Potential, batch: Data, most: int) -> int:
    """Time some steps with one thread, two, four and so on, as long as more of them pay."""
    best, shortest, threads = 1, float("inf"), 1
    while threads <= most:
        torch.set_num_threads(threads)
        _step(potential, batch)
        taken = median(_step(potential, batch) for _ in range(_STEPS_TO_TIME))
        if taken > _GAIN * shortest:
            break
        best, shortest = threads, taken
        threads *= 2
    return best


def _step(potential: Potential, batch: Data) -> float:
    """Compute gradients of the loss; return the time in seconds."""
    began = time.perf_counter()
    out = potential(batch, **labelled(batch))
    potential_loss(out, batch, 1.0, potential.scale).backward()
    return time.perf_counter() - began
