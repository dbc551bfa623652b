"""Systems of DeePMD-kit: folders with ``type.raw`` and ``set.*/*.npy``, or npz files with the same names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.formats.arrays import DEEPMD, NUMBERS, ArrayConverter
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.units import Units

_ATOMS_AT_ONCE = 2**20
_DEPTH = 3  # levels of folders above the systems
_LONGEST_TEXT = 2**26  # bytes of type.raw
_FILES = ("type.raw", "type_map.raw", "nopbc")
UNITS = Units("eV")  # fixed by DeePMD-kit
_NOT_LABELS = ("coord", "box", "real_atom_types")
# Names of dpdata's arrays in memory, and of the arrays in files.
_OF_DPDATA = {
    "atom_types": "type",
    "atom_names": "type_map",
    "coords": "coord",
    "cells": "box",
    "energies": "energy",
    "forces": "force",
    "virials": "virial",
}


def is_system(path: Path) -> bool:
    """Return whether a folder is a system."""
    return (path / "type.raw").is_file()


def systems(folder: Path) -> list[Path]:
    """Return the systems in a folder, which may be one itself, in the order of their names.

    Raises:
        ValueError: If one of them is a symbolic link.
    """
    if is_system(folder):
        return [folder]
    found = []
    for parent, folders, _ in os.walk(folder):
        inner = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        link = next((inner / name for name in folders if (inner / name).is_symlink()), None)
        if link is not None and is_system(link):
            raise ValueError(f"{link}: is a link, which is not followed; name the system itself")
        if is_system(inner):
            found.append(inner)
            folders.clear()
        elif len(inner.relative_to(folder).parts) == _DEPTH:
            folders.clear()
    return found


def files_of(system: Path) -> list[Path]:
    """Return the files of a system."""
    own = [system / name for name in _FILES if (system / name).is_file()]
    return own + [file for one in _sets(system) for file in sorted(one.glob("*.npy"))]


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read a system, set by set.

    ``type.raw`` holds an index into the elements of ``type_map.raw`` for each atom; the sets hold ``coord``,
    ``box`` (lattice vectors in rows, unless there is a file ``nopbc``), ``energy``, ``force`` and ``virial``,
    with one row per frame. In the mixed layout, ``real_atom_types`` has the indices of each frame, -1 for
    padding. A virial is minus the stress times the volume.

    Args:
        path: The folder.
        keys: Names of the labels; energy, force and virial by default.
        units: Units of the files; eV and Å by default, as DeePMD-kit defines them.

    Raises:
        ValueError: If a file is missing, damaged, of another shape, or a link to another folder.
    """
    elements = _elements(path)
    types = _types(path)
    sets = _sets(path)
    if not sets:
        raise ValueError(
            f"{path}: must have folders set.* with npy files, got none; convert it to deepmd/npy"
        )
    is_open = (path / "nopbc").exists()
    for folder in sets:
        arrays = {file.stem: _open(path, file) for file in sorted(folder.glob("*.npy"))}
        yield from _frames(arrays, types, elements, is_open, keys, units, str(folder))


def is_periodic(path: Path) -> bool:
    """Return whether the structures of a system have a lattice."""
    return not (path / "nopbc").exists()


def keys_of(names: Sequence[str], keys: Keys) -> list[str]:
    """Return the names of the arrays of a system in an npz file; none without coordinates or elements."""
    known = {_OF_DPDATA.get(name, name) for name in names}
    numbers = () if {"type", "type_map", "coord"} <= known else NUMBERS if "coord" in names else None
    if numbers is None or (numbers and known.isdisjoint(numbers)):
        return []
    own = {*_OF_DPDATA.values(), "nopbc", "real_atom_types", *numbers, *keys[:3], *keys.properties}
    return [name for name in names if _OF_DPDATA.get(name, name) in own]


def read_arrays(arrays: Mapping[str, np.ndarray], source: str, keys: Keys, units: Units | None) -> Frames:
    """Convert the arrays of a system in an npz file to frames; see :func:`read`.

    Without ``type_map``, atomic numbers have a usual name, and ``units`` is required.

    Raises:
        ValueError: If a shape is wrong, or the units are not known.
    """
    own: dict[str, np.ndarray] = {}
    for given, array in arrays.items():
        name = _OF_DPDATA.get(given, given)
        if name in own:
            both = " and ".join(repr(other) for other in arrays if _OF_DPDATA.get(other, other) == name)
            raise ValueError(f"{source}: must have one array for {name!r}, got {both}; remove one")
        own[name] = array
    is_open = bool(own.pop("nopbc", np.array("box" not in own)).any())
    if "type_map" in own:
        name = "type"
        elements = _numbers_of(
            [str(text) for text in own.pop("type_map").reshape(-1)], f"{source}: 'type_map'"
        )
    else:
        name = next(name for name in NUMBERS if name in own)
        elements = np.arange(MAX_ATOMIC_NUMBER + 1)
        if units is None:
            raise ValueError(f"{source}: the unit of 'coord' is not known; set `units`, for example \"eV\"")
    types = own.pop(name)
    if types.ndim != 1 or types.dtype.kind not in "iu":
        raise ValueError(
            f"{source}: '{name}' must be whole numbers of shape (atoms,), got {types.dtype} {types.shape}"
        )
    return next(_frames(own, types, elements, is_open, keys, units, source, at_once=None))


