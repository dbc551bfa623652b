"""Structures that stream in from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

from ase import Atoms
from ase.utils import string2index

from pyg_schnet.io.formats.frame_readers import read_structures, reader_of


class Source:
    """Some or all structures of a file in any format of ASE, or of our data sets, one after another.

    Extended xyz (``.gz``, ``.bz2``, ``.xz`` too), ASE's trajectories and databases in SQLite, and processed
    data sets (``.safetensors``) stream: a file larger than the memory may pass through. Other formats of ASE
    are read as ASE reads them, most of them at once; arrays, folders and lists of pymatgen as data sets are.

    Args:
        path: The file.
        index: A number, from 0 or, negative, from the end; or a slice, as ``"::10"``.

    Raises:
        ValueError: If ``index`` is neither.
    """

    def __init__(self, path: str, index: str = ":"):
        self.path = path
        try:
            chosen = string2index(index)
        except ValueError:
            chosen = None
        if not isinstance(chosen, int | slice) or (isinstance(chosen, slice) and (chosen.step or 1) < 1):
            raise ValueError(f"`--index` must be a number or a slice that counts up, as ::10, got {index!r}")
        self._chosen = chosen
        self._known: range | None = None

    def __iter__(self) -> Iterator[tuple[int, Atoms]]:
        """Give structures with their numbers in the file, from 0.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, with the number of the frame, or has no such structure.
        """
        found = self.read(count())
        first = next(found, None)
        if first is None and isinstance(self._chosen, int):
            raise ValueError(f"{self.path}: has no structure {self._chosen}; they count from 0")
        if first is None:
            which = "" if self._chosen == slice(None) else " of this `--index`"
            raise ValueError(f"{self.path}: must hold at least one structure{which}, got none")
        yield first
        yield from found

    def read(self, places: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Give the structures at some places among the chosen ones, with their numbers in the file.

        Args:
            places: Ascending, from 0; those behind the last structure end it. They are asked for one by one.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, with the number of the frame.
        """
        numbers = self._numbers()
        yield from read_structures(self.path, (numbers[place] for place in _below(places, len(numbers))))

    def number(self, place: int) -> int:
        """Give the number in the file of a chosen structure."""
        return self._numbers()[place]

    def place(self, number: int) -> int:
        """Give the place among the chosen structures of one of the file.

        Raises:
            ValueError: If it is not chosen.
        """
        return self._numbers().index(number)

    def __contains__(self, number: int) -> bool:
        """Whether a number in the file is chosen, as far as this can be told without reading it."""
        return number in self._numbers()

    def count(self) -> int | None:
        """Count the structures where this is quick: in extended xyz, trajectories and processed data sets."""
        if isinstance(self._chosen, int):
            return 1
        total = reader_of(self.path).count()
        return None if total is None else len(range(total)[self._chosen])

    def _numbers(self) -> range:
        """Give the numbers that are chosen, to be cut where the file ends."""
        if self._known is None:
            self._known = self._range()
        return self._known

    def _range(self) -> range:
        chosen = self._chosen
        if isinstance(chosen, int):
            start = chosen if chosen >= 0 else chosen + self._total()
            return range(start, start + 1) if start >= 0 else range(0)
        if min(chosen.start or 0, chosen.stop or 0) < 0:
            return range(self._total())[chosen]
        return range(chosen.start or 0, _ENDLESS if chosen.stop is None else chosen.stop, chosen.step or 1)

    def _total(self) -> int:
        reader = reader_of(self.path)
        total = reader.count()
        return sum(1 for _ in reader.read(count())) if total is None else total


_ENDLESS = 2**62


def _below(places: Iterable[int], end: int) -> Iterator[int]:
    for place in places:
        if place >= end:
            return
        yield place
