"""Files of ISO17: SQLite databases of ASE, read by SQL, and lists of row ids."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyg_schnet.io.formats.ase_db import check_tables
from pyg_schnet.io.formats.frames import Frames

_ROWS_AT_ONCE = 5_000  # some 10 MB
_TYPES = {"float64": "<f8", "float32": "<f4"}
# Errors of damaged or hostile rows besides ValueError, for instance by deeply nested JSON.
_DAMAGES = (TypeError, KeyError, OverflowError, RecursionError)


def read_database(path: Path, name: str) -> Iterator[tuple[np.ndarray, Frames]]:
    """Read a database of ISO17 by SQL, eight to twenty times as fast as ``ase.db`` and without writing to it.

    Args:
        path: SQLite database of ASE with the key-value ``total_energy`` and ``atomic_forces`` in the data.
        name: Name of the file, for error messages.

    Yields:
        Ids of up to 5,000 rows, ascending, shape ``(frames,)``, int64, and their frames in eV and Å.

    Raises:
        ValueError: If the file is damaged or of another kind; the message names the row.
    """
    empty = True
    try:
        with closing(_connect(path)) as connection:
            columns = "rowid, pbc, numbers, positions, key_value_pairs, data"  # rowid is the integer `id`
            cursor = connection.execute(f"SELECT {columns} FROM systems ORDER BY rowid")
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                empty = False
                yield _frames(name, rows)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{name}: must be an SQLite database of ASE, got another or a damaged file ({error}); "
            "get the file again"
        ) from None
    if empty:
        raise ValueError(f"{name}: must hold at least one row, got none; get the file again")


def _connect(path: Path) -> sqlite3.Connection:
    # immutable: without lock and journal, so the folder may be read-only
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        check_tables(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def _frames(name: str, rows: list[tuple]) -> tuple[np.ndarray, Frames]:
    decoded = []
    for row, *columns in rows:
        try:
            decoded.append(_decode(*columns))
        except ValueError as error:
            raise ValueError(f"{name}: row {row}: {error}; get the file again") from None
        except _DAMAGES as error:
            raise ValueError(f"{name}: row {row}: is damaged ({error!r}); get the file again") from None
    numbers, positions, energy, forces = zip(*decoded, strict=True)
    frames = Frames(
        np.concatenate(numbers),
        np.concatenate(positions).astype(np.float64, copy=False),  # in native byte order
        np.array([len(each) for each in numbers]),
        np.array(energy),
        np.concatenate(forces),
    )
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    _check(frames, name, ids)
    return ids, replace(frames, numbers=frames.numbers.astype(np.uint8))


def _check(frames: Frames, name: str, ids: np.ndarray) -> None:
    try:
        frames.check(name)
    except ValueError:
        for number, row in enumerate(ids):  # one by one, to name the id of the row
            frames.part(number, number + 1).check(f"{name}: row {row}")
        raise


def _decode(
    pbc: Any, numbers: Any, positions: Any, pairs: Any, data: Any
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Decode a row: atomic numbers ``(atoms,)``, positions and forces ``(atoms, 3)``, energy."""
    if pbc:
        raise ValueError("must not be periodic")
    numbers = np.frombuffer(numbers, "<i4")
    positions = np.frombuffer(positions, "<f8").reshape(-1, 3)
    if len(numbers) != len(positions):
        raise ValueError(f"must have a position for each of {len(numbers)} atoms, got {len(positions)}")
    forces = _forces(data)
    if forces.shape != positions.shape:
        raise ValueError(f"`atomic_forces` must have shape {positions.shape}, got {forces.shape}")
    return numbers, positions, _energy(pairs), forces


def _energy(pairs: Any) -> float:
    energy = _dictionary("key-value pairs", pairs).get("total_energy")
    if isinstance(energy, bool) or not isinstance(energy, float | int):
        found = "none" if energy is None else repr(energy)
        raise ValueError(f"must have a number as the key-value `total_energy`, got {found}")
    return float(energy)


def _forces(data: Any) -> np.ndarray:
    """Decode forces from nested lists or an array, in JSON (older versions of ASE) or ASE's binary format.

    The binary format begins with the offset of its JSON, in which an array is ``[shape, type, offset]``.
    ASE's decoder would be half as fast for lists, and would build any object that the row describes.
    """
    text = data if isinstance(data, str) else data[int.from_bytes(data[:8], "little") :]
    forces = _dictionary("data", text).get("atomic_forces")
    if forces is None:
        raise ValueError("must have `atomic_forces` in its data, got none")
    if not isinstance(forces, dict):
        return np.array(forces, dtype=np.float64)
    shape, dtype, content = forces["__ndarray__"]
    if isinstance(data, bytes):
        content = np.frombuffer(data, _TYPES[dtype], math.prod(shape), content)
    return np.array(content, dtype=np.float64).reshape(shape)


def _dictionary(name: str, text: Any) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"must have a dictionary as its {name}, got {type(content).__name__}")
    return content


def read_ids(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Read a list of row ids, from 1.

    Args:
        path: Text file with one id per line.
        name: Name of the file, for error messages.
        rows: Ids of all rows, ascending, shape ``(rows,)``, possibly with gaps.

    Returns:
        Indices of the ids in ``rows``, int64, in the order of the file.

    Raises:
        ValueError: If the file holds anything else, an unknown id, or an id twice.
    """
    words = path.read_text(encoding="ascii", errors="replace").split()
    wrong = [word for word in words if not word.isdecimal() or len(word) > 18]  # 18 digits fit into int64
    if wrong or not words:
        found = repr(wrong[0][:40]) if wrong else "none"
        raise ValueError(f"{name}: must hold the id of a row in each line, got {found}")
    ids = np.array([int(word) for word in words], dtype=np.int64)
    positions = np.searchsorted(rows, ids).clip(max=len(rows) - 1)
    absent = ids[rows[positions] != ids]
    if len(absent):
        span = f"{rows[0]} to {rows[-1]}"
        raise ValueError(f"{name}: must hold ids of rows of reference.db, which are {span}, got {absent[0]}")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: must name each row once, got {values[counts > 1][0]} more than once")
    return positions
