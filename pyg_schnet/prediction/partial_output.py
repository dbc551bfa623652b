"""The part of a file of results that is there so far: it grows frame by frame, and survives a kill."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from ase import Atoms
from ase.io import write
from ase.io.extxyz import read_xyz
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from pyg_schnet.io.append_only import AppendOnlyFile
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.simulation.trajectory import truncate_frames

_NUMBER = re.compile(rb"(?:^|\s)input_frame=(\d+)(?:\s|$)")
_RUN = re.compile(rb"(?<=\srun=)\S+")


class Part:
    """Frames of extended xyz, or of a trajectory of ASE, which are appended and cut after the last whole one.

    Args:
        path: Ends in ``.extxyz`` or ``.traj``.
    """

    def __init__(self, path: Path):
        self.path = path
        self.is_text = path.suffix != ".traj"
        self._file: TrajectoryWriter | AppendOnlyFile | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames are being appended."""
        return self._file is not None

    def open(self) -> None:
        """Prepare to append; makes the file if there is none."""
        if self._file is None and self.is_text:
            keep = self.path.stat().st_size if self.path.exists() else None
            self._file = AppendOnlyFile(self.path, keep=keep)
            self._file.open()
        elif self._file is None:
            self._file = TrajectoryWriter(self.path, "a")

    def append(self, frame: bytes | Atoms) -> None:
        """Append a frame as :func:`encoded` gives it, whole or not at all.

        Raises:
            OSError: If the disk is full.
        """
        self.open()
        if isinstance(self._file, AppendOnlyFile):
            self._file.append(cast(bytes, frame))
        else:
            cast(TrajectoryWriter, self._file).write(frame)

    def close(self, quietly: bool = False) -> None:
        """Close the file; ``quietly`` where writing failed, and the same would be told again."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                if isinstance(file, TrajectoryWriter):  # ASE leaves it open then
                    with suppress(OSError):
                        cast(Any, file).backend.fd.close()
                if not quietly:
                    raise

    def frames(self) -> Iterator[Atoms]:
        """Give the whole frames; what follows the last is cut off."""
        return self._whole_xyz() if self.is_text else self._whole_trajectory()

    def texts(self) -> Iterator[bytes]:
        """Give the whole frames of extended xyz as they are written; what follows the last is cut off.

        They are not parsed, but for the last, which a kill or a power cut may have damaged.
        """
        end, last = 0, None
        with self.path.open("rb") as file:
            for text in whole_texts(file):
                if last is not None:
                    yield last
                    end += len(last)
                last = text
        if last is not None and _parses(last):
            yield last
            end += len(last)
        os.truncate(self.path, end)

    def _whole_xyz(self) -> Iterator[Atoms]:
        end = 0
        with self.path.open("rb") as file:
            for text in whole_texts(file):
                try:
                    frame = parsed(text)
                except FAILURES:
                    break
                yield frame
                end = file.tell()
        os.truncate(self.path, end)

    def _whole_trajectory(self) -> Iterator[Atoms]:
        count = length = 0
        try:
            with self.path.open("rb") as file:
                stored = TrajectoryReader(file)
                length = len(stored)
                for count in range(length):
                    yield cast(Atoms, stored[count])
                count = length
        except FAILURES:
            self._cut_trajectory(count)

    def _cut_trajectory(self, count: int) -> None:
        if count:
            truncate_frames(self.path, count)
        else:
            self.path.unlink()


def encoded(frame: Atoms, run: str, as_text: bool) -> bytes | Atoms:
    """Give a frame as a part holds it: as text, or itself for a trajectory; ``run`` tells what made it."""
    frame.info["run"] = run
    for name in getattr(frame.calc, "results", {}):  # of a file that was read; ASE refuses both
        frame.info.pop(name, None)
        frame.arrays.pop(name, None)
    if not as_text:
        return frame
    text = io.StringIO()
    write(text, frame, format="extxyz")
    return text.getvalue().encode()


def parsed(text: bytes) -> Atoms:
    """Read a frame of extended xyz."""
    return next(read_xyz(io.StringIO(text.decode()), 0))


def number_of(text: bytes) -> int | None:
    """Find ``input_frame`` of a frame of extended xyz without parsing it."""
    found = _NUMBER.search(text.split(b"\n", 2)[1])
    return None if found is None else int(found[1])


def run_of(text: bytes) -> str | None:
    """Find ``run`` of a frame of extended xyz without parsing it."""
    found = _RUN.search(text.split(b"\n", 2)[1])
    return None if found is None else found[0].decode()


def with_run(text: bytes, run: str) -> bytes:
    """Put another ``run`` into a frame of extended xyz."""
    count, comment, rest = text.split(b"\n", 2)
    return b"\n".join([count, _RUN.sub(run.encode(), comment, count=1), rest])


def whole_texts(file: BinaryIO) -> Iterator[bytes]:
    """Give frames of extended xyz as they are written: with all lines, each with its end."""
    while (line := file.readline()).strip().isdigit() and line.endswith(b"\n"):
        lines = [line, *islice(iter(file.readline, b""), int(line) + 1)]
        if len(lines) < int(line) + 2 or not lines[-1].endswith(b"\n"):
            return
        yield b"".join(lines)


def _parses(text: bytes) -> bool:
    try:
        parsed(text)
    except FAILURES:
        return False
    return True
