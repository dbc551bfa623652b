"""Statistics of a label: energies, or a property of structures or atoms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of a label where it is known, in its unit; NaN if it is known nowhere.

    Attributes:
        count: Number of structures, or atoms, whose label is known.
        missing: Number of those whose label is missing.
        mean: Mean.
        std: Standard deviation of all values; 0 for one value.
        min: Smallest value.
        max: Largest value.
    """

    count: int
    missing: int
    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, parts: Iterable[Tensor]) -> LabelStatistics:
        """Compute the statistics of values that come in parts.

        Args:
            parts: Values, of any shape, NaN where they are missing.
        """
        count, total, mean, squares, low, high = 0, 0, 0.0, 0.0, math.inf, -math.inf
        for part in parts:
            values = part[~part.isnan()].double()
            total += part.numel()
            if len(values) == 0:
                continue
            own, number = float(values.mean()), len(values)
            squares += float((values - own).square().sum())
            squares += (own - mean) ** 2 * count * number / (count + number)
            mean += (own - mean) * number / (count + number)
            count += number
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if count == 0:
            return cls(0, total, *[math.nan] * 4)
        return cls(count, total - count, mean, math.sqrt(squares / count), low, high)
