"""Learning rate and order of the batches, both functions of the step alone, so that resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from pyg_schnet.loader.sampler import EdgeBudgetSampler, shuffled
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


class BatchOrder:
    """Which structures each step learns from: a function of seed and step alone.

    Each epoch has a new order. Batches of a fixed size leave out what is left over at its end; those that
    are filled up to a number of edges hold each structure once.

    Args:
        items: Number of structures.
        config: With ``batch_size`` or ``batch_edges``, and the seed.
        edges: Edges of each structure, shape ``(items,)``; needed for ``batch_edges``.

    Attributes:
        size: Structures of a step; of filled batches their mean, by which each structure counts the same.
    """

    def __init__(self, items: int, config: TrainerConfig, edges: Tensor | None = None):
        self._items, self._seed = items, config.seed
        self._sampler: EdgeBudgetSampler | None = None
        self.size: float = min(config.batch_size, items)
        if config.batch_edges is not None:
            assert edges is not None
            self._sampler = EdgeBudgetSampler(edges, config.batch_edges, seed=config.seed)
            self.size = items / len(self._sampler)

    def after(self, step: int) -> Iterator[Tensor]:
        """Yield the structures of each step after those that are done, endlessly."""
        epoch = 0
        while step >= (steps := self._count(epoch)):
            epoch, step = epoch + 1, step - steps
        while True:
            yield from self._epoch(epoch)[step:]
            epoch, step = epoch + 1, 0

    def _count(self, epoch: int) -> int:
        return self._items // int(self.size) if self._sampler is None else len(self._epoch(epoch))

    def _epoch(self, epoch: int) -> Sequence[Tensor]:
        if self._sampler is not None:
            return self._sampler.batches(epoch)
        steps, size = self._count(epoch), int(self.size)
        order = shuffled(self._items, self._seed, epoch)
        return order[: steps * size].view(steps, size).unbind()
