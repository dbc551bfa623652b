"""Results of a run over many structures: a database that survives kills, and then the output file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast
from zlib import crc32

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

_SCHEMA = (
    "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE frames (number INTEGER PRIMARY KEY, frame TEXT, refused TEXT, outside TEXT, crc32 INTEGER)",
)
_INPUT = "input_sha256"  # entry of the table `run` beside the settings
_LISTED = 1000  # structures that are listed with a reason; the others are counted


class PredictionResult(NamedTuple):
    """Result for one structure of the input: a row of the table ``frames``, beside a checksum.

    Attributes:
        number: Number of the structure in the input, from 0.
        frame: Structure with results, from :func:`~pyg_schnet.prediction.export.encode`; ``None`` if it was
            refused.
        refused: Reason for the refusal.
        outside: How the structure leaves the domain of the training, if it does.
    """

    number: int
    frame: str | None
    refused: str | None = None
    outside: str | None = None


class DamagedRowError(sqlite3.DatabaseError):
    """A row of results that is not what was written.

    Args:
        number: Number of the structure in the input.
    """

    def __init__(self, number: int):
        super().__init__(f"the result of structure {number} has a wrong checksum")


class Reasons(NamedTuple):
    """Structures that were refused, or that leave the domain of the training.

    Attributes:
        first: Numbers and reasons of the first thousand.
        total: Number of such structures.
    """

    first: list[tuple[int, str]]
    total: int


class ResultFile:
    """Output file of a run over many structures, whose results survive a kill.

    Results are stored in ``OUT.partial``, an SQLite database with a row per structure of the input and the
    settings of the run. OUT itself is written by :meth:`finish`: an incomplete file never has its name. A
    lock keeps other processes from writing the same output. Each batch is one transaction (write-ahead log,
    flushed to the disk at checkpoints): a kill loses the batch in work, a power cut some batches more.

    Args:
        path: OUT, in a format that ASE writes; or the file of a shard, which stays a database.
        settings: What the results depend on; a resumed run must have the same.
        overwrite: Whether to replace OUT and the partial results of an earlier run.
        resume: Whether to continue an earlier run, if there is one.
        input_sha256: Hash of the input. Partial results are resumed also with a changed input, see
            ``has_same_input``; a complete OUT is not.
        shard: Settings of a shard, if the file is one; frames carry the run of the whole OUT.

    Attributes:
        path: OUT.
        partial: The database.
        kind: ASE's name of the format of OUT.
        is_shard: Whether the file is a shard.
        run: Name of the run, from its settings and input; frames hold it in ``info["run"]``.
        written: Number of structures with results.
        refused: Structures without results, known after :meth:`finish`.
        outside: Structures that leave the domain of the training, known after :meth:`finish`.
        is_complete: Whether OUT exists already and nothing is left to do.
        has_same_input: Whether partial results are of the same input, to the byte.

    Raises:
        FileExistsError: If OUT or partial results exist and neither option is set, or if another process
            writes the output.
        OSError: If nothing can be written to the folder.
        ValueError: If the earlier run had other settings or its results are damaged, or if OUT is complete
            and of another run.
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
            raise ValueError("`--overwrite` and `--resume` exclude each other; give one of them")
        self.path, self.partial = Path(path), partial_path(path)
        self.kind = filetype(path if shard is None else _output_of(path), read=False)
        self.run = run_name(settings, input_sha256)
        self.written, self.is_complete, self.has_same_input = 0, False, True
        self.refused = self.outside = Reasons([], 0)
        self.is_shard = shard is not None
        self._settings: dict[str, Any] = json.loads(json.dumps({**settings, **(shard or {})}))
        self._input = input_sha256
        self._database: sqlite3.Connection | None = None
        lock = FileLock(self.path)
        lock.acquire()
        self._resources = ExitStack()
        self._resources.callback(lock.release)
        self._release = weakref.finalize(self, self._resources.close)
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
            self._close()
            if not self.written and not self.is_complete:
                _remove_database(self.partial)
        finally:
            self._release()

    def add(self, results: Sequence[PredictionResult]) -> None:
        """Store results, all of them or none.

        Raises:
            OSError: If the disk is full, with what to do.
        """
        with self._errors():
            database = self._database or self._create()
            rows = [(*result, _checksum(result.frame)) for result in results]
            with database:
                database.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", rows)
        self.written += sum(result.frame is not None for result in results)

    def rows(self) -> Iterator[tuple[int, str | None]]:
        """Yield the numbers of the structures that are done, ascending, and why each was refused.

        Raises:
            DamagedRowError: At a row whose checksum is wrong.
        """
        return iter(()) if self._database is None else _rows(self._database)

    def frames(self) -> Iterator[Atoms]:
        """Yield the structures with results, in the order of the input."""
        return (decode(text, self.kind) for text in self._texts())

    def reasons(self, column: str) -> Reasons:
        """Return the structures with a reason in a column, ``"refused"`` or ``"outside"``."""
        (total,) = next(self._select(f"count({column}) FROM frames"), (0,))
        query = f"number, {column} FROM frames WHERE {column} IS NOT NULL ORDER BY number LIMIT {_LISTED}"
        return Reasons(list(self._select(query)), total)

    def remove_from(self, number: int) -> None:
        """Remove the results of all structures from a number on."""
        if self._database is not None:
            with self._database:
                self._database.execute("DELETE FROM frames WHERE number >= ?", (number,))
            self.written = self._count()

    def insert_from(self, path: Path) -> None:
        """Insert the results of a shard; those that are there already stay."""
        with self._errors():
            database = self._database or self._create()
            database.execute("ATTACH DATABASE ? AS shard", (_read_only(path),))
            try:
                with database:
                    database.execute("INSERT OR IGNORE INTO main.frames SELECT * FROM shard.frames")
            finally:
                database.execute("DETACH DATABASE shard")
        self.written = self._count()

    def finish(self) -> None:
        """Write OUT and remove the partial results; or give the database of a shard its name.

        Raises:
            OSError: If the disk is full, with what to do.
        """
        with self._errors():
            database = self._database or self._create()  # a shard may be without structures
            self.refused, self.outside = self.reasons("refused"), self.reasons("outside")
            if self.is_shard:
                database.execute("PRAGMA journal_mode = DELETE")  # a file without companions
                self._close()
                rename_durably(self.partial, self.path)
            else:
                export(self._texts(), self.path, self.kind)
                self._close()
                _remove_database(self.partial)
        self.is_complete = True

    def _prepare(self, overwrite: bool, resume: bool) -> None:
        check_output(str(self.path), overwrite or resume, structures=not self.is_shard)
        remove_leftovers(self.path)
        self._check_earlier_version(overwrite)
        if overwrite or not self.partial.exists():
            if resume and self.path.exists():
                self._check_complete()
                self.is_complete = True
            return
        if not resume:
            raise FileExistsError(
                f"{self.partial}: has the results of an interrupted run; --resume continues it, --overwrite "
                "starts again"
            )
        check_appendable(self.partial)
        self._open()

    def _check_earlier_version(self, overwrite: bool) -> None:
        """Reject partial results of pyg_schnet 0.1, which were a file of frames and one of settings."""
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
                is_same = read_settings(self.path) == {**self._settings, _INPUT: self._input}
            else:
                is_same = _run_of(self.path, self.kind) == self.run
        except FAILURES as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); start again with --overwrite") from None
        if not is_same:
            raise ValueError(
                f"{self.path}: is complete, with other settings, another model or another input, or in a "
                "format that does not hold them; nothing is left to resume, --overwrite starts again"
            )

    def _open(self) -> None:
        """Open the partial results of an earlier run.

        Raises:
            ValueError: If they are damaged, or the run had other settings.
        """
        try:
            self._database = self._connect()
            earlier = _read_settings(self._database) if _tables(self._database) else None
        except (sqlite3.Error, ValueError) as error:
            if "locked" in str(error):  # from another host, where the file system's locks do not reach
                raise FileExistsError(
                    f"{self.partial}: another process is writing to it; wait until it ends"
                ) from None
            raise ValueError(
                f"{self.partial}: is damaged, or not of a run ({error}); start again with --overwrite"
            ) from None
        if earlier is None:  # killed before the first results
            self._close()
            return
        self.has_same_input = earlier.get(_INPUT) == self._input
        for name, value in self._settings.items():
            if earlier.get(name) != value:
                raise ValueError(
                    f"`--resume` must have the settings of the run that wrote {self.partial}: {name} was "
                    f"{earlier.get(name)}, now it is {value}; use the same, or start again with --overwrite"
                )
        self.written = self._count()

    def _create(self) -> sqlite3.Connection:
        _remove_database(self.partial)
        self._database = database = self._connect()
        content = {**self._settings, _INPUT: self._input}
        rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in content.items()]
        with database:
            database.execute("BEGIN")
            for statement in _SCHEMA:
                database.execute(statement)
            database.executemany("INSERT INTO run VALUES (?, ?)", rows)
        return database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.partial.absolute().as_uri(), timeout=0, uri=True)
        for pragma in (
            "trusted_schema = OFF",
            "locking_mode = EXCLUSIVE",  # no shared memory, which network file systems do not have
            "journal_mode = WAL",
            "synchronous = NORMAL",
        ):
            database.execute(f"PRAGMA {pragma}")
        self._resources.callback(database.close)
        return database

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):  # on a full disk the write-ahead log stays, and is read again
                self._database.close()
            self._database = None

    def _texts(self) -> Iterator[str]:
        return (text for (text,) in self._select("frame FROM frames WHERE frame IS NOT NULL ORDER BY number"))

    def _select(self, query: str) -> Iterator[tuple[Any, ...]]:
        if self._database is not None:
            yield from self._database.execute(f"SELECT {query}")

    def _count(self) -> int:
        return next(self._select("count(frame) FROM frames"), (0,))[0]

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
    """Return the path of the database that holds the results until OUT is complete."""
    return Path(f"{out}.partial")


