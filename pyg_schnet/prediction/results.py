"""Output file of a run over many structures, whose results persist if the process is killed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import ase.db
from ase import Atoms
from ase.io.formats import filetype

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.io.atomic import remove_leftovers, rename_durably
from pyg_schnet.io.formats.ase import FAILURES
from pyg_schnet.io.formats.ase_db import check_database
from pyg_schnet.io.locks import FileLock
from pyg_schnet.io.outputs import check_appendable, check_output
from pyg_schnet.prediction.export import decode, export
from pyg_schnet.prediction.partial_output import PartialOutput, PredictionResult, Reasons, complete_shard

INPUT = "input_sha256"  # entry beside the settings of a run


class ResultFile:
    """Output file of a run over many structures, whose results persist if the process is killed.

    Results are stored in ``OUT.partial``, a :class:`~pyg_schnet.prediction.partial_output.PartialOutput`.
    OUT itself is written by :meth:`finish`: an incomplete file never has its name. A lock keeps other
    processes from writing the same output.

    Args:
        path: OUT, in a format that ASE writes; or the file of a shard, which stays a database.
        settings: What the results depend on; a resumed run must have the same.
        overwrite: Whether to replace OUT and the partial output of an earlier run.
        resume: Whether to continue an earlier run, if there is one.
        input_sha256: Hash of the input. A partial output is resumed also with a changed input, see
            ``has_same_input``; a complete OUT is not.
        shard: Settings of a shard, if the file is one; frames carry the run of the whole OUT.

    Attributes:
        path: OUT.
        partial: Path of the partial output.
        kind: ASE's name of the format of OUT.
        is_shard: Whether the file is a shard.
        run: Name of the run, from its settings and input; frames hold it in ``info["run"]``.
        written: Number of structures with results.
        rejected: Structures without results, known after :meth:`finish`.
        outside: Structures that leave the domain of the training, known after :meth:`finish`.
        is_complete: Whether OUT exists and nothing is left to do.
        has_same_input: Whether the partial output is of the same input, to the byte.

    Raises:
        FileExistsError: If OUT or a partial output exists and neither option is set, or if another process
            writes the output.
        OSError: If nothing can be written to the folder.
        ValueError: If ASE cannot write OUT, if the earlier run had other settings or its results are damaged,
            or if OUT is complete and of another run.
    """

    def __init__(
        self,
        path: str,
        settings: Mapping[str, Any],
        overwrite: bool = False,
        resume: bool = False,
        input_sha256: str = "",
        shard: Mapping[str, Any] | None = None,
    ):
        if overwrite and resume:
            raise ValueError("`--overwrite` and `--resume` exclude each other; use one of them")
        self.path, self.partial = Path(path), partial_path(path)
        self.is_shard = shard is not None
        self.kind = filetype(path.rpartition(".shard-")[0] if self.is_shard else path, read=False)
        self.run = run_name(settings, input_sha256)
        self.written, self.is_complete, self.has_same_input = 0, False, True
        self.rejected = self.outside = Reasons([], 0)
        everything = {**settings, **(shard or {}), INPUT: input_sha256}
        self._settings: dict[str, Any] = json.loads(json.dumps(everything))
        lock = FileLock(self.path)
        lock.acquire()
        self._output = PartialOutput(self.partial, lock.is_supported)
        resources = ExitStack()
        resources.callback(lock.release)
        resources.callback(self._output.close)
        self._release = weakref.finalize(self, resources.close)
        try:
            self._prepare(overwrite, resume)
        except BaseException:
            self._release()
            raise
        if self.is_complete:
            self._release()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self.written and not self.is_complete:
                self._output.remove()
        finally:
            self._release()

    def add(self, results: Sequence[PredictionResult]) -> None:
        """Store results, all of them or none.

        Raises:
            OSError: If the disk is full, with what to do.
        """
        with self._errors():
            self._opened().add(results)
        self.written += sum(result.frame is not None for result in results)

    def rows(self) -> Iterator[tuple[int, str | None]]:
        """Yield the numbers of the structures that are done, ascending, and the reasons of rejections.

        Raises:
            DamagedRowError: At a row whose checksum is wrong.
        """
        return self._output.rows()

    def frames(self) -> Iterator[Atoms]:
        """Yield the structures with results, in the order of the input."""
        return (decode(text, self.kind) for text in self._output.frames())

    def reasons(self, column: str) -> Reasons:
        """Return the structures with a reason in a column, ``"refused"`` or ``"outside"``."""
        return self._output.reasons(column)

    def remove_from(self, number: int) -> None:
        """Remove the results of all structures from a number on."""
        self._output.remove_from(number)
        self.written = self._output.count()

    def insert_from(self, path: Path) -> None:
        """Insert the results of a complete shard; those that exist stay."""
        with self._errors():
            self._opened().insert_from(path)
        self.written = self._output.count()

    def finish(self) -> None:
        """Write OUT and remove the partial output; or rename a shard's partial output.

        Raises:
            OSError: If the disk is full, with what to do.
            ValueError: If every structure was rejected.
        """
        with self._errors():
            output = self._opened()  # a shard may be without structures
            self.rejected, self.outside = output.reasons("refused"), output.reasons("outside")
            if self.is_shard:
                output.close(as_single_file=True)
                rename_durably(self.partial, self.path)
            elif self.written:
                export(output.frames(), self.path, self.kind)
                output.remove()
            else:
                number, reason = self.rejected.first[0]
                raise ValueError(
                    f"{self.path}: all structures are rejected; the first, frame {number}: {reason}"
                )
        self.is_complete = True

    def _opened(self) -> PartialOutput:
        if not self._output.is_open:
            self._output.create(self._settings)
        return self._output

    def _prepare(self, overwrite: bool, resume: bool) -> None:
        # Again, for another process may just have finished.
        check_output(str(self.path), overwrite or resume, structures=not self.is_shard)
        remove_leftovers(self.path)
        self._check_earlier_version(overwrite)
        if overwrite:
            return
        if self.partial.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.partial}: has the results of an interrupted run; --resume continues it, "
                    "--overwrite starts again"
                )
            check_appendable(self.partial)
            self._open()
        elif resume and self.path.exists():
            self._check_complete()
            self.is_complete = True

    def _check_earlier_version(self, overwrite: bool) -> None:
        """Reject the partial output of version 0.1, which was a file of frames and one of settings."""
        paths = earlier_paths(self.path)
        if paths[0].exists() and any(path.exists() for path in paths[1:]):
            if not overwrite:
                raise FileExistsError(
                    f"{paths[0]}: an interrupted run of an earlier version left it, which cannot be resumed; "
                    "start again with --overwrite"
                )
            for path in paths:
                path.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        """Check that the complete OUT is of this run.

        Raises:
            ValueError: If it is of another one.
        """
        try:
            if self.is_shard:
                with complete_shard(self.path) as shard:
                    is_same, self.written = shard.settings() == self._settings, shard.count()
            elif is_same := _run_of(self.path, self.kind) == self.run:
                self.written = _count(self.path)
        except FAILURES as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); start again with --overwrite") from None
        if not is_same:
            raise ValueError(
                f"{self.path}: is complete, with other settings, another model or another input, or in a "
                "format that does not hold them; nothing is left to resume, --overwrite starts again"
            )

    def _open(self) -> None:
        """Open the partial output of an earlier run.

        Raises:
            FileExistsError: If another process has it open.
            ValueError: If it is damaged, or the run had other settings.
        """
        try:
            self._output.open()
            earlier = self._output.settings()
        except (sqlite3.Error, ValueError) as error:
            if "locked" in str(error):  # by another host, which the lock does not reach
                raise FileExistsError(
                    f"{self.partial}: another process is writing to it; wait until it ends"
                ) from None
            raise ValueError(
                f"{self.partial}: is damaged, or not of a run ({error}); start again with --overwrite"
            ) from None
        if not earlier:  # killed before the first results
            self._output.remove()
            return
        self.has_same_input = earlier.get(INPUT) == self._settings[INPUT]
        for name, value in self._settings.items():
            if name != INPUT and earlier.get(name) != value:
                raise ValueError(
                    f"`--resume` must have the settings of the run that wrote {self.partial}: {name} was "
                    f"{earlier.get(name)}, now it is {value}; use the same, or start again with --overwrite"
                )
        self.written = self._output.count()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Name OUT in errors of writing, and what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(self._not_written(error)) from None
        except sqlite3.Error as error:
            raise ValueError(f"{self.partial}: is damaged ({error}); start again with --overwrite") from None
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise type(cause)(self._not_written(cause.strerror or " ".join(str(cause).split()))) from None

    def _not_written(self, reason: object) -> str:
        return f"{self.path}: cannot be written ({reason}); make room, then continue with --resume"


def partial_path(out: str) -> Path:
    """Return the path of the partial output of OUT."""
    return Path(f"{out}.partial")


def earlier_paths(out: str | Path) -> list[Path]:
    """Return the paths of a partial output of version 0.1."""
    return [Path(f"{out}.part.{suffix}") for suffix in ("json", "extxyz", "traj")]


def run_name(settings: Mapping[str, Any], input_sha256: str) -> str:
    """Return the name of a run: a hash; a letter first, because ASE reads 12 digits as a number."""
    text = json.dumps([json.loads(json.dumps(settings)), input_sha256], sort_keys=True)
    return f"r{hashlib.sha256(text.encode()).hexdigest()[:11]}"


def _count(path: Path) -> int:
    """Count the frames of a complete file."""
    source = StructureFile(str(path))
    known = source.count()
    return sum(1 for _ in source) if known is None else known


def _run_of(path: Path, kind: str) -> str | None:
    """Return the run of the last frame of a complete file, if the format holds it."""
    if kind == "db":
        check_database(path)
    if kind in ("db", "json"):  # whose key-value pairs are not read as structures
        (last,) = cast(Any, ase.db.connect(path, type=kind, use_lock_file=False)).select(sort="-id", limit=1)
        return last.key_value_pairs.get("run")
    ((_, atoms),) = StructureFile(str(path), "-1")
    return atoms.info.get("run")