def _frames(
    arrays: Mapping[str, np.ndarray],
    types: np.ndarray,
    elements: np.ndarray,
    is_open: bool,
    keys: Keys,
    units: Units | None,
    source: str,
    at_once: int | None = _ATOMS_AT_ONCE,
) -> Iterator[Frames]:
    """Convert the arrays of a set to frames, about a million atoms at a time by default."""
    for name in ("coord",) if is_open else ("coord", "box"):
        if name not in arrays:
            help_ = "; a system without a lattice has a file `nopbc`" if name == "box" else ""
            raise ValueError(
                f"{source}: must have '{name}', got {', '.join(sorted(arrays)) or 'nothing'}{help_}"
            )
    labels_of = {name: f"'{name}'" for name in arrays if name not in _NOT_LABELS}
    if is_open:
        labels_of.pop("virial", None)  # there is no volume
    labels = DEEPMD.labels(labels_of, keys, source)
    properties = tuple(name for name in keys.properties if name in arrays)
    converter = ArrayConverter(DEEPMD, labels, units or UNITS, properties)
    frames, atoms = len(arrays["coord"]) if arrays["coord"].ndim else 0, len(types)
    shapes: dict[str, tuple[int, ...]] = {
        "coord": (atoms, 3),
        "box": (3, 3),
        "force": (atoms, 3),
        "virial": (3, 3),
    }
    chosen = [label.name for label in labels if label is not None]
    wanted = ["coord", *chosen, *([] if is_open else ["box"])]
    wanted += [name for name in properties if name not in wanted]
    if labels.forces is not None:
        shapes[labels.forces.name] = (atoms, 3)
    if "real_atom_types" in arrays:
        shapes["real_atom_types"] = (atoms,)
        wanted.append("real_atom_types")
    step = frames if at_once is None else max(1, at_once // max(1, atoms))
    for start in range(0, frames, max(1, step)):
        rows = {
            name: _shaped(arrays[name], frames, shapes.get(name), f"{source}: '{name}'")[start : start + step]
            for name in wanted
        }
        rows["type"] = _atomic_numbers(rows.pop("real_atom_types", types), elements, source)
        if not is_open:
            rows["cell"] = rows.pop("box")
            rows["pbc"] = np.ones(3, dtype=bool)
        own = converter.frames(rows, source).check(source, start)
        sizes = {name: array.shape for name, array in arrays.items() if name not in _NOT_LABELS}
        yield replace(own, available=converter.available(sizes, (frames, atoms), frames))
    if frames == 0:
        raise ValueError(f"{source}: must hold at least one structure, got none")


def _shaped(array: np.ndarray, frames: int, shape: tuple[int, ...] | None, source: str) -> np.ndarray:
    """Reshape the flat rows of an array; only the number of rows is checked without a shape."""
    size = int(np.prod(array.shape[1:] if shape is None else shape))
    if array.shape[:1] != (frames,) or array.size != frames * size:
        raise ValueError(f"{source} must have shape ({frames}, {size}), got {array.shape}")
    return array if shape is None else array.reshape(frames, *shape)


def _atomic_numbers(types: np.ndarray, elements: np.ndarray, source: str) -> np.ndarray:
    if types.dtype.kind not in "iu" or types.size == 0 or types.max() >= len(elements) or types.min() < -1:
        raise ValueError(
            f"{source}: types must be indices below {len(elements)}, the elements of type_map, got "
            f"{types.dtype} up to {types.max() if types.size else 'nothing'}"
        )
    if types.ndim == 1 and types.min() < 0:
        raise ValueError(f"{source}: types must not be negative, got {types.min()}")
    return np.where(types < 0, 0, elements[types])


def _elements(path: Path) -> np.ndarray:
    """Read the atomic number of each type."""
    file = path / "type_map.raw"
    if not file.exists():
        raise ValueError(
            f"{path}: must have a file type_map.raw with the symbols of the elements that the types stand "
            "for, one a line; got none"
        )
    return _numbers_of(_text(path, file).split(), str(file))


def _numbers_of(symbols: Sequence[str], source: str) -> np.ndarray:
    wrong = next((symbol for symbol in symbols if symbol not in atomic_numbers), None)
    if wrong is not None or not symbols:
        got = "nothing" if wrong is None else repr(wrong[:40])
        raise ValueError(f"{source} must hold symbols of elements, got {got}")
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8)


def _types(path: Path) -> np.ndarray:
    file = path / "type.raw"
    text = _text(path, file)
    try:
        return np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"{file}: must hold a whole number for each atom, got something else") from None


def _text(path: Path, file: Path) -> str:
    _check_place(path, file)
    if file.stat().st_size > _LONGEST_TEXT:
        raise ValueError(f"{file}: must be of at most {_LONGEST_TEXT:,} bytes, got {file.stat().st_size:,}")
    return file.read_text(encoding="utf-8", errors="replace")


def _sets(path: Path) -> list[Path]:
    return sorted(folder for folder in path.glob("set.*") if folder.is_dir())


def _open(path: Path, file: Path) -> np.ndarray:
    """Map an array into memory; pickles are never loaded."""
    _check_place(path, file)
    with file.open("rb") as opened:
        magic = opened.read(6)
    try:
        if magic != b"\x93NUMPY":  # NumPy would try an archive or a pickle
            raise ValueError("it starts otherwise")
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, EOFError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{file}: must be an npy file of numbers, got another or a damaged file "
            f"({str(error)[:200]}); write it again"
        ) from None
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise ValueError(f"{file}: must hold numbers, a row for each frame, got {array.dtype} {array.shape}")
    return array


def _check_place(path: Path, file: Path) -> None:
    """Raise if a file is not a regular file in the folder that the user named."""
    if not file.is_file() or not file.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{file}: must be a file in {path}, got a link to another place, pipe or device")
