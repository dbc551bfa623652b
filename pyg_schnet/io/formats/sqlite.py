"""ASE's databases in SQLite: no hostile schema, and the units that SchNetPack states in them."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pyg_schnet.io.formats.labels import Labels, is_virial
from pyg_schnet.io.units import ENERGY, LENGTH, Units

_LARGEST = 2**24  # characters of metadata
_FORCES = {f"{energy}/{name}": in_eV / Å for energy, in_eV in ENERGY.items() for name, Å in LENGTH.items()}


def check_tables(connection: sqlite3.Connection) -> None:
    """Refuse databases without ASE's table, or whose reading would compute something.

    A view, a virtual table or a generated column may compute for ever, or bytes without end.

    Raises:
        sqlite3.Error: If there is such a thing; the message says which.
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
            raise sqlite3.DatabaseError(
                f"'{name[:40]}' in it would compute what is read, which no data set does"
            )


def stated_units(path: Path, labels: Labels) -> Units | None:
    """Read the units that SchNetPack writes into the metadata of its databases.

    Args:
        path: A database that :func:`check_tables` accepted.
        labels: Which properties.

    Returns:
        The units by ``_property_unit_dict`` and ``_distance_unit``; ``None`` where there are none.

    Raises:
        ValueError: If a unit is not known.
    """
    metadata = _metadata(path)
    by_name = metadata.get("_property_unit_dict")
    if not isinstance(by_name, dict):
        return None
    length = _name(metadata.get("_distance_unit"), LENGTH) or "Å"
    energy, forces, stress = (
        None
        if label is None
        else _name(by_name.get(label.name), ENERGY if label is labels.energy else _FORCES)
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


def _metadata(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        query = "SELECT value FROM information WHERE name = 'metadata' AND length(value) <= ?"
        try:
            row = database.execute(query, (_LARGEST,)).fetchone()
            found = None if row is None else json.loads(row[0])
        except (sqlite3.Error, ValueError, TypeError, RecursionError):
            return {}  # of another program, or an older version of ASE
    return found if isinstance(found, dict) else {}


def _name(unit: object, known: dict[str, float]) -> str | None:
    """Return the name of a unit that may be stated as its factor to eV and Å; ``None`` where it is not."""
    if isinstance(unit, int | float):
        names = (name for name, factor in known.items() if math.isclose(unit, factor, rel_tol=1e-5))
        return next(names, str(unit))
    return None if unit is None else str(unit)