def earlier_paths(out: str | Path) -> list[Path]:
    """Return the paths of partial results of pyg_schnet 0.1."""
    return [Path(f"{out}.part.{suffix}") for suffix in ("json", "extxyz", "traj")]


def run_name(settings: Mapping[str, Any], input_sha256: str) -> str:
    """Return the name of a run: a hash; a letter first, because ASE reads 12 digits as a number."""
    text = json.dumps([json.loads(json.dumps(settings)), input_sha256], sort_keys=True)
    return f"r{hashlib.sha256(text.encode()).hexdigest()[:11]}"


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings and the input's hash from the database of a shard.

    Raises:
        sqlite3.Error: If it is damaged or no such database.
        ValueError: If its settings are no JSON.
    """
    database = sqlite3.connect(_read_only(path), uri=True)
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        return _read_settings(database)
    finally:
        database.close()


def read_rows(path: Path) -> Generator[tuple[int, str | None], None, None]:
    """Yield the numbers of the structures in a shard, ascending, and why each was refused.

    Raises:
        DamagedRowError: At a row whose checksum is wrong.
    """
    database = sqlite3.connect(_read_only(path), uri=True)
    try:
        yield from _rows(database)
    finally:
        database.close()


def _rows(database: sqlite3.Connection) -> Iterator[tuple[int, str | None]]:
    query = "SELECT number, frame, refused, crc32 FROM frames ORDER BY number"
    for number, frame, refused, checksum in database.execute(query):
        if checksum != _checksum(frame):
            raise DamagedRowError(number)
        yield number, refused


def _checksum(frame: str | None) -> int:
    return crc32((frame or "").encode())


def _read_settings(database: sqlite3.Connection) -> dict[str, Any]:
    """Read the settings of a run; the database is compared with the schema and checked for damage first."""
    if _tables(database) != sorted(_SCHEMA):  # anything else might compute what is read
        raise sqlite3.DatabaseError("it has other tables")
    (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError(str(state))
    try:
        return {name: json.loads(value) for name, value in database.execute("SELECT name, value FROM run")}
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _tables(database: sqlite3.Connection) -> list[str]:
    """Return the statements of the schema, but for indices that SQLite makes itself."""
    return sorted(sql for (sql,) in database.execute("SELECT sql FROM sqlite_master") if sql is not None)


def _read_only(path: Path) -> str:
    """Return the address of a database that nobody writes, which SQLite neither locks nor changes."""
    return f"{path.absolute().as_uri()}?mode=ro&immutable=1"


def _remove_database(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _output_of(shard: str) -> str:
    return shard.rpartition(".shard-")[0]


def _run_of(path: Path, kind: str) -> str | None:
    """Return the run of the last frame of a complete file, if the format holds it."""
    if kind == "db":
        check_database(path)
    if kind in ("db", "json"):  # whose key-value pairs are not read as structures
        (last,) = cast(Any, ase.db.connect(path, type=kind, use_lock_file=False)).select(sort="-id", limit=1)
        return last.key_value_pairs.get("run")
    ((_, atoms),) = StructureFile(str(path), "-1")
    return atoms.info.get("run")
