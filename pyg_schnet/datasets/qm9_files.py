"""Readers of the three published layouts of QM9: raw archive, PyG's SDF, and csv files of a package."""

from __future__ import annotations

import contextlib
import csv
import re
import string
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from pyg_schnet.io.remote.archive import stream

MOLECULES = 133_885  # in GDB-9
TARGETS = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_MOLECULES_AT_ONCE = 2**14  # molecules
_LONGEST = 2**16  # characters of one molecule; the largest has 5,000
_BLANK = re.compile(r"(?:^|,)\s*(?:,|$)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_SDF_COLUMNS = (
    *("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv"),
)
_PACKAGE_COLUMNS = (
    *("RotA_GHz", "RotB_GHz", "RotC_GHz", "Dipole_debye", "Polarizability_bohr3", "HOMO_au", "LUMO_au"),
    *("HOMO_LUMO_gap_au", "R2_bohr2", "ZPVE_au", "InternalEnergy_0K_au", "InternalEnergy_298K_au"),
    *("Enthalphy_298K_au", "GibbsFreeEnergy_298K_au", "Heatcapacity_Cv_cal_mol_K"),
)


@dataclass
class RawMolecules:
    """Molecules as published, with unparsed numbers.

    Attributes:
        ids: Numbers in GDB-9, from 1.
        elements: Element symbols of each molecule.
        positions: Coordinates ``x,y,z,x,y,z,…`` of each molecule, in Å.
        targets: The fifteen values of ``TARGETS`` of each molecule, in published units, separated by commas.
        smiles: SMILES of each molecule, whose heavy atoms have the order of the file; empty with ``blocks``.
        blocks: MDL blocks of each molecule, for files with bonds.
    """

    ids: list[int] = field(default_factory=list)
    elements: list[list[str]] = field(default_factory=list)
    positions: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    smiles: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def arrays(self, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Parse the numbers.

        Returns:
            Counts ``(molecules,)``, atomic numbers ``(atoms,)``, positions ``(atoms, 3)`` and targets
            ``(molecules, 15)`` in published units.

        Raises:
            ValueError: If a value is not a finite number, or the number of values is wrong.
        """
        counts = np.array([len(symbols) for symbols in self.elements], dtype=np.int64)
        try:
            numbers = [_NUMBERS[symbol] for symbol in chain.from_iterable(self.elements)]
        except KeyError as error:
            atoms = zip(self.ids, self.elements, strict=True)
            where = next(f"gdb_{number}" for number, symbols in atoms if error.args[0] in symbols)
            raise ValueError(
                f"{source}: {where} must be of H, C, N, O and F, got {str(error)[:40]}"
            ) from None
        shape = (int(counts.sum()), 3)
        positions = self._parse(source, "positions", self.positions, 3 * counts).reshape(shape)
        wanted = np.full(len(self), len(TARGETS))
        targets = self._parse(source, "targets", self.targets, wanted).reshape(len(self), -1)
        return counts, np.array(numbers, dtype=np.uint8), positions, targets

    def _parse(self, source: str, name: str, texts: list[str], wanted: np.ndarray) -> np.ndarray:
        joined = ",".join(texts).replace("*^", "e")  # Mathematica wrote some numbers as 6.8*^-6
        right = [text.count(",") + 1 for text in texts] == wanted.tolist()
        values = np.empty(0)
        spaced = any(space in joined for space in string.whitespace)
        if right and not (spaced and _BLANK.search(joined)):  # NumPy reads blanks as -1
            with warnings.catch_warnings(), contextlib.suppress(ValueError, DeprecationWarning):
                warnings.simplefilter("error", DeprecationWarning)  # older NumPy warns of invalid numbers
                values = np.fromstring(joined, sep=",")
        if len(values) != wanted.sum() or not np.isfinite(values).all():
            self._raise_for_text(source, name, texts, wanted)
        return values

    def _raise_for_text(self, source: str, name: str, texts: list[str], wanted: np.ndarray) -> NoReturn:
        """Raise for the first molecule whose text is not this number of finite numbers."""
        for number, text, size in zip(self.ids, texts, wanted.tolist(), strict=True):
            values = text.split(",")
            wrong = [value for value in values if not _is_finite(value)]
            if len(values) == size and not wrong:
                continue
            got = repr(wrong[0][:40]) if len(values) == size else len(values)
            raise ValueError(
                f"{source}: gdb_{number} must have {size} finite numbers of {name}, got {got}; the file is "
                "damaged, get it again"
            )
        raise AssertionError(f"{source}: NumPy and Python differ about the numbers of {name}")


def read_xyz_archive(path: Path, skip: frozenset[int] = frozenset()) -> Iterator[RawMolecules]:
    """Read ``dsgdb9nsd.xyz.tar.bz2``, with one file per molecule.

    Args:
        path: The archive.
        skip: Numbers in GDB-9 to leave out.

    Raises:
        ValueError: If the archive is damaged, or an ``.xyz`` file in it is not a molecule of QM9.
    """
    records = RawMolecules()
    for name, pieces in stream(path):
        if not name.endswith(".xyz"):
            continue
        text = next(pieces, b"")[:_LONGEST].decode(errors="replace")
        _append_xyz(records, text, f"{path}: {name}", skip)
        if len(records) == _MOLECULES_AT_ONCE:
            yield records
            records = RawMolecules()
    if len(records):
        yield records


def _append_xyz(records: RawMolecules, text: str, source: str, skip: frozenset[int]) -> None:
    lines = text.rstrip().split("\n")
    try:
        atoms = int(lines[0])
        tag, number, *values = lines[1].split()
        rows = [line.split() for line in lines[2 : 2 + atoms]]
        smiles = lines[3 + atoms].split()[0]
        columns = list(zip(*rows, strict=True))
        if tag != "gdb" or len(lines) != atoms + 5 or len(columns) != 5:
            raise ValueError(f"{len(lines)} lines, {atoms} atoms with {len(columns)} columns")
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{source} must be a molecule of QM9 ({error}); download the archive again"
        ) from None
    number = _number(source, number)
    if number in skip:
        return
    records.ids.append(number)
    records.elements.append(list(columns[0]))
    records.positions.append(",".join(",".join(row[1:4]) for row in rows))
    records.targets.append(",".join(values))
    records.smiles.append(smiles)


def read_sdf(path: Path, table: Path, skip: frozenset[int] = frozenset()) -> Iterator[RawMolecules]:
    """Read ``gdb9.sdf`` and ``gdb9.sdf.csv``, PyG's layout, with positions of four decimals.

    Molecules beyond the end of the table are ignored.

    Args:
        path: SDF file of the molecules.
        table: csv file of their targets, whose first column names the molecule.
        skip: Numbers in GDB-9 to leave out.

    Raises:
        FileNotFoundError: If one of the two does not exist.
        ValueError: If one is damaged, or they hold different molecules.
    """
    records, blocks = RawMolecules(), _blocks(path)
    for name, *targets in _rows(table, ("mol_id", *_SDF_COLUMNS)):
        number = _number(str(table), name.removeprefix("gdb_"))
        block = next(blocks, None)
        if block is None:
            raise ValueError(f"{path}: ends before {name} of {table.name}; download both again")
        title = block.split("\n", 1)[0].strip()
        if title != name:
            raise ValueError(
                f"{path}: must have the molecules of {table.name} in its order, got {title[:40]!r} for "
                f"{name}; download both again"
            )
        if number not in skip:
            _append_block(records, block, number, f"{path}: {name}")
            records.targets.append(",".join(targets))
        if len(records) == _MOLECULES_AT_ONCE:
            yield records
            records = RawMolecules()
    if len(records):
        yield records


def _blocks(path: Path) -> Iterator[str]:
    block, size = [], 0
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST):
            if line.startswith("$$$$"):
                yield "".join(block)
                block, size = [], 0
                continue
            block.append(line)
            size += len(line)
            if size > _LONGEST:
                raise ValueError(f"{path}: must be an SDF file, got a record without end; download it again")


def _append_block(records: RawMolecules, block: str, number: int, source: str) -> None:
    lines = block.split("\n")
    try:
        atoms = int(lines[3][:3])
        rows = [line.split() for line in lines[4 : 4 + atoms]]
        if len(rows) != atoms or not lines[3].rstrip().endswith("V2000"):
            raise ValueError(f"{len(rows)} atoms")
        elements, positions = [row[3] for row in rows], ",".join(",".join(row[:3]) for row in rows)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{source} must be an MDL block ({error}); download the file again") from None
    records.ids.append(number)
    records.elements.append(elements)
    records.positions.append(positions)
    records.blocks.append(block)


def read_package(paths: Iterable[Path]) -> Iterator[RawMolecules]:
    """Read the csv files of the package ``qm9pack``, which omit the uncharacterized molecules.

    Raises:
        FileNotFoundError: If one does not exist.
        ValueError: If one is damaged or of another kind.
    """
    columns = ("Index", "SMILES", "Elements", "XYZ_Ang", *_PACKAGE_COLUMNS)
    records = RawMolecules()
    for path in paths:
        for number, smiles, elements, positions, *targets in _rows(path, columns):
            records.ids.append(_number(str(path), number))
            records.smiles.append(smiles)
            records.elements.append(elements.strip("[]").replace("'", "").split(","))
            records.positions.append(positions.replace("[", "").replace("]", ""))
            records.targets.append(",".join(targets))
            if len(records) == _MOLECULES_AT_ONCE:
                yield records
                records = RawMolecules()
    if len(records):
        yield records


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the values of these columns of a csv file, row by row."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            missing = [name for name in columns if name not in header]
            if missing:
                names = ", ".join(header)[:300] or "none"
                raise ValueError(f"{path}: has no column '{missing[0]}'; its columns are {names}")
            chosen = [header.index(name) for name in columns]
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}: line {reader.line_num} must have {len(header)} values, got {len(row)}; the "
                        "file is cut off or damaged, get it again"
                    )
                yield [row[index] for index in chosen]
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num} is no csv ({error}); get it again") from None


def read_uncharacterized(path: Path) -> frozenset[int]:
    """Read the numbers in GDB-9 of molecules that changed their identity during relaxation.

    Raises:
        ValueError: If the file is not this list.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    first = [line.split()[0] for line in lines[9:] if line.strip()]
    numbers = frozenset(int(text) for text in first if _is_number_of_gdb(text))
    titled = any("Index" in line for line in lines[:9])
    if not titled or not numbers or len(first) - len(numbers) > 1:  # the table ends with a rule
        raise ValueError(f"{path}: must be QM9's list of uncharacterized molecules; download it again")
    return numbers


def _number(source: str, text: str) -> int:
    if not _is_number_of_gdb(text):
        raise ValueError(f"{source} must number its molecules from 1 to {MOLECULES:,}, got {text[:40]!r}")
    return int(text)


def _is_number_of_gdb(text: str) -> bool:
    return text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= MOLECULES


def _is_finite(text: str) -> bool:
    text = text.strip().replace("*^", "e")
    return _NUMBER.fullmatch(text) is not None and bool(np.isfinite(float(text)))
