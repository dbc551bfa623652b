"""Partial output of a run over many structures: an SQLite database with a row per structure."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

_SCHEMA = (
    "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE frames (number INTEGER PRIMARY KEY, frame TEXT, refused TEXT, outside TEXT, crc32 INTEGER)",
)
_PRAGMAS = (
    "trusted_schema = OFF",
    "locking_mode = EXCLUSIVE",  # no shared memory, which network file systems do not have
    "journal_mode = WAL",
    "synchronous = NORMAL",
)
_LISTED = 1000  # structures that are listed with a reason; the others are counted


class PredictionResult(NamedTuple):
    """Result for one structure of the input: a row of the table ``frames``, beside a checksum.

    Attributes:
        number: Number of the structure in the input, from 0.
        frame: Structure with results, from :func:`~pyg_schnet.prediction.export.encode`; ``None`` if it was
            rejected.
        rejected: Reason for the rejection.
        outside: How the structure leaves the domain of the training, if it does.
    """

    number: int
    frame: str | None
    rejected: str | None = None
    outside: str | None = None


class Reasons(NamedTuple):
    """Structures that were rejected, or that leave the domain of the training.

    Attributes:
        first: Numbers and reasons of the first thousand.
        total: Number of such structures.
    """

    first: list[tuple[int, str]]
    total: int


class DamagedRowError(sqlite3.DatabaseError):
    """A row of results whose checksum is wrong."""


class PartialOutput:
    """Results of a run so far, and its settings, in a database that persists if the process is killed.

    Each call of :meth:`add` is one transaction of a write-ahead log, which is flushed to the disk at
    checkpoints: a kill loses the current batch, a power cut perhaps some batches before it.

    Without a database, there are no results.

    Args:
        path: The file, which :meth:`open` opens and :meth:`create` creates.
        has_locks: Whether its file system has locks, without which SQLite would open nothing.
    """

    def __init__(self, path: Path, has_locks: bool = True):
        self.path = path
        self._options = "" if has_locks else f"?vfs={'win32' if os.name == 'nt' else 'unix'}-none"
        self._database: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """Return whether there is a database."""
        return self._database is not None

    def open(self) -> None:
        """Open the database.

        Raises:
            sqlite3.Error: If it is none, or another process has it open.
        """
        self._database = sqlite3.connect(
            f"{self.path.absolute().as_uri()}{self._options}", timeout=0, uri=True
        )
        try:
            for pragma in _PRAGMAS:
                self._database.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            self.close()
            raise

    def create(self, settings: Mapping[str, Any]) -> None:
        """Create the database, in place of one that exists.

        Args:
            settings: What the results depend on.
        """
        self.remove()
        rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in settings.items()]
        self.open()
        assert self._database is not None
        with self._database as database:
            database.execute("BEGIN")
            for statement in _SCHEMA:
                database.execute(statement)
            database.executemany("INSERT INTO run VALUES (?, ?)", rows)

    def settings(self) -> dict[str, Any]:
        """Read the settings, after a check for damage; none if a kill came before they were stored.

        Raises:
            sqlite3.Error: If the database is damaged, or has other tables.
            ValueError: If the settings are damaged.
        """
        schema = {sql for (sql,) in self._select("sql FROM sqlite_master") if sql is not None}
        if not schema:
            return {}
        if schema != set(_SCHEMA):  # anything else might compute what is read
            raise sqlite3.DatabaseError("it has other tables")
        ((state,),) = self._select("* FROM pragma_quick_check(1)")
        if state != "ok":
            raise sqlite3.DatabaseError(str(state))
        try:
            return {name: json.loads(value) for name, value in self._select("name, value FROM run")}
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None

    def add(self, results: Sequence[PredictionResult]) -> None:
        """Store results, all of them or none."""
        assert self._database is not None
        rows = [(*result, _checksum(result.frame)) for result in results]
        with self._database as database:
            database.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", rows)

    def insert_from(self, path: Path) -> None:
        """Insert the results of a complete shard; those that exist stay."""
        assert self._database is not None
        self._database.execute("ATTACH DATABASE ? AS shard", (_read_only(path),))
        try:
            with self._database as database:
                database.execute("INSERT OR IGNORE INTO main.frames SELECT * FROM shard.frames")
        finally:
            self._database.execute("DETACH DATABASE shard")

    def remove_from(self, number: int) -> None:
        """Remove the results of all structures from a number on."""
        if self._database is not None:
            with self._database as database:
                database.execute("DELETE FROM frames WHERE number >= ?", (number,))

    def rows(self) -> Iterator[tuple[int, str | None]]:
        """Yield the numbers of structures with results, ascending, and the reasons of rejections.

        Raises:
            DamagedRowError: At a row whose checksum is wrong.
        """
        rows = self._select("number, frame, refused, crc32 FROM frames ORDER BY number")
        for number, frame, rejected, checksum in rows:
            if checksum != _checksum(frame):
                raise DamagedRowError(f"the result of structure {number} has a wrong checksum")
            yield number, rejected

    def frames(self) -> Iterator[str]:
        """Yield the encoded frames, in the order of the input."""
        return (text for (text,) in self._select("frame FROM frames WHERE frame IS NOT NULL ORDER BY number"))

    def count(self) -> int:
        """Return the number of frames."""
        return next(self._select("count(frame) FROM frames"), (0,))[0]

    def reasons(self, column: str) -> Reasons:
        """Return the structures with a reason in a column, ``"refused"`` or ``"outside"``."""
        (total,) = next(self._select(f"count({column}) FROM frames"), (0,))
        query = f"number, {column} FROM frames WHERE {column} IS NOT NULL ORDER BY number LIMIT {_LISTED}"
        return Reasons(list(self._select(query)), total)

    def close(self, as_single_file: bool = False) -> None:
        """Close the database.

        Args:
            as_single_file: Whether to end its use of a write-ahead log, so that it may be moved.
        """
        if self._database is None:
            return
        if as_single_file:
            self._database.execute("PRAGMA journal_mode = DELETE")
        with suppress(sqlite3.Error):  # on a full disk the write-ahead log stays, and is read again
            self._database.close()
        self._database = None

    def remove(self) -> None:
        """Close the database and remove it."""
        self.close()
        for suffix in ("-wal", "-journal", ""):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _select(self, query: str) -> Iterator[tuple[Any, ...]]:
        return iter(()) if self._database is None else self._database.execute(f"SELECT {query}")


@contextmanager
def complete_shard(path: Path) -> Iterator[PartialOutput]:
    """Open the database of a complete shard, which is neither locked nor changed.

    Raises:
        sqlite3.Error: If it cannot be opened, or is damaged.
    """
    shard = PartialOutput(path)
    shard._database = sqlite3.connect(_read_only(path), uri=True)
    try:
        shard._database.execute("PRAGMA trusted_schema = OFF")
        yield shard
    finally:
        shard.close()


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro&immutable=1"


def _checksum(frame: str | None) -> int:
    return crc32((frame or "").encode())
