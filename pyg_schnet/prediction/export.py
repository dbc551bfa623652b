"""Encoding of structures with results, and their export to the format of an output file."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import ase.db
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import jsonio, write
from ase.io.extxyz import read_xyz
from ase.io.trajectory import TrajectoryWriter

from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.compression import COMPRESSED

_EXACT = ("traj", "db", "json")  # ASE's names of the formats that hold all digits of a float
_KEYS = (  # entries of `info` that ASE's databases hold as key-value pairs
    "input_frame",
    "converged",
    "steps",
    "fmax",
    "stopped",
    "start_outside",
    "run",
    "energy_deviation",
    "max_forces_deviation",
    "property_units",
)

_COLUMNS = ("numbers", "positions", "tags", "momenta", "masses", "initial_magmoms", "initial_charges")


def encode(frame: Atoms, kind: str) -> str:
    """Return a structure with its results as text, without loss for the format of the output.

    Args:
        frame: Structure with results.
        kind: ASE's name of the output's format. ``"traj"``, ``"db"`` and ``"json"`` are encoded in JSON with
            all digits; the others in extended xyz, which has eight decimals.
    """
    results = getattr(frame.calc, "results", {})
    for name in results:  # ASE writes either the results or entries of the same name, not both
        frame.info.pop(name, None)
        frame.arrays.pop(name, None)
    if kind in _EXACT:
        frame.info = {name: value for name, value in frame.info.items() if _is_json(value)}
        return jsonio.encode({"atoms": frame.todict(), "results": results})
    text = io.StringIO()
    write(text, frame, format="extxyz")
    return text.getvalue()


def decode(text: str, kind: str) -> Atoms:
    """Return the structure that :func:`encode` encoded for the same format."""
    if kind not in _EXACT:
        return next(read_xyz(io.StringIO(text), 0))
    content = cast(dict[str, Any], jsonio.decode(text, always_array=False))
    atoms = Atoms.fromdict(content["atoms"])
    atoms.calc = SinglePointCalculator(atoms, **content["results"])
    return atoms


def export(frames: Iterable[str], path: Path, kind: str) -> None:
    """Write encoded structures to a file, which appears under its name when it is complete.

    Extended xyz, also compressed, trajectories and databases are written structure by structure; ASE writes
    its other formats (``.json``, …) at once, with all structures in memory.

    Args:
        frames: From :func:`encode`.
        path: Output file.
        kind: ASE's name of its format.

    Raises:
        OSError: If the file cannot be written, as on a full disk.
    """
    with atomic_write(path) as temporary:
        if kind == "extxyz":
            opened = COMPRESSED.get(path.suffix.lower(), open)
            with opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
                file.writelines(frames)
            return
        structures = (decode(text, kind) for text in frames)
        if kind == "traj" and path.suffix == ".traj":
            with temporary.open("wb") as file:
                trajectory = TrajectoryWriter(file)
                for atoms in structures:  # results by keyword: ASE would compare the structures first
                    trajectory.write(atoms, **cast(Any, atoms.calc).results)
        elif kind in ("db", "json"):
            _write_database(structures, temporary, kind)
        else:
            write(temporary, list(structures), format=kind)


def _write_database(structures: Iterable[Atoms], path: Path, kind: str) -> None:
    """Write one of ASE's databases: own entries of ``info`` as key-value pairs, other numbers as data."""
    try:
        with cast(Any, ase.db.connect(path, type=kind, use_lock_file=False)) as database:
            for atoms in structures:
                pairs = {key: atoms.info[key] for key in _KEYS if key in atoms.info}
                others = {**atoms.info, **atoms.arrays}
                names = [key for key in others if key not in (*pairs, *_COLUMNS) and _is_number(others[key])]
                database.write(atoms, pairs, data={name: others[name] for name in names})
    except sqlite3.Error as error:  # how SQLite reports a full disk
        raise OSError(str(error)) from None


def _is_number(value: object) -> bool:
    """Return whether a value is a number or an array of numbers; ASE's databases read no others exactly."""
    return isinstance(value, int | float) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def _is_json(value: object) -> bool:
    """Return whether ASE encodes a value in JSON; its trajectories leave out the others."""
    if isinstance(value, str | int | float | bool):
        return True
    try:
        jsonio.encode(value)
    except TypeError:
        return False
    return True
