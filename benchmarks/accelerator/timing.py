"""Times of steps on a GPU by CUDA events, on a CPU by its clock, and peaks of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

WARM_UP = 5
MIN_STEPS, MAX_STEPS = 5, 500

Step = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """What the sections measure with.

    Attributes:
        device: Where everything is computed.
        seconds: Time in s for the measurement of a row, after preparation and warm-up.
        quick: Whether sizes are tiny, to try the script itself.
        variants: Implementations to measure; all by default.
    """

    device: torch.device
    seconds: float = 1.0
    quick: bool = False
    variants: tuple[str, ...] | None = None

    def size(self, full: int, tiny: int) -> int:
        """Choose a size."""
        return tiny if self.quick else full


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prepare(step: Step, device: torch.device) -> float:
    """Take the first step, which compiles what is compiled; return its time in s."""
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def milliseconds(step: Step, settings: Settings) -> float:
    """Return the median time of a step in ms.

    Steps follow each other without a wait, as in use: an event after each, so that a time is that between the
    ends of two steps, idle times of the device between them included.
    """
    device = settings.device
    for _ in range(WARM_UP if not settings.quick else 1):
        step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(2):
        step()
    synchronize(device)
    once = (time.perf_counter() - start) / 2
    steps = max(MIN_STEPS, min(MAX_STEPS, int(settings.seconds / max(once, 1e-6))))
    return median(_times(step, 2 if settings.quick else steps, device))


def _times(step: Step, steps: int, device: torch.device) -> list[float]:
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(steps):
            step()
            marks.append(time.perf_counter())
        return [1e3 * (after - before) for before, after in pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    synchronize(device)
    return [before.elapsed_time(after) for before, after in pairwise(events)]


def peak_megabytes(step: Step, device: torch.device) -> float | None:
    """Return the peak of the memory that PyTorch holds during a step, in MB; unknown on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 1e6


def difference(found: Tensor | list[Tensor], expected: Tensor | list[Tensor]) -> float:
    """Return the largest difference over the largest value, of several tensors the worst.

    Infinite where one is not finite or has another shape; zero where both are empty or zero.
    """
    if isinstance(found, Tensor):
        found = [found]
    if isinstance(expected, Tensor):
        expected = [expected]
    worst = 0.0
    if len(found) != len(expected):
        return float("inf")
    for one, other in zip(found, expected, strict=True):
        a, b = (tensor.detach().double().cpu() for tensor in (one, other))
        if a.shape != b.shape or not bool(a.isfinite().all() and b.isfinite().all()):
            return float("inf")
        if a.numel() == 0:
            continue
        apart, largest = float((a - b).abs().max()), float(b.abs().max())
        worst = max(worst, apart / largest if largest > 0 else (0.0 if apart == 0 else float("inf")))
    return worst


def same_bits(one: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether two lists of tensors are equal bit by bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
