"""Structures that stream in from a file."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError
from ase.io.trajectory import TrajectoryReader
from ase.utils import string2index

from pyg_schnet.datasets.ase_files import FAILURES, read_extxyz

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Source:
    """Some or all structures of a file in any format of ASE, one after another.

    Extended xyz and ASE's trajectories stream: a file larger than the memory may pass through.

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

    def __iter__(self) -> Iterator[tuple[int, Atoms]]:
        """Give structures with their numbers in the file, from 0.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, with the number of the frame, or has no such structure.
        """
        places, chosen = self._places(), self._chosen
        if isinstance(chosen, int):
            found = islice(self._read(), places.start, places.start + 1) if places.start >= 0 else iter(())
        else:
            found = islice(self._read(), places.start, places.stop, places.step)
        first = next(found, None)
        if first is None and isinstance(chosen, int):
            raise ValueError(f"{self.path}: has no structure {chosen}; they count from 0")
        if first is None:
            which = "" if chosen == slice(None) else " of this `--index`"
            raise ValueError(f"{self.path}: must hold at least one structure{which}, got none")
        yield first
        yield from found

    def count(self) -> int | None:
        """Count the structures where this is quick: in extended xyz and trajectories."""
        kind = _kind(self.path)
        if isinstance(self._chosen, int) or kind is None:
            return None if kind is None else 1
        return len(range(self._total())[self._chosen])

    def _places(self) -> slice:
        chosen = self._chosen
        if isinstance(chosen, int):
            start = chosen if chosen >= 0 else chosen + self._total()
            return slice(start, None)
        if min(chosen.start or 0, chosen.stop or 0) < 0:
            return slice(*chosen.indices(self._total()))
        return chosen

    def _total(self) -> int:
        kind = _kind(self.path)
        if kind == "xyz":
            with _opened(self.path) as file:
                return _count_xyz(file)
        if kind == "traj":
            with TrajectoryReader(self.path) as file:
                return len(file)
        return sum(1 for _ in self._read())

    def _read(self) -> Iterator[tuple[int, Atoms]]:
        """Read all, and say of what goes wrong in which frame it did."""
        if not Path(self.path).exists():
            raise FileNotFoundError(f"{self.path}: no such file")
        number = 0
        try:
            if _kind(self.path) == "xyz":
                frames = read_extxyz(Path(self.path))
            else:
                frames = iread(self.path, index=":", do_not_split_by_at_sign=True)
            for atoms in frames:
                assert isinstance(atoms, Atoms)
                yield number, atoms
                number += 1
        except UnknownFileTypeError as error:
            raise ValueError(
                f"{self.path}: ASE cannot read it ({error}); its ending must tell its format"
            ) from None
        except FAILURES as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{self.path}: frame {number}, counted from 0, cannot be read ({reason}); repair the file"
            ) from None


def _kind(path: str) -> str | None:
    """Tell whether structures of a file are quick to count."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _OPEN:
        return "xyz" if suffixes[-2:-1] in ([".xyz"], [".extxyz"]) else None
    return {".xyz": "xyz", ".extxyz": "xyz", ".traj": "traj"}.get(suffixes[-1] if suffixes else "")


def _opened(path: str) -> IO[bytes]:
    return _OPEN.get(Path(path).suffix.lower(), open)(path, "rb")


def _count_xyz(file: IO[bytes]) -> int:
    """Count frames by their first lines; what is damaged ends the count, and is told when it is read."""
    count = 0
    while line := next(file, b""):
        if not line.strip():
            continue
        if not line.strip().isdigit():
            break
        count += 1
        next(islice(file, int(line), int(line) + 1), None)
    return count
