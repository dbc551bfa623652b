"""Execution of training steps, chosen before the first one: compiled or eager, and the number of threads."""

from __future__ import annotations

import os
import time
from statistics import median

import torch

from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import TrainingBatch
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.progress import Report

_MIN_STEPS_TO_COMPILE = 500  # compilation takes two seconds and saves some five milliseconds per step
_TIMED_STEPS = 7
_MAX_RELATIVE_TIME = 0.9  # more threads must shorten a step to this fraction


def choose_execution(
    potential: Potential,
    batch: TrainingBatch,
    config: TrainerConfig,
    steps: int,
    report: Report,
    processes: int = 1,
) -> None:
    """Compile a potential if that saves time, set the number of threads, and report the choice.

    Args:
        potential: Potential in training mode; its gradients are cleared, nothing else changes.
        batch: A batch of the run's usual size.
        config: Options ``compile`` and ``threads``.
        steps: Number of steps of the run.
        report: Output for the user.
        processes: Processes on this host that share the batch and the CPU.

    Raises:
        RuntimeError: If ``config.compile`` is true but the potential cannot be compiled, with the reason.
    """
    compiled = _compile(potential, batch, config, steps, report)
    computes_here = compiled and not on_accelerator(potential.scale)
    threads = config.threads or (
        _fastest(potential, batch, (os.cpu_count() or 1) // processes) if computes_here else 1
    )
    torch.set_num_threads(threads)
    potential.zero_grad(set_to_none=True)
    if compiled:
        assert potential.compiled is not None
        count = "1 thread" if threads == 1 else f"{threads} threads"
        report.line(f"Compiled in {potential.compiled.seconds:.1f} s; {count}.")


def _compile(
    potential: Potential, batch: TrainingBatch, config: TrainerConfig, steps: int, report: Report
) -> bool:
    if config.compile is False:
        return False
    if config.compile == "auto" and steps < _MIN_STEPS_TO_COMPILE:
        report.line(f"Not compiled: {steps:,} steps are too few for compilation to save time.")
        return False
    potential.compile()
    reason = potential.why_eager()
    if reason is None:
        _time_step(potential, batch)
        assert potential.compiled is not None
        reason = potential.compiled.failure
    if reason is None:
        return True
    potential.compiled = None
    if config.compile is True:
        raise RuntimeError(f"`trainer.compile` is true, but {reason}; use 'auto' or false")
    report.line(f"Not compiled: {reason}.")
    return False


def _fastest(potential: Potential, batch: TrainingBatch, max_threads: int) -> int:
    """Return the fastest number of threads, doubled as long as steps become shorter."""
    best, shortest, threads = 1, float("inf"), 1
    while threads <= max_threads:
        torch.set_num_threads(threads)
        _time_step(potential, batch)
        seconds = median(_time_step(potential, batch) for _ in range(_TIMED_STEPS))
        if seconds > _MAX_RELATIVE_TIME * shortest:
            break
        best, shortest = threads, seconds
        threads *= 2
    return best


def _time_step(potential: Potential, sample: TrainingBatch) -> float:
    """Compute gradients of the loss, and return the time in seconds."""
    began = time.perf_counter()
    batch, graph, outputs = sample
    out = potential(batch, **outputs, graph=graph)
    potential_loss(out, batch, 1.0, potential.scale).backward()
    return time.perf_counter() - began
