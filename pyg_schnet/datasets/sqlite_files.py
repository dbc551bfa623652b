"""SQLite databases that may be hostile: they hold tables with rows, and compute nothing."""

from __future__ import annotations

import sqlite3


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
