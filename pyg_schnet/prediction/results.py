"""Files of results that grow frame by frame and are there when they are complete."""

from __future__ import annotations

import hashlib
import json
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import ase.db
from ase import Atoms
from ase.io import read
from ase.io.formats import filetype

from pyg_schnet.io.atomic import atomic_write, remove_leftovers
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.io.formats.ase_db import check_database
from pyg_schnet.io.locks import FileLock
from pyg_schnet.io.outputs import check_appendable, check_output
from pyg_schnet.prediction import conversion
from pyg_schnet.prediction.partial_output import Part, encoded, parsed, whole_texts

_SOURCE = "input_sha256"  # entry beside the settings of a part


class ResultFile:
    """A file of structures with results, which survives a kill.

    Frames are appended to ``OUT.part.extxyz``, or to ``OUT.part.traj`` for a trajectory, which ASE reads at
    any time; ``OUT.part.json`` beside it tells what makes them. OUT itself appears when :meth:`finish`
    renames or converts the part: nothing that is incomplete ever has its name. While it is written, a
    :class:`~pyg_schnet.io.locks.FileLock` keeps other processes off.

    Args:
        path: OUT, in any format of ASE.
        settings: What results depend on; a run that goes on must have the same.
        overwrite: Whether to replace OUT, and the part of an earlier run.
        resume: Whether to go on with the part of an earlier run, if there is one.
        source: Tells the input from others; a part goes on with a mended one, a complete OUT does not.

    Attributes:
        part: Path of what is there of it so far.
        content: The frames in it.
        run: Tells of which settings and input frames are.
        written: Number of frames in the part.
        is_complete: Whether there is nothing to go on with, because OUT is there.
        has_same_source: Whether the part of an earlier run is of the same input, to the byte.

    Raises:
        FileExistsError: If OUT or a part of it is there and neither option tells what to do, or if another
            process writes it.
        FileNotFoundError: If OUT's folder does not exist.
        PermissionError: If nothing can be written to it.
        ValueError: If ASE cannot write OUT, an earlier run had other settings, or OUT is complete and of
            another run.
    """

    def __init__(
        self,
        path: str,
        settings: Mapping[str, Any],
        overwrite: bool = False,
        resume: bool = False,
        source: str = "",
    ):
        if overwrite and resume:
            raise ValueError("`--overwrite` and `--resume` exclude each other; give one of them")
        self.path = Path(path)
        self.written, self.is_complete = 0, False
        self.has_same_source = False
        self._settings, self._source = json.loads(json.dumps(settings)), source
        self.run = run_name(self._settings, source)
        check_output(path, overwrite=overwrite or resume)
        self._kind = filetype(path, read=False)
        self.part = part_path(path)
        self.content = Part(self.part)
        self._about = self.path.with_name(f"{self.path.name}.part.json")
        lock = FileLock(self.path)
        lock.acquire()
        self._unlock = weakref.finalize(self, lock.release)
        try:
            self._prepare(overwrite, resume)
        except BaseException:
            self._unlock()
            raise
        if self.is_complete:
            self._unlock()

    def earlier(self) -> Iterator[Atoms]:
        """Give the complete frames of an earlier run; after the last, what is left of another is cut off."""
        if not self.part.exists():
            return
        for frame in self.content.frames():
            self.written += 1
            yield frame

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; ``info["run"]`` tells of which settings and input it is."""
        self.append(encoded(frame, self.run, self.content.is_text))

    def append(self, frame: bytes | Atoms) -> None:
        """Append a frame that :func:`~pyg_schnet.prediction.partial_output.encoded` made.

        Raises:
            OSError: If the disk is full, with what to do.
        """
        try:
            self.open()
            self.content.append(frame)
        except OSError as error:
            raise self._told(error) from None
        self.written += 1

    def finish(self) -> None:
        """Give the part its name, in OUT's format.

        Raises:
            OSError: If the disk is full, with what to do.
        """
        try:
            self.content.close()
            conversion.finish(self.content, self.path, self._kind)
        except OSError as error:
            raise self._told(error) from None
        self._about.unlink(missing_ok=True)

    def open(self) -> None:
        """Make the part, and write beside it what makes it, if this was not done."""
        if self.content.is_open:
            return
        with atomic_write(self._about) as part:
            about = {**self._settings, _SOURCE: self._source}
            part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        self.content.open()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.content.close(quietly=kind is not None)
            if kind is not None:
                self._tell_what_is_kept()
        finally:
            self._unlock()

    def _tell_what_is_kept(self) -> None:
        if self.written:
            some = f"{self.written:,} structure{'s are' if self.written > 1 else ' is'}"
            print(f"pyg-schnet: {some} done, in {self.part}; --resume goes on", file=sys.stderr)
        elif not self.part.exists() or self.part.stat().st_size == 0:
            self.part.unlink(missing_ok=True)  # the first could not be written
            self._about.unlink(missing_ok=True)

    def _prepare(self, overwrite: bool, resume: bool) -> None:
        check_output(str(self.path), overwrite or resume)  # again: another process may just have finished
        for own in (self.path, self.part, self._about):
            remove_leftovers(own)
        if not resume and not overwrite and self.part.exists():
            raise FileExistsError(
                f"{self.part}: an earlier run left it; --resume goes on with it, --overwrite begins anew"
            )
        if resume and self.part.exists():
            check_appendable(self.part)
            self._check_settings()
        elif resume and self.path.exists() and self.path.stat().st_size:  # an empty shard is made again
            self._check_run()
            self._about.unlink(missing_ok=True)  # of a run that was killed as OUT got its name
            self.is_complete = True
        else:
            self.part.unlink(missing_ok=True)

    def _check_run(self) -> None:
        """Refuse a complete file of another run: nothing would be left to do for this one."""
        try:
            run = _run_of(self.path, self._kind)
        except FAILURES as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); begin anew with --overwrite") from None
        if run != self.run:
            raise ValueError(
                f"{self.path}: is complete, with other settings, another model or another input, or in a "
                "format that does not tell; nothing is left to resume, --overwrite begins anew"
            )

    def _check_settings(self) -> None:
        try:
            others = json.loads(self._about.read_text())
            if not isinstance(others, dict):
                raise ValueError
        except (OSError, ValueError, RecursionError):
            raise ValueError(
                f"{self._about}: must tell how {self.part.name} came about, and cannot be read; begin "
                "anew with --overwrite"
            ) from None
        self.has_same_source = others.get(_SOURCE) == self._source
        for name, value in self._settings.items():
            if others.get(name) != value:
                raise ValueError(
                    f"`--resume` must have the settings of the run that began {self.part}: {name} was "
                    f"{others.get(name)}, now it is {value}; give the same, or begin anew with --overwrite"
                )

    def _told(self, error: OSError) -> OSError:
        """Say where the disk is full, in an error of the same kind."""
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = cause.strerror or " ".join(str(cause).split())
        return type(cause)(f"{self.path}: cannot be written ({reason}); make room, then go on with --resume")


def part_path(out: str) -> Path:
    """Return the file that grows until OUT is complete."""
    return Path(f"{out}.part.{ending(out)}")


def ending(path: str) -> str:
    """Give the format of the part of a file: ``"traj"`` for a trajectory, else ``"extxyz"``."""
    return "traj" if filetype(path, read=False) == "traj" else "extxyz"


def run_name(settings: Mapping[str, Any], source: str) -> str:
    """Name a run by its settings and input; a letter first, for ASE reads 12 digits as a number."""
    text = json.dumps([json.loads(json.dumps(settings)), source], sort_keys=True)
    return f"r{hashlib.sha256(text.encode()).hexdigest()[:11]}"


def _run_of(path: Path, kind: str) -> str | None:
    """Tell of which run the last frame is, if the format does."""
    if kind == "extxyz" and path.suffix in (".xyz", ".extxyz"):  # ASE would list all frames
        with path.open("rb") as file:
            return parsed(deque(whole_texts(file), maxlen=1).pop()).info.get("run")
    if kind in ("db", "json"):  # of which ASE reads no more than the structures
        if kind == "db":
            check_database(path)
        (last,) = cast(Any, ase.db.connect(path, type=kind, use_lock_file=False)).select(sort="-id", limit=1)
        return last.key_value_pairs.get("run")
    return cast(Atoms, read(path, -1)).info.get("run")
