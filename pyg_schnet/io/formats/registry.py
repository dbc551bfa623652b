"""The formats that structures are read from, and reading of one or many files in any of them.

To add a format, write a module with ``read`` and ``is_periodic`` and add a line to :data:`FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ase import Atoms

from pyg_schnet.io.formats import ase as ase_files
from pyg_schnet.io.formats import deepmd, hdf5, npz
from pyg_schnet.io.formats import pymatgen as pymatgen_json
from pyg_schnet.io.formats.frames import Frames, concatenate
from pyg_schnet.io.formats.labels import Keys, level_of
from pyg_schnet.io.formats.properties import complete
from pyg_schnet.io.formats.structures import SequentialReader, StructureReader
from pyg_schnet.io.units import Units


class Format(NamedTuple):
    """A file format.

    Attributes:
        read: Reads frames with labels from a path, names of labels and units.
        is_periodic: Returns whether any structure of a file may be periodic.
        suffixes: Suffixes of its files.
        matches: Returns whether a file with such a suffix is of this format.
        structure_reader: Returns a reader of structures without labels; that of ``read`` by default.
    """

    read: Callable[[Path, Keys, Units | None], Iterator[Frames]]
    is_periodic: Callable[[Path], bool]
    suffixes: tuple[str, ...] = ()
    matches: Callable[[Path], bool] = lambda path: True
    structure_reader: Callable[[Path], StructureReader] | None = None


_FOLDER = Format(deepmd.read, deepmd.is_periodic)
_ASE = Format(
    ase_files.read,
    ase_files.is_periodic,
    ase_files.SUFFIXES,
    structure_reader=ase_files.structure_reader,
)
FORMATS = (  # the first that matches; ASE also recognizes files with other suffixes
    Format(npz.read, npz.is_periodic, (".npz",)),
    Format(hdf5.read, hdf5.is_periodic, (".h5", ".hdf5")),
    Format(pymatgen_json.read, pymatgen_json.is_periodic, (".json",), pymatgen_json.is_list),
    _ASE,
)
SUFFIXES = tuple(dict.fromkeys(suffix for known in FORMATS for suffix in known.suffixes))
_COMPRESSED = tuple(
    f"{suffix}{packed}" for suffix in (".xyz", ".extxyz") for packed in (".gz", ".bz2", ".xz")
)
_ATOMS_AT_ONCE = 16 * 2**20 // 24  # small pieces are joined up to 16 MiB of positions


def read_frames(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    units: Units | None = None,
    properties: Sequence[str] = (),
) -> Iterator[Frames]:
    """Read structures with their labels.

    ==============================  ========================================================================
    ``.npz``                        keys of MD17 and revised MD17, or others
    ``.h5``, ``.hdf5``              layout of ANI-1x, ANI-1, SPICE or modelforge, or others
    ``.xyz``, ``.extxyz``           extended xyz; ``.gz``, ``.bz2`` or ``.xz`` may follow
    ``.db``, ``.traj``              ASE's databases (SQLite) and trajectories
    ``.json``                       ASE's database in JSON, or a list as pymatgen writes it
    ``input.data``, ``*.data``      structures of RuNNer and n2p2, also ``input.data.*``
    a folder with ``type.raw``      a system of DeePMD-kit
    any other file                  outputs of programs that ASE recognizes by content, as VASP's OUTCAR
    ==============================  ========================================================================

    Args:
        path: A file; a folder, of which all files with these suffixes except hidden ones are read in the
            order of their names, or, if there are none, all systems of DeePMD-kit; or a list of files.
        energy_key: Name of the energies; a recognized name by default, ``"none"`` to read no energies, forces
            and stresses.
        forces_key: Name of the forces; those that belong to the energies by default, ``"none"`` for none.
        stress_key: Name of the stresses or virials; those that belong to the energies by default, ``"none"``
            for none.
        units: Units of all files; by default those that a file states or its layout implies, eV and Å for
            files of ASE.
        properties: Names of further numbers of structures or atoms, which some structures may lack (NaN);
            they are not converted. Of vectors whose name contains ``dipole``, the length is read.

    Yields:
        Frames in eV and Å, all with the same fields, so that all have ``cell`` and ``pbc`` if any structure
        is periodic. Small files are joined; an npz file is one piece. Arrays that need no conversion are
        views of an uncompressed npz file; see :meth:`~pyg_schnet.io.formats.frames.Frames.loaded`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file does not hold the labels, or is damaged; the message names file and reason.
            If no structure has one of the properties, it lists those that could be.
    """
    files = list_files(path)
    keys = Keys(energy_key, forces_key, stress_key, tuple(properties))
    keys.check()
    pieces = _consistent(files, keys, units)
    if properties:
        source = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        pieces = complete(pieces, keys.properties, source)
    pieces = _joined(pieces)
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        yield first
        return
    # A second pass over large files; small ones are a single piece.
    has_lattice = first.cell is not None or any(_format_of(file).is_periodic(file) for file in files)
    for piece in chain([first, second], pieces):
        yield piece.with_lattice() if has_lattice else piece


def structure_reader(path: Path) -> StructureReader:
    """Return a reader of structures without labels, of a file or folder in any format.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is of an unknown format, or refers to other files.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; pass a file with structures")
    is_regular = path.is_dir() or path.is_file()  # ASE's reader rejects pipes and devices
    known = _format_of(path) if is_regular else _ASE
    if known.structure_reader is not None:
        return known.structure_reader(path)
    return SequentialReader(partial(_structures, path))


