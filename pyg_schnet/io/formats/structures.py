"""Readers of chosen structures of a file, without their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

from ase import Atoms


@runtime_checkable
class StructureReader(Protocol):
    """Reader of chosen structures of a file, without their labels.

    Attributes:
        place: Number in the file, from 0, of the structure that is being read, for error messages.
    """

    place: int

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Yield structures with their numbers in the file.

        Args:
            numbers: Ascending numbers, from 0, requested one at a time; reading ends at the end of the file.
        """
        ...

    def count(self) -> int | None:
        """Count the structures of the file; ``None`` if this requires reading them."""
        ...


class SequentialReader:
    """Reader of a format that is read from its beginning: structures that are not chosen are read, too.

    Args:
        structures: Opens the file, and returns an iterator over all structures.
        count: Counts the structures, if this is faster than reading them.
    """

    def __init__(self, structures: Callable[[], Iterator[Atoms]], count: Callable[[], int] | None = None):
        self._structures, self._count, self.place = structures, count, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Yield the structures of these ascending numbers; see :class:`StructureReader`."""
        frames = enumerate(self._structures())
        for number in numbers:
            for self.place, atoms in frames:
                if self.place == number:
                    self.place += 1
                    yield number, atoms
                    break
                self.place += 1
            else:
                return

    def count(self) -> int | None:
        """Count the structures; ``None`` if this requires reading them."""
        return None if self._count is None else self._count()
