"""Databases of ASE in SQLite and JSON: validation, rows, and the units that SchNetPack states in them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import ase.db
import numpy as np
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow

from pyg_schnet.io.formats.labels import Labels, is_virial
from pyg_schnet.io.formats.records import Record
from pyg_schnet.io.units import ENERGY, LENGTH, Units

_ROWS_AT_ONCE = 1000
_LONGEST_METADATA = 2**24  # characters
_FORCES = {f"{energy}/{name}": in_eV / Å for energy, in_eV in ENERGY.items() for name, Å in LENGTH.items()}


def rows(path: Path, kind: str) -> Iterator[AtomsRow]:
    """Read the rows of a database, a thousand at a time: ASE fetches all that it selects.

    Args:
        path: The database; :func:`check_database` must have accepted it.
        kind: ``"db"`` (SQLite) or ``"json"``.
    """
    with _connect(path, kind) as database:  # otherwise ASE connects for each row
        if kind == "json":  # ASE reads the whole file for each selection
            yield from database.select()
            return
        last = 0
        while page := list(database.select([("id", ">", last)], sort="id", limit=_ROWS_AT_ONCE)):
            yield from page
            last = page[-1].id


def count(path: Path) -> int:
    """Count the rows of a database in SQLite."""
    with _connect(path, "db") as database:
        return database.count()


def as_record(row: AtomsRow) -> Record:
    """Convert a row to a record; its results, key-value pairs and data may be labels."""
    results = {name: row[name] for name in all_properties if row.get(name) is not None}
    sections = {"calculator": results, "key_value_pairs": row.key_value_pairs, "data": row.data}
    return Record(row["numbers"], row["positions"], np.asarray(row["cell"]), np.asarray(row["pbc"]), sections)


def check_database(path: Path) -> None:
    """Check a database before ASE opens it, which would add its tables to a database without them.

    Raises:
        ValueError: If it is not a database of ASE in SQLite, or reading it would compute something.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            check_tables(database)
    except (sqlite3.Error, ValueError) as error:
        raise ValueError(f"{path}: must be a database of ASE, in SQLite ({error}); write it again") from None


def check_tables(connection: sqlite3.Connection) -> None:
    """Check that a database has ASE's table, and that reading it executes nothing.

    A view, virtual table, trigger or generated column may compute without end.

    Raises:
        sqlite3.Error: If the table is missing, or there is such an object; the message names it.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    entries = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    if ("table", "systems") not in {entry[:2] for entry in entries}:
        raise sqlite3.DatabaseError("it has no table 'systems'")
    for kind, name, sql in entries:
        computes = kind in ("view", "trigger") or str(sql).upper().startswith("CREATE VIRTUAL")
        if kind == "table" and not computes:
            columns = connection.execute("SELECT hidden FROM pragma_table_xinfo(?)", (name,))
            computes = any(hidden for (hidden,) in columns)
        if computes:
            raise sqlite3.DatabaseError(f"'{name[:40]}' in it would execute code when it is read")


def stated_units(path: Path, labels: Labels) -> Units | None:
    """Read the units that SchNetPack writes into the metadata of its databases.

    Args:
        path: A database that :func:`check_database` accepted.
        labels: The labels that are read.

    Returns:
        The units in ``_property_unit_dict`` and ``_distance_unit``; ``None`` if there are none.

    Raises:
        ValueError: If a unit is not known.
    """
    metadata = _metadata(path)
    by_name = metadata.get("_property_unit_dict")
    if not isinstance(by_name, dict):
        return None
    length = _unit_name(metadata.get("_distance_unit"), LENGTH) or "Å"
    energy, forces, stress = (
        None
        if label is None
        else _unit_name(by_name.get(label.name), ENERGY if label is labels.energy else _FORCES)
        for label in labels
    )
    if labels.stress is not None and is_virial(labels.stress.name):
        stress = None  # an energy
    try:
        return Units.stated(energy or "eV", length, forces, stress)
    except ValueError as error:
        raise ValueError(
            f"{path}: states a unit that is not known ({error}); set `units`, for example "
            '"Hartree, Hartree/Bohr"'
        ) from None


def _connect(path: Path, kind: str) -> Any:
    return cast(Any, ase.db.connect(path, type=kind, use_lock_file=False))


def _metadata(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        query = "SELECT value FROM information WHERE name = 'metadata' AND length(value) <= ?"
        try:
            row = database.execute(query, (_LONGEST_METADATA,)).fetchone()
            found = None if row is None else json.loads(row[0])
        except (sqlite3.Error, ValueError, TypeError, RecursionError):
            return {}  # written by another program or an older version of ASE
    return found if isinstance(found, dict) else {}


def _unit_name(unit: object, known: dict[str, float]) -> str | None:
    """Return the name of a unit, which may be stated as its factor to eV and Å; ``None`` if absent."""
    if isinstance(unit, int | float):
        names = (name for name, factor in known.items() if math.isclose(unit, factor, rel_tol=1e-5))
        return next(names, str(unit))
    return None if unit is None else str(unit)