def list_files(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    """Return the files, and the folders that are systems of DeePMD-kit, that a path or list refers to.

    Raises:
        FileNotFoundError: If one does not exist.
        TypeError: If it is not a path, for instance a structure.
        ValueError: If a folder holds no known file, or the list is empty.
    """
    if not isinstance(path, (str, os.PathLike)):
        if not isinstance(path, Sequence):
            raise TypeError(
                f"`path` must name files, got {type(path).__name__}; write structures to one by "
                "ase.io.write('frames.extxyz', structures), and name that"
            )
        if len(path) == 0:
            raise ValueError("`path` must name at least one file, got an empty list")
        return [file for one in path for file in list_files(one)]
    own = Path(path)
    if own.is_dir():
        if deepmd.is_system(own):
            return [own]
        files = sorted(file for file in own.iterdir() if file.is_file() and _is_known(file))
        files = files or deepmd.systems(own)
        if not files:
            raise ValueError(
                f"{own}: must be a folder with files of {', '.join(SUFFIXES)}, or with systems of "
                "DeePMD-kit, got none of them"
            )
        return files
    if not own.is_file():
        raise FileNotFoundError(f"{own}: no such file; a file of structures with energies is needed")
    return [own]


def parts_of(source: Path) -> list[Path]:
    """Return the files that one of :func:`list_files` consists of: itself, or those of a system's folder."""
    return deepmd.files_of(source) if source.is_dir() else [source]


def is_read_by_ase(path: Path) -> bool:
    """Return whether ASE reads a file; other formats are read only with labels."""
    return path.is_file() and _format_of(path) is _ASE


def _structures(path: Path) -> Iterator[Atoms]:
    for piece in read_frames(path):
        start = 0
        for number, size in enumerate(piece.counts.tolist()):
            part = slice(start, start := start + size)
            lattice = {} if piece.cell is None else {"cell": piece.cell[number]}
            if piece.pbc is not None:
                lattice["pbc"] = piece.pbc[number]
            yield Atoms(piece.numbers[part], piece.positions[part], **lattice)


def _is_known(file: Path) -> bool:
    name = file.name.lower()
    if ase_files.is_runner_data(file):
        return True
    return name.endswith((*SUFFIXES, *_COMPRESSED)) and not name.startswith(".")


def _format_of(path: Path) -> Format:
    if path.is_dir():
        return _FOLDER
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        raise ValueError(f"{path}: is processed already; open it alone, as AtomsDataset(path={str(path)!r})")
    return next((known for known in FORMATS if suffix in known.suffixes and known.matches(path)), _ASE)


def _consistent(files: Sequence[Path], keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read files one after another; raise if labels differ from those of the first one."""
    has: dict[str, bool] | None = None
    first_level: str | None = None
    for file in files:
        for piece in _format_of(file).read(file, keys, units):
            own = {kind: getattr(piece, kind) is not None for kind in ("forces", "stress")}
            has = has or own
            differing = next((kind for kind in own if own[kind] != has[kind]), None)
            if differing is not None:
                raise ValueError(
                    f"{file}: must have {differing} exactly if {files[0]} has; leave one of them out, or set "
                    f"`{differing}_key` to 'none'"
                )
            level = _level(piece)
            first_level = level if first_level is None else first_level
            if level != first_level:
                raise ValueError(
                    f"{file}: must have energies of the same level of theory as {files[0]}, got "
                    f"{piece.labels.get('energy')}; read the files apart, or set `energy_key`"
                )
            yield piece


def _level(piece: Frames) -> str:
    """Return the level of theory by the name of the energies; ``""`` if the name does not state it."""
    name = piece.labels.get("energy", "").partition("'")[2].partition("'")[0]
    return level_of(name, "energy") or ""


def _joined(pieces: Iterator[Frames]) -> Iterator[Frames]:
    """Join small pieces; large ones are in memory already, so cutting them would save nothing."""
    held: list[Frames] = []
    atoms = 0
    for piece in pieces:
        if held and atoms + len(piece.numbers) > _ATOMS_AT_ONCE:
            yield concatenate(held)
            held, atoms = [], 0
        held.append(piece)
        atoms += len(piece.numbers)
    if held:
        yield concatenate(held)
