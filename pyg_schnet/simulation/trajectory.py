"""Trajectory files that grow frame by frame."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from ase import Atoms
from ase.io import write
from ase.io.trajectory import TrajectoryWriter

_SUFFIXES = (".traj", ".extxyz", ".xyz")


class FrameWriter:
    """A trajectory file, complete after each frame; the file opens with the first.

    Args:
        path: ``*.traj``, ``*.extxyz`` or ``*.xyz`` (extended); ``None`` writes nothing.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        FileExistsError: If there is such a file.
        FileNotFoundError: If there is no such folder.
        ValueError: If the suffix is another one.
    """

    def __init__(self, path: str | os.PathLike | None, overwrite: bool = False):
        self.path = None if path is None else Path(path)
        self._file = None
        self._last = None
        if self.path is None:
            return
        if self.path.suffix not in _SUFFIXES:
            raise ValueError(f"`trajectory` must end in {', '.join(_SUFFIXES)}; got {self.path.name!r}")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"`trajectory` must be in a folder that exists; create {self.path.parent}"
            )
        if self.path.exists() and not overwrite:
            raise FileExistsError(
                f"{self.path} exists; choose another name, or replace it with overwrite=True"
            )

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; the same object twice is one frame."""
        if self.path is None or frame is self._last:
            return
        self._last = frame
        if self._file is None:
            traj = self.path.suffix == ".traj"
            self._file = TrajectoryWriter(self.path) if traj else self.path.open("w")
        if isinstance(self._file, TrajectoryWriter):
            self._file.write(frame)
        else:
            write(self._file, frame, format="extxyz")
            self._file.flush()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
