"""Files that ASE reads: extended xyz, its databases and trajectories, outputs of other programs."""

from __future__ import annotations

import io
import lzma
import math
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import ParseError as XMLParseError

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow
from ase.io import ParseError, ulm
from ase.io.extxyz import read_xyz
from ase.io.formats import UnknownFileTypeError, filetype
from ase.units import Bohr, Hartree

from pyg_schnet.io.compression import COMPRESSED, check_unpacked, unpacked_limit
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.formats.labels import Keys, Labels
from pyg_schnet.io.formats.records import Record, gather
from pyg_schnet.io.formats.sqlite import check_tables
from pyg_schnet.io.formats.sqlite import stated_units as units_of_database
from pyg_schnet.io.formats.stated_units import chosen_units, stated_units
from pyg_schnet.io.formats.xyz_header import parse_header
from pyg_schnet.io.units import Units

# Formats of ASE that hold energies, and whose readers neither unpickle, execute, call other programs nor ask
# servers; what plug-ins add to ASE is not among them.
FORMATS = frozenset(
    {
        *("abinit-out", "aims-output", "castep-geom", "castep-md", "espresso-out"),
        *("gamess-us-out", "gaussian-out", "gpaw-out", "nwchem-out", "onetep-out", "orca-output", "qbox"),
        *("runnerdata", "turbomole-gradient", "vasp-out", "vasp-xml"),
    }
)
_KINDS = {".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj", ".db": "db", ".json": "json"}
_READ = (
    f"these are .npz, .h5, .hdf5, {', '.join(_KINDS)} and, by their content, outputs of other programs: "
    f"{', '.join(sorted(FORMATS))}"
)
_ROWS_AT_ONCE = 1000
_LONGEST_LINE = 2**24  # characters
_LARGEST_FRAME = 2**28  # characters; some millions of atoms
_PEEKED = 2**12  # bytes
_LONGEST_REASON = 300  # characters
# What ASE's readers raise where a file is not as they expect it.
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(ParseError, RuntimeError, SyntaxError, TypeError, UnknownFileTypeError, ValueError, XMLParseError),
    *(lzma.LZMAError, sqlite3.Error, struct.error, zlib.error),
)


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels.

    Labels are looked for in the calculator's results, where ASE puts what it recognises, then in
    ``atoms.info`` and ``atoms.arrays``, or in a database's key-value pairs and data. Forces are those without
    constraints.

    Args:
        path: The file.
        keys: Which labels; those that are recognised by default.
        units: Of the file; by default what a database of SchNetPack or the structures themselves state,
            Hartree and Bohr for RuNNer's and n2p2's ``input.data``, ASE's eV and Å else.

    Raises:
        ValueError: If the file is damaged or of a kind that is not read, if labels are missing, or if it
            states units that are not known, or of some structures only.
    """
    kind = _kind(path)
    structures = _guarded(path, records(path))
    if kind == "runnerdata":
        return gather(map(_unconverted, structures), str(path), keys, units or Units("Hartree", "Bohr"))
    if kind == "db":
        return gather(structures, str(path), keys, partial(_units_of_database, path, units))
    if (first := next(structures, None)) is not None:
        own = chosen_units(str(path), units, lambda: _stated_units(path, first))
        rest = structures if units is not None else _of_units(path, structures, own)
        units, structures = own, chain([first], rest)
    return gather(structures, str(path), keys, units or Units("eV"))


def _units_of_database(path: Path, given: Units | None, labels: Labels) -> Units:
    return chosen_units(str(path), given, lambda: units_of_database(path, labels)) or Units("eV")


def _stated_units(path: Path, record: Record) -> Units | None:
    try:
        return stated_units(record.places.get("info", {}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _of_units(path: Path, structures: Iterator[Record], units: Units | None) -> Iterator[Record]:
    """Check that all structures state the units that the first one states."""
    for number, record in enumerate(structures, start=1):
        if (own := _stated_units(path, record)) != units:
            raise ValueError(
                f"{path}: frame {number} must state the units of frame 0, {units or 'none'}, got "
                f"{own or 'none'}; set `units`"
            )
        yield record


def is_periodic(path: Path) -> bool:
    """Tell whether any structure of a file is periodic."""
    return any(record.pbc.any() for record in _guarded(path, records(path)))


def records(path: Path) -> Iterator[Record]:
    """Give the structures of a file, one by one.

    Raises:
        ValueError: If the file is of a kind that is not read.
    """
    kind = _kind(path)
    if kind == "extxyz":
        return map(_of_atoms, read_extxyz(path))
    if kind == "traj":
        return _trajectory(path)
    if kind == "db":
        check_database(path)
    if kind in ("db", "json"):
        return map(_of_row, _rows(path, kind))
    return map(_of_atoms, _output(path, kind))


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    ending = Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix
    if ending in _KINDS:
        return _KINDS[ending]
    check_unpacked(path)
    if is_runner_data(path):
        return "runnerdata"
    try:
        kind = filetype(str(path))
    except (UnknownFileTypeError, *FAILURES) as error:
        raise ValueError(f"{path}: its kind is not known ({error}); {_READ}") from None
    if kind not in FORMATS and kind not in ("extxyz", "traj"):
        raise ValueError(f"{path}: must be of a kind that is read, got '{kind}'; {_READ}")
    return kind


def is_runner_data(path: Path) -> bool:
    """Whether a file has a name of n2p2 (``input.data``, ``input.data.*``, ``*.data``) and begins so."""
    name = path.name.lower()
    if name.startswith(".") or not (name.startswith("input.data.") or name.endswith(".data")):
        return False
    with path.open("rb") as file:
        return re.search(rb"(?m)^begin\b", file.read(_PEEKED)) is not None


def _guarded(path: Path, structures: Iterator[Record]) -> Iterator[Record]:
    """Say of what goes wrong in which frame it did."""
    number = 0
    while True:
        try:
            record = next(structures)
        except StopIteration:
            return
        except FAILURES as error:
            raise ValueError(
                f"{path}: frame {number} cannot be read ({shortened(error)}); repair it or write it again"
            ) from None
        yield record
        number += 1


def shortened(error: BaseException) -> str:
    """Give a reader's message in one line; some hold what they read, whatever its length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _of_atoms(atoms: Atoms) -> Record:
    results = getattr(atoms.calc, "results", {})
    own = {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    places = {"calculator": results, "info": atoms.info, "arrays": own}
    return Record(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, places)


def _of_row(row: AtomsRow) -> Record:
    results = {name: row[name] for name in all_properties if row.get(name) is not None}
    places = {"calculator": results, "key_value_pairs": row.key_value_pairs, "data": row.data}
    return Record(row["numbers"], row["positions"], np.asarray(row["cell"]), np.asarray(row["pbc"]), places)


def read_extxyz(path: Path) -> Iterator[Atoms]:
    """Read extended xyz frame by frame; ASE's own loop ends without a word at an empty line."""
    opened = COMPRESSED.get(path.suffix.lower(), open)
    with opened(path, "rb") as binary, io.TextIOWrapper(binary, "utf-8", "replace") as file:
        for frame in xyz_frames(bounded_lines(file, unpacked_limit(path))):
            yield read_frame(frame)


def read_frame(lines: list[str]) -> Atoms:
    """Read one frame of extended xyz.

    Raises:
        ValueError: If its header is wrong; ASE raises other errors.
    """
    info = parse_header(lines[1], lines[2:])
    return next(read_xyz(io.StringIO("".join(lines)), 0, lambda _: info))


def xyz_frames(lines: Iterator[str]) -> Iterator[list[str]]:
    """Give the lines of each frame; others may take lines between frames.

    Args:
        lines: Of the file, as :func:`bounded_lines` gives them.

    Raises:
        ValueError: If a frame is no such, or the file ends amid it.
    """
    line = next(lines, "")
    while line:
        if not line.strip():  # between frames, or in the end
            line = next(lines, "")
            continue
        if not line.strip().isdigit():
            raise ValueError(f"it must begin with the number of its atoms, got {line.strip()[:40]!r}")
        atoms = int(line)
        frame = [line]
        size = 0
        for line in islice(lines, atoms + 1):
            frame.append(line)
            size += len(line)
            if size > _LARGEST_FRAME:
                raise ValueError(f"it must have at most {_LARGEST_FRAME:,} characters, got more")
        if len(frame) < atoms + 2:
            raise ValueError(f"it must have {atoms} atoms, the file ends after {max(0, len(frame) - 2)}")
        yield frame
        line = next(lines, "")


def bounded_lines(file: io.TextIOBase, most: float = math.inf) -> Iterator[str]:
    """Give lines, which must have an end.

    Args:
        file: The text.
        most: How many characters it may have, as :func:`unpacked_limit` returns it.

    Raises:
        ValueError: If one is very long, or all are together.
    """
    size = 0
    while line := file.readline(_LONGEST_LINE):
        size += len(line)
        if size > most:
            raise ValueError(f"it must unpack to at most {most:,} bytes, got more; unpack it if you trust it")
        if len(line) == _LONGEST_LINE:
            raise ValueError(
                f"it must have lines of less than {_LONGEST_LINE:,} characters, got a longer one"
            )
        yield line


def _trajectory(path: Path) -> Iterator[Record]:
    """Read what ASE's trajectories store, without making structures of it, which takes most of the time."""
    with path.open("rb") as file:  # by ourselves, for ASE leaves it open where it is damaged
        stored = ulm.Reader(file)
        if stored.get_tag() != "ASE-Trajectory":
            raise ValueError(f"it is a file of {stored.get_tag()!r}")
        first: tuple[Any, Any] | None = None
        for number in range(len(stored)):
            item = cast(Any, stored[number])
            numbers, pbc = (item.numbers, item.pbc) if "numbers" in item else cast(tuple, first)
            first = first or (numbers, pbc)  # written again where it changes
            results = item.calculator if "calculator" in item else {}
            places = {
                "calculator": {name: results.get(name) for name in all_properties if name in results},
                "info": item.get("info") or {},
            }
            cell = np.asarray(item.cell, dtype=np.float64)
            yield Record(np.asarray(numbers), item.positions, cell, np.asarray(pbc), places)


def _unconverted(record: Record) -> Record:
    """Undo that ASE's reader takes ``input.data`` for Hartree and Bohr, which the format does not fix."""
    results = dict(record.places["calculator"])
    for name, factor in (("energy", Hartree), ("forces", Hartree / Bohr)):
        if results.get(name) is not None:
            results[name] = np.asarray(results[name]) / factor
    places = {**record.places, "calculator": results}
    return replace(record, positions=record.positions / Bohr, cell=record.cell / Bohr, places=places)


def _rows(path: Path, kind: str) -> Iterator[AtomsRow]:
    opened = cast(Any, ase.db.connect(path, type=kind, use_lock_file=False))
    with opened as database:  # otherwise it connects anew for each row
        if kind == "json":  # it reads the whole file for each selection
            yield from database.select()
            return
        last = 0
        while rows := list(database.select([("id", ">", last)], sort="id", limit=_ROWS_AT_ONCE)):
            yield from rows
            last = rows[-1].id


def check_database(path: Path) -> None:
    """Look before ASE does, which adds its tables to a database that has none.

    Raises:
        ValueError: If it is no database of ASE, or a hostile one.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            check_tables(database)
    except (sqlite3.Error, ValueError) as error:
        raise ValueError(f"{path}: must be a database of ASE, in SQLite ({error}); write it again") from None


def _output(path: Path, kind: str) -> Iterator[Atoms]:
    found = ase.io.iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True)
    yield from (atoms for atoms in found if isinstance(atoms, Atoms))
