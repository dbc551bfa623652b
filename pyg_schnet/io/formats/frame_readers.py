"""Structures of any file without their labels: readers pass over those that are not asked for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any, Protocol, cast

import ase.db
from ase import Atoms
from ase.db.row import AtomsRow
from ase.io import iread
from ase.io.trajectory import TrajectoryReader
from ase.spacegroup.spacegroup import SpacegroupError

from pyg_schnet.io.compression import COMPRESSED, unpacked_limit
from pyg_schnet.io.formats.ase import (
    FAILURES,
    bounded_lines,
    check_database,
    read_frame,
    shortened,
    xyz_frames,
)
from pyg_schnet.io.formats.reading import has_own_reader, read_frames
from pyg_schnet.io.formats.stated_units import require_angstrom
from pyg_schnet.io.formats.structure_files import check_kind

_KINDS = {".xyz": "xyz", ".extxyz": "xyz", ".traj": "traj", ".db": "db", ".safetensors": "processed"}
_ROWS_AT_ONCE = 1000


class FrameReader(Protocol):
    """Reads some structures of a file.

    Attributes:
        place: Number in the file, from 0, of the structure that is being read.
    """

    place: int

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Give structures with their numbers, which must be ascending; ends where the file does."""
        ...

    def count(self) -> int | None:
        """Count the structures of the file; ``None`` where they must be read for it."""
        ...


def read_structures(path: str, numbers: Iterable[int] | None = None) -> Iterator[tuple[int, Atoms]]:
    """Read structures of a file of any kind, with their numbers in it.

    Args:
        path: A file in a format of ASE, or what :func:`~pyg_schnet.datasets.read_frames` reads.
        numbers: Which, ascending, from 0; all by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, of no known format, or leads elsewhere; or if a structure cannot
            be read, with its number.
    """
    reader = reader_of(path)
    try:
        for number, atoms in reader.read(count() if numbers is None else numbers):
            require_angstrom(atoms.info)
            yield number, atoms
    except (SpacegroupError, *FAILURES) as error:
        if isinstance(error, ValueError | OSError) and path in str(error):  # of a reader of our own
            raise
        raise ValueError(
            f"{path}: frame {reader.place}, counted from 0, cannot be read ({shortened(error)}); "
            "repair the file"
        ) from None


def reader_of(path: str) -> FrameReader:
    """Return the reader of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, of no known format, or leads elsewhere.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{path}: no such file; give one with structures")
    if has_own_reader(source):
        return _Frames(path)
    if not source.is_file():
        raise ValueError(f"{path}: must be a file with structures, got a folder, pipe or device")
    kind = _kind(path)
    if kind != "processed":
        check_kind(source)
    if kind == "db":
        check_database(source)
    readers = {"xyz": _Xyz, "traj": _Trajectory, "db": _Database, "processed": _Processed}
    return readers.get(kind, _Any)(path)


def _kind(path: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        return "xyz" if suffixes[-2:-1] in ([".xyz"], [".extxyz"]) else ""
    return _KINDS.get(suffixes[-1] if suffixes else "", "")


class _Any:
    """What only ASE reads: one after another, those that are not asked for too."""

    def __init__(self, path: str):
        self.path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        frames = enumerate(self._all())
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
        return None

    def _all(self) -> Iterator[Atoms]:
        kind = check_kind(Path(self.path))
        return cast(Iterator[Atoms], iread(self.path, ":", kind, do_not_split_by_at_sign=True))


class _Frames(_Any):
    """What our data sets read themselves: arrays of many structures, folders, lists of pymatgen."""

    def _all(self) -> Iterator[Atoms]:
        for piece in read_frames(self.path):
            start = 0
            for number, size in enumerate(piece.counts.tolist()):
                part = slice(start, start := start + size)
                lattice = {} if piece.cell is None else {"cell": piece.cell[number]}
                if piece.pbc is not None:
                    lattice["pbc"] = piece.pbc[number]
                yield Atoms(piece.numbers[part], piece.positions[part], **lattice)


class _Xyz:
    """Extended xyz, compressed or not."""

    def __init__(self, path: str):
        self.path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        self.place = 0
        with self._opened() as binary, io.TextIOWrapper(cast(Any, binary), "utf-8", "replace") as file:
            lines = bounded_lines(file, unpacked_limit(Path(self.path)))
            frames = xyz_frames(lines)
            for number in numbers:
                while self.place < number:
                    if not _pass_over(lines):
                        return
                    self.place += 1
                frame = next(frames, None)
                if frame is None:
                    return
                atoms = read_frame(frame)
                self.place += 1
                yield number, atoms

    def count(self) -> int:
        """Count by first lines; what is damaged ends the count, and is told when it is read."""
        found = 0
        with self._opened() as binary, io.TextIOWrapper(cast(Any, binary), "utf-8", "replace") as file:
            lines = bounded_lines(file, unpacked_limit(Path(self.path)))
            try:
                while _pass_over(lines):
                    found += 1
            except ValueError:
                return found
        return found

    def _opened(self) -> IO[bytes]:
        return COMPRESSED.get(Path(self.path).suffix.lower(), open)(self.path, "rb")


def _pass_over(lines: Iterator[str]) -> bool:
    """Pass over a frame by its first line, in a microsecond; gives whether there was one."""
    line = next(lines, "")
    while line and not line.strip():
        line = next(lines, "")
    if not line:
        return False
    if not line.strip().isdigit():
        raise ValueError(f"it must begin with the number of its atoms, got {line.strip()[:40]!r}")
    next(islice(lines, int(line), int(line) + 1), None)
    return True


class _Trajectory:
    """A trajectory of ASE."""

    def __init__(self, path: str):
        self.path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        with TrajectoryReader(self.path) as file:
            total = len(file)
            for self.place in numbers:
                if self.place >= total:
                    return
                yield self.place, cast(Atoms, file[self.place])

    def count(self) -> int:
        with TrajectoryReader(self.path) as file:
            return len(file)


class _Processed:
    """A processed file of our data sets, which stays on disk."""

    def __init__(self, path: str):
        self.path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        from pyg_schnet.datasets import AtomsDataset
        from pyg_schnet.transforms.ase_atoms import to_ase

        dataset = AtomsDataset(path=self.path, memory_map=True)
        for self.place in numbers:
            if self.place >= len(dataset):
                return
            yield self.place, cast(Atoms, to_ase(cast(Any, dataset[self.place]), with_results=False))

    def count(self) -> int:
        from pyg_schnet.datasets import AtomsDataset

        return len(AtomsDataset(path=self.path, memory_map=True))


class _Database(_Any):
    """A database of ASE, in SQLite: some rows at once, for ASE fetches all that it is asked for."""

    def count(self) -> int:
        with cast(Any, ase.db.connect(self.path, type="db", use_lock_file=False)) as database:
            return database.count()

    def _all(self) -> Iterator[Atoms]:
        return (row.toatoms() for row in chain.from_iterable(self._pages()))

    def _pages(self) -> Iterator[list[AtomsRow]]:
        last = 0
        with cast(Any, ase.db.connect(self.path, type="db", use_lock_file=False)) as database:
            while rows := list(database.select([("id", ">", last)], sort="id", limit=_ROWS_AT_ONCE)):
                yield rows
                last = rows[-1].id
