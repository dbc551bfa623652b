"""A share of a stream of structures, for one of several processes or jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class Share:
    """Whole batches of a stream, dealt like cards: number ``first``, and each ``every``-th after it.

    Batches are those of the whole stream, whoever has them: what a structure is computed beside, and so its
    energy to the last digit, does not depend on the number of shares.

    Args:
        first: Number of its first batch, from 0.
        every: Number of shares; 1 for the whole stream.
        size: Structures in a batch.
    """

    first: int = 0
    every: int = 1
    size: int = 32

    @classmethod
    def parse(cls, text: str | None, size: int) -> Share:
        """Read ``"3/8"``, the third of eight; ``None`` is the whole stream.

        Raises:
            ValueError: If it is something else.
        """
        if text is None:
            return cls(size=size)
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(
                f"`--shard` must be K/N, with K from 1 to N, as 3/8 for the third of eight; got {text!r}"
            )
        return cls(int(match[1]) - 1, int(match[2]), size)

    def dealt(self, number: int, count: int) -> Share:
        """Give the share of one of ``count`` processes that do this share together."""
        return Share(self.first + self.every * number, self.every * count, self.size)

    def batches(self, begin: int = 0) -> Iterator[int]:
        """Give the numbers of its batches, without end, but for those that end before the place ``begin``."""
        rounds = max(0, -(-(begin // self.size - self.first) // self.every))
        return count(self.first + rounds * self.every, self.every)

    def places(self, begin: int = 0) -> Iterator[int]:
        """Give the places of its structures, without end, from the batch in which ``begin`` is."""
        for batch in self.batches(begin):
            yield from range(batch * self.size, (batch + 1) * self.size)

    def count(self, total: int) -> int:
        """Count its structures among the first ``total`` of the stream."""
        whole, rest = divmod(total, self.size * self.every)
        return whole * self.size + min(max(rest - self.first * self.size, 0), self.size)

    def owner(self, place: int) -> int:
        """Give the number of the share that has a place, if all are dealt alike."""
        return place // self.size % self.every
