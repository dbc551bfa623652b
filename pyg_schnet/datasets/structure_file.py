"""Structures of one file in any format, or of a processed data set, read one at a time without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

from ase import Atoms
from ase.units import Bohr
from ase.utils import string2index

from pyg_schnet.datasets.atoms import AtomsDataset
from pyg_schnet.io.formats.ase import FAILURES, kind_of, shortened
from pyg_schnet.io.formats.registry import is_read_by_ase, structure_reader
from pyg_schnet.io.formats.stated_units import require_angstrom
from pyg_schnet.io.formats.structures import StructureReader
from pyg_schnet.io.units import Units
from pyg_schnet.transforms.ase_atoms import to_ase

_ENDLESS = 2**62


class StructureFile:
    """Some or all structures of a file, read one after another.

    Extended xyz (also ``.gz``, ``.bz2``, ``.xz``), ASE's trajectories and SQLite databases, and processed
    data sets (``.safetensors``) are streamed in bounded memory. ASE reads most other formats at once;
    arrays, folders and lists of pymatgen are read as :func:`~pyg_schnet.datasets.read_frames` reads them.

    Args:
        path: Path of the file.
        index: Number of one structure, from 0 or, if negative, from the end; or a slice such as ``"::10"``.

    Raises:
        ValueError: If ``index`` is neither a number nor an ascending slice.
    """

    def __init__(self, path: str, index: str = ":"):
        self.path = path
        self._chosen = parse_index(index)
        self._known: range | None = None

    def __iter__(self) -> Iterator[tuple[int, Atoms]]:
        """Yield the chosen structures with their numbers in the file, from 0.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a structure cannot be read, with its number, or none is chosen.
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
        """Yield the structures at these places among the chosen ones, with their numbers in the file.

        Args:
            places: Ascending, from 0, requested one at a time; reading ends after the last structure.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a structure cannot be read, with its number.
        """
        numbers = self._numbers()
        reader = _reader(self.path)
        try:
            for number, atoms in reader.read(numbers[place] for place in _below(places, len(numbers))):
                require_angstrom(atoms.info)
                yield number, atoms
        except FAILURES as error:
            if isinstance(error, ValueError | OSError) and self.path in str(error):  # of our own readers
                raise
            raise ValueError(
                f"{self.path}: frame {reader.place}, counted from 0, cannot be read ({shortened(error)}); "
                "repair the file"
            ) from None

    def number(self, place: int) -> int:
        """Return the number in the file of the chosen structure at a place."""
        return self._numbers()[place]

    def place(self, number: int) -> int:
        """Return the place among the chosen structures of a number in the file.

        Raises:
            ValueError: If it is not chosen.
        """
        return self._numbers().index(number)

    def __contains__(self, number: int) -> bool:
        """Return whether a number is chosen; the end of the file is not known before it is read."""
        return number in self._numbers()

    def count(self) -> int | None:
        """Count the chosen structures; ``None`` for formats in which this requires reading them."""
        if isinstance(self._chosen, int):
            return 1
        total = _reader(self.path).count()
        return None if total is None else len(range(total)[self._chosen])

    def _numbers(self) -> range:
        """Return the chosen numbers, which may exceed the end of the file."""
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
        reader = _reader(self.path)
        total = reader.count()
        return sum(1 for _ in reader.read(count())) if total is None else total


def parse_index(text: str) -> int | slice:
    """Parse the number of one structure, or an ascending slice such as ``"::10"``.

    Raises:
        ValueError: If the text is neither.
    """
    try:
        chosen = string2index(text)
    except ValueError:
        chosen = None
    if not isinstance(chosen, int | slice) or (isinstance(chosen, slice) and (chosen.step or 1) < 1):
        raise ValueError(f"`--index` must be a number or a slice that counts up, as ::10, got {text!r}")
    return chosen


def open_structures(path: str, units: str | None = None) -> Sequence[Any] | AtomsDataset:
    """Read all structures of a file: with labels in formats that are arrays, else as ``Atoms``.

    Args:
        path: A file in any format, a folder of files, or a processed data set.
        units: Units of the file, as for :class:`~pyg_schnet.datasets.AtomsDataset`; by default those that it
            states or its layout implies, Å for formats of ASE.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{path}: no such file; pass structures that the model is made for")
    is_processed = path.endswith(".safetensors")
    if is_processed or source.is_dir() or (source.is_file() and not is_read_by_ase(source)):
        return AtomsDataset(path=path, units=units, memory_map=is_processed)
    structures = [atoms for _, atoms in StructureFile(path).read(count())]
    if units is not None:
        length = Units.parse(units).length_in_angstrom
        if kind_of(source) == "runnerdata":  # ASE converts it from Bohr
            length /= Bohr
        for atoms in structures:
            atoms.set_cell(length * atoms.cell.array, scale_atoms=False)
            atoms.positions *= length
    return structures


def _reader(path: str) -> StructureReader:
    """Return the reader of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file or folder, or of an unknown format.
    """
    if path.lower().endswith(".safetensors") and Path(path).is_file():
        return _ProcessedReader(path)
    return structure_reader(Path(path))


class _ProcessedReader:
    """Reader of chosen structures of a processed data set, which stays on disk."""

    def __init__(self, path: str):
        self.dataset, self.place = AtomsDataset(path=path, memory_map=True), 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        for self.place in numbers:
            if self.place >= len(self.dataset):
                return
            yield self.place, cast(Atoms, to_ase(cast(Any, self.dataset[self.place]), with_results=False))

    def count(self) -> int:
        return len(self.dataset)


def _below(places: Iterable[int], end: int) -> Iterator[int]:
    for place in places:
        if place >= end:
            return
        yield place
