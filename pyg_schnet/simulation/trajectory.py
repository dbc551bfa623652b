"""Trajectory files that grow frame by frame."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ase import Atoms
from ase.io import read, write
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, ioformats
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

_GROWING = (".traj", ".extxyz", ".xyz")


class FrameWriter:
    """A trajectory file, complete after each frame; the file opens with the first.

    ``*.traj``, ``*.extxyz`` and ``*.xyz`` (extended) grow themselves. ASE writes other formats only whole:
    such a file has the first frame at first, and all at the end, from one beside it that grows, as
    ``run.pdb.extxyz`` does.

    Args:
        path: In any format that ASE reads and writes with many frames; ``None`` writes nothing.
        overwrite: Whether a file that is there may be replaced.
        resume: Go on with the file that is there, from this :attr:`size`; what comes after it is cut off.

    Attributes:
        path: As given.
        growing: The file that grows, ``path`` or the one beside it.

    Raises:
        FileExistsError: If there is such a file.
        FileNotFoundError: If there is no such folder, or no such file to resume.
        ValueError: If ASE has no such format for many frames, or the file to resume is too short.
    """

    def __init__(self, path: str | os.PathLike | None, overwrite: bool = False, resume: int | None = None):
        self.path = self.growing = None if path is None else Path(path)
        self._file = None
        self._last = None
        self._format: str | None = None  # of one that is written whole
        self._resume: int | None = None
        if self.path is None or self.growing is None:
            return
        if self.path.suffix not in _GROWING:
            self._format = _format_of(self.path)
            self.growing = self.path.with_name(f"{self.path.name}.extxyz")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"`trajectory` must be in a folder that exists; create {self.path.parent}"
            )
        self._resume = resume
        if resume is not None:
            _check_length(self.growing, resume)
            return
        for there in {self.path, self.growing}:
            if there.exists() and not overwrite:
                raise FileExistsError(
                    f"{there} exists; choose another name, or replace it with overwrite=True (--overwrite)"
                )

    @property
    def size(self) -> int:
        """How long the file is: frames of a ``*.traj``, else bytes."""
        if self._file is None:
            return 0
        return len(self._file) if isinstance(self._file, TrajectoryWriter) else self._file.tell()

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; the same object twice is one frame."""
        if self.growing is None or self.path is None or frame is self._last:
            return
        self._last = frame
        if self._file is None:
            if self._format is not None:
                write(self.path, frame, format=self._format)  # a failure is told now, not at the end
            traj = self.growing.suffix == ".traj"
            self._file = TrajectoryWriter(self.growing) if traj else self.growing.open("w", encoding="utf-8")
        if isinstance(self._file, TrajectoryWriter):
            self._file.write(frame)
        else:
            write(self._file, frame, format="extxyz")
            self._file.flush()

    def __enter__(self) -> FrameWriter:
        if self._resume is not None and self.growing is not None:
            self._file = _reopen(self.growing, self._resume)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            if self._format is not None and self.path is not None and self.growing is not None:
                write(self.path, read(self.growing, ":"), format=self._format)


def _format_of(path: Path) -> str:
    try:
        known = get_ioformat(filetype(os.fspath(path), read=False))
    except UnknownFileTypeError:
        known = None
    if known is None or known.single or not (known.can_read and known.can_write):
        others = {
            extension
            for form in ioformats.values()
            if form.can_read and form.can_write and not form.single
            for extension in form.extensions
        }
        names = (*_GROWING, *sorted(f".{name}" for name in others - {suffix[1:] for suffix in _GROWING}))
        raise ValueError(
            f"`trajectory` must end in {', '.join(names)} or what else ASE keeps many frames in; "
            f"got {path.name!r}"
        )
    return known.name


def _check_length(path: Path, size: int) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file to resume; begin a new run")
    there = _frames(path) if path.suffix == ".traj" else path.stat().st_size
    if there < size:
        raise ValueError(
            f"{path}: must be as long as it was when its restart file was written, {size}, got {there}; "
            "begin a new run"
        )


def _reopen(path: Path, size: int) -> TrajectoryWriter | TextIO:
    """Open a file to append to it, without what is beyond a size."""
    if path.suffix != ".traj":
        file = path.open("r+", encoding="utf-8")
        file.seek(file.truncate(size))
        return file
    if _frames(path) > size:
        part = path.with_name(f".{path.name}.part")
        with TrajectoryReader(path) as frames, TrajectoryWriter(part) as writer:
            for number in range(size):
                writer.write(frames[number])
        part.replace(path)
    return TrajectoryWriter(path, "a")


def _frames(path: Path) -> int:
    with TrajectoryReader(path) as frames:
        return len(frames)
