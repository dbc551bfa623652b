"""Files that ASE reads: extended xyz, trajectories, databases, and outputs of other programs."""

from __future__ import annotations

import lzma
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import ParseError as XMLParseError

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io import ParseError, iread, ulm
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from ase.io.trajectory import TrajectoryReader as ASETrajectoryReader
from ase.spacegroup.spacegroup import SpacegroupError
from ase.units import Bohr, Hartree

from pyg_schnet.io.compression import COMPRESSED, check_unpacked
from pyg_schnet.io.formats import ase_db
from pyg_schnet.io.formats.extxyz import ExtxyzReader, read_extxyz
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.formats.labels import Keys, Labels
from pyg_schnet.io.formats.records import Record, collect
from pyg_schnet.io.formats.stated_units import chosen_units, stated_units
from pyg_schnet.io.formats.structures import SequentialReader, StructureReader
from pyg_schnet.io.units import Units

SUFFIXES = (".xyz", ".extxyz", ".db", ".traj", ".json")
# Formats of ASE that hold energies, and whose readers neither unpickle nor execute anything nor call other
# programs or servers; formats that plug-ins add to ASE are not among them.
WITH_ENERGIES = frozenset(
    {
        *("abinit-out", "aims-output", "castep-geom", "castep-md", "espresso-out"),
        *("gamess-us-out", "gaussian-out", "gpaw-out", "nwchem-out", "onetep-out", "orca-output", "qbox"),
        *("runnerdata", "turbomole-gradient", "vasp-out", "vasp-xml"),
    }
)
# Formats of ASE whose readers contact servers, or open other files (or devices) that the first one names.
_WITH_REFERENCES = frozenset(
    {
        *("acemolecule-input", "acemolecule-out", "bundletrajectory", "elk", "eon", "mysql", "onetep-in"),
        *("postgresql", "struct", "xtd"),
    }
)
_KINDS = {".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj", ".db": "db", ".json": "json"}
_READ = (
    f"these are .npz, .h5, .hdf5, {', '.join(SUFFIXES)} and, by their content, outputs of other programs: "
    f"{', '.join(sorted(WITH_ENERGIES))}"
)
_PEEKED = 2**12  # bytes
_LONGEST_REASON = 300  # characters
# Errors that ASE's readers raise for invalid files.
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(ParseError, RuntimeError, SyntaxError, TypeError, UnknownFileTypeError, ValueError, XMLParseError),
    *(SpacegroupError, lzma.LZMAError, sqlite3.Error, struct.error, zlib.error),
)


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels.

    Labels are the calculator's results, where ASE stores those that it recognizes, else values of
    ``atoms.info`` and ``atoms.arrays``, or of a database's key-value pairs and data. Forces do not include
    constraints.

    Args:
        path: The file.
        keys: Names of the labels; recognized ones by default.
        units: Units of the file; by default those that a database of SchNetPack or the structures state,
            Hartree and Bohr for ``input.data`` of RuNNer and n2p2, else ASE's eV and Å.

    Raises:
        ValueError: If the file is damaged or of another kind, labels are missing, or it states units that are
            unknown or differ among structures.
    """
    kind = kind_of(path)
    if kind not in WITH_ENERGIES and kind not in _KINDS.values():
        raise ValueError(f"{path}: must be of a kind that is read, got '{kind}'; {_READ}")
    records = _checked(path, _records(path, kind))
    if kind == "runnerdata":
        return collect(map(_in_file_units, records), str(path), keys, units or Units("Hartree", "Bohr"))
    if kind == "db":
        return collect(records, str(path), keys, partial(_units_of_database, path, units))
    if (first := next(records, None)) is not None:
        own = chosen_units(str(path), units, lambda: _stated_units(path, first))
        rest = records if units is not None else _with_units(path, records, own)
        units, records = own, chain([first], rest)
    return collect(records, str(path), keys, units or Units("eV"))


def is_periodic(path: Path) -> bool:
    """Return whether any structure of a file is periodic."""
    return any(record.pbc.any() for record in _checked(path, _records(path, kind_of(path))))


def structure_reader(path: Path) -> StructureReader:
    """Return a reader of structures without labels, in any format of ASE that refers to no other file.

    Raises:
        ValueError: If the file is not a regular file, of an unknown format, or refers to other files.
    """
    if not path.is_file():  # reading a pipe or a device may not end
        raise ValueError(f"{path}: must be a file with structures, got a folder, pipe or device")
    kind = kind_of(path)
    if kind == "extxyz":
        return ExtxyzReader(path)
    if kind == "traj":
        return TrajectoryReader(path)
    if kind == "db":
        ase_db.check_database(path)
        rows = partial(ase_db.rows, path, kind)
        return SequentialReader(lambda: (row.toatoms() for row in rows()), partial(ase_db.count, path))
    return SequentialReader(partial(_atoms, path, kind))


class TrajectoryReader:
    """Reader of chosen structures of a trajectory of ASE.

    Attributes:
        place: Number in the file, from 0, of the structure that is being read.
    """

    def __init__(self, path: Path):
        self._path, self.place = path, 0

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Atoms]]:
        """Yield the structures of these ascending numbers; see :class:`StructureReader`."""
        with ASETrajectoryReader(self._path) as file:
            total = len(file)
            for self.place in numbers:
                if self.place >= total:
                    return
                yield self.place, cast(Atoms, file[self.place])

    def count(self) -> int:
        """Count the structures."""
        with ASETrajectoryReader(self._path) as file:
            return len(file)


def kind_of(path: Path) -> str:
    """Return ASE's name of the format of a file, by its suffix, else by its content.

    Raises:
        ValueError: If ASE does not read it, or if its reader opens other files or contacts a server.
    """
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix
    if inner in _KINDS and (inner == suffix or _KINDS[inner] == "extxyz"):  # only xyz is decompressed here
        return _KINDS[inner]
    check_unpacked(path)
    if is_runner_data(path):
        return "runnerdata"
    try:
        kind = filetype(str(path.absolute()))  # otherwise postgres.xyz would be the address of a server
    except (UnknownFileTypeError, *FAILURES) as error:
        raise ValueError(f"{path}: ASE cannot read it ({shortened(error)}); {_READ}") from None
    if kind not in ioformats or not ioformats[kind].can_read:
        raise ValueError(f"{path}: ASE cannot read it ('{kind[:40]}' is no format that it reads); {_READ}")
    if kind in _WITH_REFERENCES:
        raise ValueError(
            f"{path}: must hold its structures itself, got '{kind}', whose reader opens other files or "
            "contacts a server; convert it to extended xyz where you trust it"
        )
    return "extxyz" if kind == "xyz" else kind


def is_runner_data(path: Path) -> bool:
    """Return whether a file has a name (``*.data``, ``input.data.*``) and content of RuNNer and n2p2."""
    name = path.name.lower()
    if name.startswith(".") or not (name.startswith("input.data.") or name.endswith(".data")):
        return False
    with path.open("rb") as file:
        return re.search(rb"(?m)^begin\b", file.read(_PEEKED)) is not None


def shortened(error: BaseException) -> str:
    """Return the message of a reader's error in one line of bounded length; some quote the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _records(path: Path, kind: str) -> Iterator[Record]:
    if kind == "extxyz":
        return map(_as_record, read_extxyz(path))
    if kind == "traj":
        return _trajectory(path)
    if kind == "db":
        ase_db.check_database(path)
    if kind in ("db", "json"):
        return map(ase_db.as_record, ase_db.rows(path, kind))
    return map(_as_record, _atoms(path, kind))


