"""Structures from anything: which reader, and many files as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pyg_schnet.io.formats import ase as ase_files
from pyg_schnet.io.formats import deepmd, hdf5, npz
from pyg_schnet.io.formats import pymatgen as pymatgen_json
from pyg_schnet.io.formats.frames import Frames, joined
from pyg_schnet.io.formats.labels import Keys, level_of
from pyg_schnet.io.units import Units


class _Reader(NamedTuple):
    read: Callable[[Path, Keys, Units | None], Iterator[Frames]]
    is_periodic: Callable[[Path], bool]


ENDINGS = (".npz", ".h5", ".hdf5", ".xyz", ".extxyz", ".db", ".traj", ".json")
_COMPRESSED = tuple(
    f"{ending}{packed}" for ending in (".xyz", ".extxyz") for packed in (".gz", ".bz2", ".xz")
)
_ASE = _Reader(ase_files.read, ase_files.is_periodic)
_DEEPMD = _Reader(deepmd.read, deepmd.is_periodic)
_HDF5 = _Reader(hdf5.read, hdf5.is_periodic)
_NPZ = _Reader(npz.read, npz.is_periodic)
_PYMATGEN = _Reader(pymatgen_json.read, pymatgen_json.is_periodic)
_ATOMS = 16 * 2**20 // 24  # up to which pieces are joined: positions of 16 MiB


def read_frames(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    units: Units | None = None,
) -> Iterator[Frames]:
    """Read structures with their labels.

    ==============================  ========================================================================
    ``.npz``                        MD17's and revised MD17's keys, or anybody's own
    ``.h5``, ``.hdf5``              ANI-1x, ANI-1, SPICE, or anybody's own
    ``.xyz``, ``.extxyz``           extended xyz; ``.gz``, ``.bz2`` or ``.xz`` may follow
    ``.db``, ``.traj``              ASE's databases (SQLite) and trajectories
    ``.json``                       ASE's database in JSON, or a list as pymatgen writes it
    ``input.data``, ``*.data``      structures as RuNNer and n2p2 write them, ``input.data.*`` too
    a folder with ``type.raw``      a system of DeePMD-kit
    anything else                   outputs of programs that ASE knows by their content, as VASP's OUTCAR
    ==============================  ========================================================================

    Args:
        path: A file; a folder, of which all files with these endings, but hidden ones, are read in the order
            of their names, or, where there are none, all systems of DeePMD-kit; or a list of files, in this
            order.
        energy_key: Which energies; those that are recognised by default.
        forces_key: Which forces; those that belong to the energies by default, ``"none"`` for none.
        stress_key: Which stresses or virials; those that belong to the energies by default, ``"none"`` for
            none.
        units: Of all files; what they say or their layout implies by default, eV and Å for files of ASE.

    Yields:
        Pieces in eV and Å, small files together, large ones as their readers give them (an npz file at
        once), all with the same fields: if any structure is periodic, all have ``cell`` and ``pbc``. Arrays
        that needed no conversion are views of an npz file that is not compressed; see :meth:`Frames.loaded`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file does not hold what is asked for; the message says which and why.
    """
    files = list_files(path)
    keys = Keys(energy_key, forces_key, stress_key)
    pieces = _regrouped(_agreeing(files, keys, units))
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        yield first
        return
    # A look through all files, if they are large; else they are one piece.
    has_lattice = first.cell is not None or any(_reader(file).is_periodic(file) for file in files)
    for piece in chain([first, second], pieces):
        yield piece.with_lattice() if has_lattice else piece


def list_files(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    """List the files that are meant, and the folders that are systems of DeePMD-kit.

    Raises:
        FileNotFoundError: If one is not there.
        TypeError: If it is no path, as a structure.
        ValueError: If a folder holds none, or the list is empty.
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
                f"{own}: must be a folder with files of {', '.join(ENDINGS)}, or with systems of DeePMD-kit, "
                "got none of them"
            )
        return files
    if not own.is_file():
        raise FileNotFoundError(f"{own}: no such file; a file of structures with energies is needed")
    return [own]


def parts_of(source: Path) -> list[Path]:
    """List the files of one of :func:`list_files`: itself, or those of a folder."""
    return deepmd.files_of(source) if source.is_dir() else [source]


def has_own_reader(source: Path) -> bool:
    """Whether a file, or a folder of files, is of a kind that is read without ASE's readers."""
    if source.is_dir():
        return True
    return source.is_file() and source.suffix.lower() != ".safetensors" and _reader(source) is not _ASE


def _is_known(file: Path) -> bool:
    name = file.name.lower()
    if ase_files.is_runner_data(file):
        return True
    return name.endswith((*ENDINGS, *_COMPRESSED)) and not name.startswith(".")


def _reader(file: Path) -> _Reader:
    if file.is_dir():
        return _DEEPMD
    ending = file.suffix.lower()
    if ending == ".safetensors":
        raise ValueError(f"{file}: is processed already; open it alone, as AtomsDataset(path={str(file)!r})")
    if ending == ".json":
        with file.open("rb") as opened:
            return _PYMATGEN if opened.read(64).lstrip()[:1] == b"[" else _ASE
    return {".npz": _NPZ, ".h5": _HDF5, ".hdf5": _HDF5}.get(ending, _ASE)


def _agreeing(files: Sequence[Path], keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read file after file, and refuse those whose labels are others than the first one's."""
    has: dict[str, bool] | None = None
    first_level: str | None = None
    for file in files:
        for piece in _reader(file).read(file, keys, units):
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
                    f"{(piece.labels or {}).get('energy')}; read the files apart, or set `energy_key`"
                )
            yield piece


def _level(piece: Frames) -> str:
    """Tell the level of theory by the name of the energies, ``""`` where it says none."""
    name = (piece.labels or {}).get("energy", "").partition("'")[2].partition("'")[0]
    return level_of(name, "energy") or ""


def _regrouped(pieces: Iterator[Frames]) -> Iterator[Frames]:
    """Join small pieces; large ones are in memory as they are, and to cut them would save nothing."""
    held: list[Frames] = []
    atoms = 0
    for piece in pieces:
        if held and atoms + len(piece.numbers) > _ATOMS:
            yield joined(held)
            held, atoms = [], 0
        held.append(piece)
        atoms += len(piece.numbers)
    if held:
        yield joined(held)
