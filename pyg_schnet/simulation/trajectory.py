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

from pyg_schnet.io.append_only import AppendOnlyFile, append_error
from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.io.locks import locked
from pyg_schnet.io.outputs import check_appendable, check_replaceable

_GROWING = (".traj", ".extxyz", ".xyz")


class TrajectoryFile:
    """A trajectory file, complete after each frame; the file opens, and changes, with the first.

    ``*.traj``, ``*.extxyz`` and ``*.xyz`` (extended) grow themselves. ASE writes other formats only whole:
    such a file has the first frame at first, and all at the end, from one beside it that grows, as
    ``run.pdb.extxyz`` does. Of two processes one writes it, and the other is refused.

    Args:
        path: In any format that ASE reads and writes with many frames; ``None`` writes nothing.
        overwrite: Whether a file that is there may be replaced.
        resume: Go on with the file that is there, from this :attr:`size`; what comes after it is cut off.

    Attributes:
        path: As given.
        growing: The file that grows, ``path`` or the one beside it.

    Raises:
        FileExistsError: If there is such a file, or a folder or link that is not replaced, or if another
            process is writing it.
        FileNotFoundError: If there is no such folder, or no such file to resume.
        ValueError: If ASE has no such format for many frames, or the file to resume is too short.
    """

    def __init__(self, path: str | os.PathLike | None, overwrite: bool = False, resume: int | None = None):
        self.path = self.growing = None if path is None else Path(path)
        self._file: TrajectoryWriter | AppendOnlyFile | None = None
        self._last = None
        self._format: str | None = None  # of one that is written whole
        self._resume: int | None = None
        self._locks = ExitStack()
        self._overwrite = overwrite
        if self.path is None or self.growing is None:
            return
        if self.path.suffix not in _GROWING:
            self._format = _format_of(self.path)
            self.growing = append_only_path(self.path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"`trajectory` must be in a folder that exists; create {self.path.parent}"
            )
        self._resume = resume
        self._check()

    @property
    def size(self) -> int:
        """How long the file is: frames of a ``*.traj``, else bytes."""
        if self._file is None:
            return self._resume or 0
        return len(self._file) if isinstance(self._file, TrajectoryWriter) else self._file.size

    def _check(self) -> None:
        """Raise if what is there must stay, or cannot be gone on with."""
        assert self.path is not None
        assert self.growing is not None
        check_replaceable(self.path)
        if self._resume is not None:
            check_appendable(self.growing)
            _check_length(self.growing, self._resume)
            return
        for there in (self.path, self.growing):
            check_replaceable(there)
            if there.exists() and not self._overwrite:
                raise FileExistsError(
                    f"{there} exists; choose another name, or replace it with overwrite=True (--overwrite)"
                )

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; the same object twice is one frame."""
        if self.growing is None or self.path is None or frame is self._last:
            return
        self._last = frame
        if self._file is None:
            if self._format is not None and self._resume is None:
                self._write_whole(frame)  # a failure is told now, not at the end
            self._file = _opened(self.growing, self._resume)
        if isinstance(self._file, TrajectoryWriter):
            self._write_to(self._file, frame)
        else:
            text = io.StringIO()
            write(text, frame, format="extxyz")
            self._file.append(text.getvalue())

    def _write_to(self, file: TrajectoryWriter, frame: Atoms) -> None:
        """Append a frame; closing such a file would count a half-written one, so it is left as it is."""
        assert self.growing is not None
        try:
            file.write(frame)
        except BaseException as error:
            self._file = None
            cast(Any, file.backend).fd.raw.close()
            if isinstance(error, OSError):
                raise append_error(self.growing, error) from error
            raise

    def _write_whole(self, frames: Atoms | list[Atoms]) -> None:
        """Write the file in a format that does not grow."""
        assert self.path is not None
        with atomic_write(self.path) as part:
            write(part, frames, format=self._format)

    def __enter__(self) -> TrajectoryFile:
        if self.path is None or self.growing is None:
            return self
        self._locks.enter_context(locked(*dict.fromkeys((self.path, self.growing))))
        try:
            self._check()  # again: another process may just have written it
        except BaseException:
            self._locks.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._file is None and self._resume is not None and self.growing is not None:
                self._file = _opened(self.growing, self._resume)  # without what a kill left at its end
            if self._file is not None:
                self._file.close()
                if self._format is not None and self.growing is not None:
                    self._write_whole(read(self.growing, ":"))
        finally:
            self._locks.close()


def append_only_path(path: Path) -> Path:
    """Return the file that grows frame by frame, where a trajectory is written as ``path``."""
    return path if path.suffix in _GROWING else path.with_name(f"{path.name}.extxyz")


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
    there = _whole_frames(path, size) if path.suffix == ".traj" else path.stat().st_size
    if there < size:
        raise ValueError(
            f"{path}: must be as long as it was when its restart file was written, {size}, got {there}; "
            "begin a new run"
        )


def truncate_frames(path: Path, number: int) -> None:
    """Cut a ``*.traj`` after some frames; what follows may be what a kill left."""
    with atomic_write(path) as part, path.open("rb") as file, TrajectoryWriter(part) as writer:
        stored = cast(Any, TrajectoryReader(file))
        for place in range(number):
            writer.write(stored[place])


def _opened(path: Path, size: int | None) -> TrajectoryWriter | AppendOnlyFile:
    """Open a new file, or one to append to, without what is beyond a size."""
    if path.suffix != ".traj":
        return AppendOnlyFile(path, size or 0)
    if size is None:
        path.unlink(missing_ok=True)  # ASE would empty it, whatever other names it has
        return TrajectoryWriter(path)
    if _frames(path) > size:
        truncate_frames(path, size)
    return TrajectoryWriter(path, "a")


def _whole_frames(path: Path, size: int) -> int:
    """Count the frames of a ``*.traj``; one that the run wrote must be readable, as the last of ``size`` is.

    The header counts frames whether or not they are there, as after a file was cut off.
    """
    try:
        with path.open("rb") as file:  # by ourselves, for ASE leaves it open where it is damaged
            frames = cast(Any, TrajectoryReader(file))
            if 0 < size <= len(frames):
                frames[size - 1]
            return len(frames)
    except FAILURES as error:
        raise ValueError(
            f"{path}: must be the trajectory of the run to resume, whole up to frame {size - 1}, and cannot "
            f"be read ({error}); begin a new run"
        ) from None


def _frames(path: Path) -> int:
    with TrajectoryReader(path) as frames:
        return len(frames)