def _checked(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    """Yield records; name the frame in errors of the readers."""
    number = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except FAILURES as error:
            raise ValueError(
                f"{path}: frame {number} cannot be read ({shortened(error)}); repair it or write it again"
            ) from None
        yield record
        number += 1


def _as_record(atoms: Atoms) -> Record:
    results = getattr(atoms.calc, "results", {})
    own = {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    sections = {"calculator": results, "info": atoms.info, "arrays": own}
    return Record(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, sections)


def _trajectory(path: Path) -> Iterator[Record]:
    """Read what a trajectory stores without building ``Atoms``, which would take most of the time."""
    with path.open("rb") as file:  # ASE does not close a damaged file that it opens itself
        stored = ulm.Reader(file)
        if stored.get_tag() != "ASE-Trajectory":
            raise ValueError(f"it is a file of {stored.get_tag()!r}")
        first: tuple[Any, Any] | None = None
        for number in range(len(stored)):
            item = cast(Any, stored[number])
            numbers, pbc = (item.numbers, item.pbc) if "numbers" in item else cast(tuple, first)
            first = first or (numbers, pbc)  # ASE repeats them where they change
            results = item.calculator if "calculator" in item else {}
            sections = {
                "calculator": {name: results.get(name) for name in all_properties if name in results},
                "info": item.get("info") or {},
            }
            cell = np.asarray(item.cell, dtype=np.float64)
            yield Record(np.asarray(numbers), item.positions, cell, np.asarray(pbc), sections)


def _atoms(path: Path, kind: str) -> Iterator[Atoms]:
    found = iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True)
    return (atoms for atoms in found if isinstance(atoms, Atoms))


def _in_file_units(record: Record) -> Record:
    """Undo ASE's conversion of ``input.data`` from Hartree and Bohr, units that the format does not fix."""
    results = dict(record.sections["calculator"])
    for name, factor in (("energy", Hartree), ("forces", Hartree / Bohr)):
        if results.get(name) is not None:
            results[name] = np.asarray(results[name]) / factor
    sections = {**record.sections, "calculator": results}
    return replace(record, positions=record.positions / Bohr, cell=record.cell / Bohr, sections=sections)


def _units_of_database(path: Path, given: Units | None, labels: Labels) -> Units:
    return chosen_units(str(path), given, lambda: ase_db.stated_units(path, labels)) or Units("eV")


def _stated_units(path: Path, record: Record) -> Units | None:
    try:
        return stated_units(record.sections.get("info", {}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _with_units(path: Path, records: Iterator[Record], units: Units | None) -> Iterator[Record]:
    """Check that all structures state the units of the first one."""
    for number, record in enumerate(records, start=1):
        if (own := _stated_units(path, record)) != units:
            raise ValueError(
                f"{path}: frame {number} must state the units of frame 0, {units or 'none'}, got "
                f"{own or 'none'}; set `units`"
            )
        yield record
