"""Conversion of finished results to the format that was asked for, frame by frame where that is possible."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ase.db
from ase import Atoms
from ase.io import write

from pyg_schnet.io.atomic import atomic_write, rename_durably
from pyg_schnet.io.compression import COMPRESSED
from pyg_schnet.prediction.partial_output import Part

_OWN_KEYS = (
    "input_frame",
    "converged",
    "steps",
    "stopped",
    "run",
    "energy_deviation",
    "max_forces_deviation",
)
_PLAIN = {("extxyz", ".xyz"), ("extxyz", ".extxyz"), ("traj", ".traj")}


def finish(part: Part, path: Path, kind: str) -> None:
    """Make a file of a part, which then is gone; before the file is whole, nothing has its name.

    Plain and compressed extended xyz, trajectories and databases take no memory to speak of; other formats
    (``.json``, …) are written by ASE at once, which holds all frames.

    Args:
        part: Closed.
        path: The file.
        kind: ASE's name of its format.

    Raises:
        OSError: If the disk is full; the part is as it was.
    """
    if (kind, path.suffix) in _PLAIN:
        rename_durably(part.path, path)
        return
    with atomic_write(path) as other:
        if kind == "extxyz" and path.suffix.lower() in COMPRESSED:
            with part.path.open("rb") as text, COMPRESSED[path.suffix.lower()](other, "wb") as packed:
                shutil.copyfileobj(text, packed, 2**16)
        elif kind in ("db", "json"):
            _to_database(part.frames(), other, kind)
        else:
            write(other, cast(Any, list(part.frames())), format=kind)
    part.path.unlink()


def _to_database(frames: Iterator[Atoms], path: Path, kind: str) -> None:
    """Write one of ASE's databases, with what is told of a frame where these keep it."""
    try:
        with cast(Any, ase.db.connect(path, type=kind, use_lock_file=False)) as database:
            for frame in frames:
                database.write(frame, {key: frame.info[key] for key in _OWN_KEYS if key in frame.info})
    except sqlite3.Error as error:  # as SQLite calls a full disk
        raise OSError(str(error)) from None
