"""Schedule of the learning rate."""

from __future__ import annotations

import math

from pyg_schnet.training.config import TrainerConfig


def learning_rate(config: TrainerConfig, step: int, minutes: float = 0.0) -> float:
    """Compute the learning rate of a step.

    Args:
        config: Schedule, number of steps and time limit.
        step: Number of the step, from 0.
        minutes: Training time so far, in minutes.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return config.lr * warmup
    if config.schedule == "exponential":
        return config.lr * warmup * config.decay_factor ** (step // config.decay_steps)
    return config.lr * warmup * 0.5 * (1 + math.cos(math.pi * completed_fraction(config, step, minutes)))


def completed_fraction(config: TrainerConfig, step: int, minutes: float = 0.0) -> float:
    """Return the completed fraction of a run, from 0 to 1: of its steps or of its time, whichever is larger.

    Args:
        config: Number of steps and time limit.
        step: Steps done.
        minutes: Training time so far, in minutes; it counts if ``config.max_minutes`` is set.
    """
    done = step / config.max_steps
    if config.max_minutes is not None:
        done = max(done, minutes / config.max_minutes)
    return min(1.0, done)
