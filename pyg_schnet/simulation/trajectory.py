"""Trajectory files that grow frame by frame."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from ase import Atoms
from ase.io import read, write
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, ioformats
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from pyg_schnet.io.append_only import AppendOnlyFile, append_error, check_creatable
from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.io.locks import locked

_APPEND_ONLY = (".traj", ".extxyz", ".xyz")


class TrajectoryFile:
    """A trajectory that is complete after each frame; the first frame creates or changes the file.

    ``*.traj``, ``*.extxyz`` and ``*.xyz`` (extended) grow frame by frame. ASE writes other formats only as a
    whole: such a file holds the first frame at first and all frames at the end, when it is converted from
    one beside it that grows, for instance ``run.pdb.extxyz``. A second process that writes either is
    rejected.

    Args:
        path: File of any format in which ASE reads and writes many frames; ``None`` writes nothing.
        overwrite: Whether an existing file may be replaced.
        resume: The :attr:`size` from which to continue an existing file; what follows is removed.

    Attributes:
        path: As passed.
        frames: The file that grows, at ``path`` or beside it.
        last: The frame that was written last, if one was.

    Raises:
        FileExistsError: If the file exists, is a folder or link, or is being written by another process.
        FileNotFoundError: If the folder, or the file to resume, does not exist.
        ValueError: If ASE does not write many frames in this format, or the file to resume is too short.
    """

    def __init__(self, path: str | os.PathLike | None, overwrite: bool = False, resume: int | None = None):
        self.path = None if path is None else Path(path)
        self.frames: _ExtxyzFile | _TrajFile | None = None
        self._resume, self._replaces = resume, overwrite or resume is not None
        self._format: str | None = None  # of a file that ASE writes as a whole
        self.last: Atoms | None = None
        self._locks = ExitStack()
        if self.path is None:
            return
        frames = append_only_path(self.path)
        if frames != self.path:
            self._format = _multi_frame_format(self.path)
            check_creatable(self.path, self._replaces)
        self.frames = (_TrajFile if frames.suffix == ".traj" else _ExtxyzFile)(frames, overwrite, resume)

    @property
    def size(self) -> int:
        """Length of the file that grows: frames of a ``*.traj``, else bytes."""
        return 0 if self.frames is None else self.frames.size

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; the same object in succession is written once."""
        if self.frames is None or frame is self.last:
            return
        if self._format is not None and self._resume is None and self.last is None:
            self._convert(frame)  # a failure is reported now, not at the end
        self.last = frame
        self.frames.write(frame)

    def _convert(self, frames: Atoms | list[Atoms]) -> None:
        """Write the file in a format that does not grow."""
        assert self.path is not None
        with atomic_write(self.path) as part:
            write(part, frames, format=self._format)

    def __enter__(self) -> TrajectoryFile:
        if self.frames is None or self.path is None:
            return self
        with ExitStack() as locks:
            if self._format is not None:
                locks.enter_context(locked(self.path))
                check_creatable(
                    self.path, self._replaces
                )  # again: another process may have written it meanwhile
            self.frames.__enter__()
            self._locks = locks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.frames is None:
            return
        with self._locks:
            changed = self.frames.is_open or (kind is None and self._resume is not None)
            self.frames.__exit__(kind, error, traceback)
            if changed and self._format is not None:
                self._convert(read(self.frames.path, ":"))


class _ExtxyzFile(AppendOnlyFile):
    """Frames in extended xyz."""

    def write(self, frame: Atoms) -> None:
        text = io.StringIO()
        write(text, frame, format="extxyz")
        self.append(text.getvalue())


class _TrajFile(AppendOnlyFile):
    """Frames in ASE's binary format; lengths are numbers of frames."""

    _writer: TrajectoryWriter | None = None

    @property
    def size(self) -> int:
        return self._keep or 0 if self._writer is None else len(self._writer)

    def write(self, frame: Atoms) -> None:
        self.open()
        assert self._writer is not None
        try:
            self._writer.write(frame)
        except BaseException as error:
            # Closing it would count the incomplete frame in the file's header.
            cast(Any, self._writer.backend).fd.raw.close()
            self._writer = None
            if isinstance(error, OSError):
                raise append_error(self.path, error) from error
            raise

    def open(self) -> None:
        if self._writer is not None:
            return
        if self._keep is None:
            self.path.unlink(missing_ok=True)  # ASE would empty it under all of its names
        elif self._length() > self._keep:
            truncate_frames(self.path, self._keep)
        self._writer = TrajectoryWriter(self.path, "w" if self._keep is None else "a")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _length(self) -> int:
        """Count the frames, the last of which to keep must be readable.

        The header of a truncated file counts frames that are absent.
        """
        last = (self._keep or 0) - 1
        try:
            with self.path.open("rb") as file:  # ASE does not close damaged files
                frames = cast(Any, TrajectoryReader(file))
                if 0 <= last < len(frames):
                    frames[last]
                return len(frames)
        except FAILURES as error:
            raise ValueError(
                f"{self.path}: must be the trajectory of the run to resume, complete up to frame {last}, and "
                f"cannot be read ({error}); begin a new run"
            ) from None


def append_only_path(path: Path) -> Path:
    """Return the file that grows frame by frame when a trajectory is written to ``path``."""
    return path if path.suffix in _APPEND_ONLY else path.with_name(f"{path.name}.extxyz")


def truncate_frames(path: Path, number: int) -> None:
    """Truncate a ``*.traj`` after a number of frames; a kill may have left part of the next one."""
    with atomic_write(path) as part, path.open("rb") as file, TrajectoryWriter(part) as writer:
        stored = cast(Any, TrajectoryReader(file))
        for k in range(number):
            writer.write(stored[k])


def _multi_frame_format(path: Path) -> str:
    """Return ASE's name of the format of a file name, which must be one of many frames."""
    try:
        found = get_ioformat(filetype(os.fspath(path), read=False))
    except UnknownFileTypeError:
        found = None
    if found is None or found.single or not (found.can_read and found.can_write):
        formats = (
            form for form in ioformats.values() if form.can_read and form.can_write and not form.single
        )
        others = {f".{extension}" for form in formats for extension in form.extensions}
        names = (*_APPEND_ONLY, *sorted(others - set(_APPEND_ONLY)))
        raise ValueError(
            f"`trajectory` must end in {', '.join(names)} or another extension of a format in which ASE "
            f"writes many frames; got {path.name!r}"
        )
    return found.name
