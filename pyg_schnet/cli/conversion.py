"""Conversion of finished results to the format that was asked for, frame by frame where that is possible."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ase.db
from ase import Atoms
from ase.io import write

from pyg_schnet.cli.part import Part

_OWN_KEYS = (
    "input_frame",
    "converged",
    "steps",
    "stopped",
    "run",
    "energy_deviation",
    "max_forces_deviation",
)
_COMPRESS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
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
        _to_disk(part.path)
        os.replace(part.path, path)
        return
    other = path.with_name(f".part.{path.name}")  # the ending may tell the format
    _remove(other)
    try:
        if kind == "extxyz" and path.suffix.lower() in _COMPRESS:
            with part.path.open("rb") as text, _COMPRESS[path.suffix.lower()](other, "wb") as packed:
                shutil.copyfileobj(text, packed, 2**16)
        elif kind == "db":
            with cast(Any, ase.db.connect(other, type="db", use_lock_file=False)) as database:
                for frame in part.frames():
                    database.write(_for_database(frame))
        else:
            frames: Iterator[Atoms] = part.frames()
            if kind == "json":
                frames = map(_for_database, frames)
            write(other, cast(Any, list(frames)), format=kind)
        _to_disk(other)
        os.replace(other, path)
    except BaseException as error:
        _remove(other)
        if isinstance(error, sqlite3.Error):  # as SQLite calls a full disk
            raise OSError(str(error)) from None
        raise
    part.path.unlink()


def _for_database(frame: Atoms) -> Atoms:
    """Move what is told of a frame to where ASE's databases keep it."""
    frame.info = {"key_value_pairs": {k: frame.info[k] for k in _OWN_KEYS if k in frame.info}}
    return frame


def _to_disk(path: Path) -> None:
    """Wait until a file would survive a power cut: its name must not come before its content."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
