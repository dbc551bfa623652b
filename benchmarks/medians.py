"""Statistics of the timings: medians, the best number of threads, ratios. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Times = Mapping[int, Sequence[float]]  # seconds of each run by number of threads


def medians(times: Times) -> dict[int, float]:
    """Give the median time of each number of threads that was measured."""
    return {threads: statistics.median(runs) for threads, runs in times.items() if runs}


def best_threads(times: Times) -> int | None:
    """Choose the number of threads of the smallest median, the smaller number of two equal ones."""
    middle = medians(times)
    return min(middle, key=lambda threads: (middle[threads], threads), default=None)


def best(times: Times) -> float | None:
    """Give the median time with the best number of threads."""
    return min(medians(times).values(), default=None)


def fastest(sides: Mapping[str, Times]) -> str | None:
    """Name the side that is fastest, each with its best number of threads."""
    measured = {name: value for name, times in sides.items() if (value := best(times)) is not None}
    return min(measured, key=lambda name: measured[name], default=None)


def ratio(theirs: float | None, ours: float | None) -> float | None:
    """Tell how many times as much theirs is; nothing where one was not measured."""
    if theirs is None or ours is None or ours <= 0:
        return None
    return theirs / ours
