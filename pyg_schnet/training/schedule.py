"""Learning rate and order of the batches, both functions of the step alone, so that resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyg_schnet.training.config import TrainerConfig


def progress(config: TrainerConfig, step: int, minutes: float = 0.0) -> float:
    """Tell how much of a run is done, from 0 to 1: of its steps or, if that is more, of its time.

    Args:
        config: With number of steps and time limit.
        step: Steps done.
        minutes: Time spent so far, which counts where ``config.max_minutes`` is set.
    """
    done = step / config.max_steps
    if config.max_minutes is not None:
        done = max(done, minutes / config.max_minutes)
    return min(1.0, done)


def learning_rate(config: TrainerConfig, step: int, minutes: float = 0.0) -> float:
    """Compute the learning rate of a step.

    Args:
        config: With schedule, number of steps and time limit.
        step: From 0.
        minutes: Time spent so far.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return config.lr * warmup
    if config.schedule == "exponential":
        return config.lr * warmup * config.decay_factor ** (step // config.decay_steps)
    return config.lr * warmup * 0.5 * (1 + math.cos(math.pi * progress(config, step, minutes)))


def batches(items: int, batch_size: int, seed: int, first_step: int = 0) -> Iterator[Tensor]:
    """Yield the items of each step, endlessly: each epoch a new order, without its incomplete batch.

    Args:
        items: Number of items.
        batch_size: Items a step; all, where there are fewer.
        seed: Of the order.
        first_step: Where to begin; the sequence does not depend on it.
    """
    batch_size = min(batch_size, items)
    steps = items // batch_size
    epoch, skip = divmod(first_step, steps)
    while True:
        generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
        order = torch.randperm(items, generator=generator)[: steps * batch_size]
        yield from order.view(steps, batch_size)[skip:]
        epoch, skip = epoch + 1, 0
