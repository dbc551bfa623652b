"""Files of results that grow frame by frame and are there when they are complete."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

from ase import Atoms
from ase.io import read, write
from ase.io.extxyz import read_xyz
from ase.io.formats import filetype
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from pyg_schnet.cli.files import check_output
from pyg_schnet.datasets.ase_files import FAILURES

_OWN_KEYS = (
    "input_frame",
    "converged",
    "steps",
    "stopped",
    "run",
    "energy_deviation",
    "max_forces_deviation",
)


class ResultFile:
    """A file of structures with results, which survives a kill.

    Frames are appended to ``OUT.part.extxyz``, or to ``OUT.part.traj`` for a trajectory, which ASE reads at
    any time; ``OUT.part.json`` beside it tells what makes them. OUT itself appears when :meth:`finish`
    renames or converts the part: nothing that is incomplete ever has its name.

    Args:
        path: OUT, in any format of ASE.
        settings: What results depend on; a run that goes on must have the same.
        overwrite: Whether to replace OUT, and the part of an earlier run.
        resume: Whether to go on with the part of an earlier run, if there is one.
        source: Tells the input from others; a part goes on with a mended one, a complete OUT does not.

    Attributes:
        written: Number of frames in the part.
        is_complete: Whether there is nothing to go on with, because OUT is there.

    Raises:
        FileExistsError: If OUT or a part of it is there and neither option tells what to do.
        FileNotFoundError: If OUT's folder does not exist.
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
        self._settings = json.loads(json.dumps(settings))
        self._label = hashlib.sha256(
            json.dumps([self._settings, source], sort_keys=True).encode()
        ).hexdigest()[:12]
        self._file: TrajectoryWriter | io.TextIOWrapper | None = None
        check_output(path, overwrite=overwrite or resume)
        self._kind = filetype(path, read=False)
        suffix = "traj" if self._kind == "traj" else "extxyz"
        self.part = self.path.with_name(f"{self.path.name}.part.{suffix}")
        self._about = self.path.with_name(f"{self.path.name}.part.json")
        if not resume and not overwrite and self.part.exists():
            raise FileExistsError(
                f"{self.part}: an earlier run left it; --resume goes on with it, --overwrite begins anew"
            )
        if resume and self.part.exists():
            self._check_settings()
        elif resume and self.path.exists():
            self._check_label()
            self.is_complete = True
        else:
            self.part.unlink(missing_ok=True)

    def earlier(self) -> Iterator[Atoms]:
        """Give the complete frames of an earlier run; after the last, what is left of another is cut off."""
        if not self.part.exists():
            return
        frames = self._whole_trajectory() if self.part.suffix == ".traj" else self._whole_xyz()
        for frame in frames:
            self.written += 1
            yield frame

    def write(self, frame: Atoms) -> None:
        """Append a frame with its results; ``info["run"]`` tells of which settings and input it is."""
        frame.info["run"] = self._label
        if self._file is None:
            self._open()
        for name in getattr(frame.calc, "results", {}):  # of a file that was read; ASE refuses both
            frame.info.pop(name, None)
            frame.arrays.pop(name, None)
        if isinstance(self._file, TrajectoryWriter):
            self._file.write(frame)
        else:
            assert self._file is not None
            text = io.StringIO()
            write(text, frame, format="extxyz")
            self._file.write(text.getvalue())  # at once: a kill seldom comes between
            self._file.flush()
        self.written += 1

    def finish(self) -> None:
        """Give the part its name, in OUT's format."""
        self._close()
        if (self._kind, self.path.suffix) in (("extxyz", ".xyz"), ("extxyz", ".extxyz"), ("traj", ".traj")):
            os.replace(self.part, self.path)
        else:
            other = self.path.with_name(f".part.{self.path.name}")  # the ending may tell the format
            other.unlink(missing_ok=True)
            frames = cast(list[Atoms], read(self.part, ":"))
            write(other, [self._for_format(frame) for frame in frames], format=self._kind)
            os.replace(other, self.path)
            self.part.unlink()
        self._about.unlink(missing_ok=True)

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        if kind is None:
            return
        if self.written:
            some = f"{self.written:,} structure{'s are' if self.written > 1 else ' is'}"
            print(f"pyg-schnet: {some} done, in {self.part}; --resume goes on", file=sys.stderr)
        elif self.part.exists() and self.part.stat().st_size == 0:  # the first could not be written
            self.part.unlink()
            self._about.unlink(missing_ok=True)

    def _open(self) -> None:
        temporary = self._about.with_name(f".{self._about.name}")
        temporary.write_text(json.dumps(self._settings, indent=1, ensure_ascii=False) + "\n")
        os.replace(temporary, self._about)
        traj = self.part.suffix == ".traj"
        self._file = TrajectoryWriter(self.part, "a") if traj else self.part.open("a")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check_label(self) -> None:
        """Refuse a complete file of another run: nothing would be left to do for this one."""
        try:
            last = read(self.path, -1)
        except FAILURES as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); begin anew with --overwrite") from None
        if cast(Atoms, last).info.get("run") != self._label:
            raise ValueError(
                f"{self.path}: is complete, with other settings, another model or another input, or in a "
                "format that does not tell; nothing is left to resume, --overwrite begins anew"
            )

    def _check_settings(self) -> None:
        try:
            others = json.loads(self._about.read_text())
        except (OSError, ValueError):
            raise ValueError(
                f"{self._about}: must tell how {self.part.name} came about, and cannot be read; begin anew "
                "with --overwrite"
            ) from None
        for name, value in self._settings.items():
            if others.get(name) != value:
                raise ValueError(
                    f"`--resume` must have the settings of the run that began {self.part}: {name} was "
                    f"{others.get(name)}, now it is {value}; give the same, or begin anew with --overwrite"
                )

    def _whole_xyz(self) -> Iterator[Atoms]:
        end = 0
        with self.part.open("rb") as file:
            for text in _whole_frames(file):
                try:
                    frame = next(read_xyz(io.StringIO(text.decode()), 0))
                except FAILURES:
                    break
                yield frame
                end = file.tell()
        os.truncate(self.part, end)

    def _whole_trajectory(self) -> Iterator[Atoms]:
        count = length = 0
        try:
            with self.part.open("rb") as file:
                stored = TrajectoryReader(file)
                length = len(stored)
                for count in range(length):
                    yield cast(Atoms, stored[count])
                count = length
        except FAILURES:
            self._cut_trajectory(count)

    def _cut_trajectory(self, count: int) -> None:
        """Copy the first frames: the end of such a file tells where they are."""
        other = self.part.with_name(f".{self.part.name}")
        with self.part.open("rb") as file, TrajectoryWriter(other) as whole:
            if count:
                stored = TrajectoryReader(file)
                for number in range(count):
                    whole.write(stored[number])
        if count:
            os.replace(other, self.part)
        else:
            other.unlink(missing_ok=True)
            self.part.unlink()

    def _for_format(self, frame: Atoms) -> Atoms:
        """Move what is told of a frame to where ASE's databases keep it."""
        if self._kind in ("db", "json"):
            frame.info = {"key_value_pairs": {k: frame.info[k] for k in _OWN_KEYS if k in frame.info}}
        return frame


def _whole_frames(file: BinaryIO) -> Iterator[bytes]:
    """Give frames of extended xyz as they are written: with all lines, each with its end."""
    while (line := file.readline()).strip().isdigit() and line.endswith(b"\n"):
        lines = [line, *islice(iter(file.readline, b""), int(line) + 1)]
        if len(lines) < int(line) + 2 or not lines[-1].endswith(b"\n"):
            return
        yield b"".join(lines)
