"""Structures in npz files: keys of MD17 and revised MD17, systems of DeePMD-kit, and other arrays."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from pyg_schnet.io.formats import deepmd
from pyg_schnet.io.formats.arrays import MD17, REVISED_MD17, ArrayConverter, recognize
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.formats.properties import possible
from pyg_schnet.io.formats.stated_units import chosen_units
from pyg_schnet.io.units import Units

# Errors of damaged archives; zipfile raises RuntimeErrors for unknown methods and versions.
_DAMAGES = (
    *(OSError, EOFError, RuntimeError, TypeError, OverflowError, MemoryError, SyntaxError, LookupError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_LARGE, _INFLATION = 2**26, 200  # largest size in bytes, or ratio to its compressed size, of an array


def read_npz(
    path: str | os.PathLike,
    energy_key: str | None = None,
    forces_key: str | None = None,
    units: Units | None = None,
    stress_key: str | None = None,
    properties: tuple[str, ...] = (),
) -> Frames:
    """Read structures with their labels.

    The layouts of MD17 (``z, R, E, F``) and revised MD17 (``nuclear_charges, coords, energies, forces`` and
    the original labels ``old_energies, old_forces``) are in kcal/mol and Å. Other files need ``units``; they
    hold atomic numbers as ``atomic_numbers``, ``numbers`` or ``species``, positions as ``coordinates``,
    ``positions``, ``pos``, ``coord`` or ``xyz``, energies and forces under a usual or the given name and,
    for periodic structures, ``cell`` (vectors in rows) and ``pbc``: positions and forces of shape ``(frames,
    atoms, 3)``, energies ``(frames,)``, ``cell (frames, 3, 3)``; structures of different sizes are
    concatenated, with their sizes in ``n_atoms (frames,)``. Arrays of DeePMD-kit and dpdata (``type,
    type_map, coord, box, energy, force, virial``) are read as DeePMD-kit's folders, in eV and Å.

    Args:
        path: Path of the npz file.
        energy_key: Name of the energies; that of the layout by default.
        forces_key: Name of the forces; by default those that belong to the energies, if any; ``"none"`` reads
            no forces.
        units: Units of the file; by default those of its entries ``e_unit`` and ``r_unit`` (sGDML), else
            those of the layout.
        stress_key: Name of the stresses, in energy per length cubed, positive under tension; ``"none"`` for
            none.
        properties: Names of further arrays of structures or atoms; those that the file lacks are left out.

    Returns:
        The frames in eV and Å. Arrays that need no conversion are views of an uncompressed file;
        :meth:`~pyg_schnet.io.formats.frames.Frames.loaded` copies them, so that the file may be replaced.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds pickles, a key is missing, a shape is wrong, a value is
            not finite, two atoms coincide, or the unit of a key is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; an npz file of structures is needed")
    with open_npz(path) as file:
        keys = Keys(energy_key, forces_key, stress_key, properties)
        if system := deepmd.keys_of(file.files, keys):
            arrays = {name: read_array(path, file, name) for name in system}
            frames = deepmd.read_arrays(arrays, str(path), keys, units)
            others = {name: shape for name, shape in _shapes(file).items() if name not in arrays}
            sites = len(frames), int(frames.counts.max())
            return replace(frames, available=frames.available | possible(others, sites, len(frames)))
        layout = recognize(file.files, (MD17, REVISED_MD17), str(path))
        names = {name: f"'{name}'" for name in file.files}
        labels = layout.labels(names, keys, str(path))
        units = chosen_units(str(path), units, lambda: _own_units(path, file))
        units = units or layout.units_of(labels, str(path))
        converter = ArrayConverter(layout, labels, units, properties)
        wanted = [*converter.names(names, str(path)), *(name for name in properties if name in names)]
        arrays = {name: read_array(path, file, name) for name in wanted}
        sites = arrays[layout.positions].shape[:-1]
        frames = converter.frames(arrays, str(path))
        available = converter.available(_shapes(file), sites, len(frames))
    return replace(frames, available=available).check(str(path))


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read an npz file as :func:`read_npz` does, as one piece."""
    yield read_npz(path, keys.energy, keys.forces, units, keys.stress, keys.properties)


def is_periodic(path: Path) -> bool:
    """Return whether the structures of a file have a lattice."""
    with open_npz(path) as file:
        return not {"cell", "cells", "box"}.isdisjoint(file.files)


def _own_units(path: Path, file: NpzFile) -> Units | None:
    entries = [read_array(path, file, key) for key in ("e_unit", "r_unit") if key in file.files]
    names = [str(entry) for entry in entries if entry.dtype.kind == "U"]
    if not names:
        return None
    try:
        return Units.stated(*names)
    except ValueError:
        raise ValueError(
            f"{path}: states the units {' and '.join(names)}, which are not known; set `units`, "
            'for example "kcal/mol" or "Hartree, Bohr"'
        ) from None


def _shapes(file: NpzFile) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the numeric arrays, without reading them; damaged ones are left out."""
    assert file.zip is not None  # while it is open
    shapes: dict[str, tuple[int, ...]] = {}
    for name in file.files:
        with suppress(*_DAMAGES, ValueError), file.zip.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, _, dtype = read_header(member)
            if dtype.kind in "fiu":
                shapes[name] = shape
    return shapes


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an npz file, whose arrays :func:`read_array` reads.

    Raises:
        ValueError: If it is not an npz file, or a damaged one.
    """
    with path.open("rb") as stream:  # NumPy does not close a damaged archive that it opens itself
        try:
            magic = stream.read(6)
            if magic[:2] != b"PK" and magic != b"\x93NUMPY":  # NumPy would report a pickle
                raise ValueError("it starts otherwise" if magic else "it is empty")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
        except (*_DAMAGES, ValueError) as error:
            raise ValueError(
                f"{path}: must be an npz file, got another or a damaged file ({error}); "
                "download or write it again"
            ) from None
        if not isinstance(file, NpzFile):
            raise ValueError(f"{path}: must be an npz file of several arrays, got one npy array")
        with file:
            _check_unique(path, file)
            yield file


def _check_unique(path: Path, file: NpzFile) -> None:
    """Raise if two arrays have the same name; NumPy would silently read the last."""
    names = [name.removesuffix(".npy") for name in file.zip.namelist()] if file.zip is not None else []
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: must have one array of each name, got two named {twice!r}; write it again")


def _mapped(path: Path, file: NpzFile, key: str) -> np.ndarray | None:
    """Map an uncompressed floating-point array copy-on-write; NumPy takes three times as long to copy it.

    Returns:
        The array; ``None`` for arrays that NumPy has to read.
    """
    assert file.zip is not None  # while it is open
    member = file.zip.NameToInfo.get(f"{key}.npy")
    if member is None or member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return None
    with path.open("rb") as stream:
        stream.seek(member.header_offset + 26)
        lengths = struct.unpack("<HH", stream.read(4))  # of the name and what follows it
        start = member.header_offset + 30 + sum(lengths)
        stream.seek(start)
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            return None
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, by_column, dtype = read_header(stream)
        offset = stream.tell()
        size = dtype.itemsize * math.prod(shape)
        if dtype.kind != "f" or size == 0 or offset - start + size != member.file_size:
            return None
        stream.seek(start)
        crc = zlib.crc32(stream.read(offset - start))
    order = "F" if by_column else "C"
    array = np.memmap(path, dtype, "c", offset, shape, order)
    if zlib.crc32(array.reshape(-1, order=order).view(np.uint8).data, crc) != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file '{key}.npy'")
    return array


def _check_inflation(path: Path, file: NpzFile, key: str) -> None:
    """Raise if an array takes far more memory than its compressed part of the file."""
    assert file.zip is not None  # while it is open
    member = file.zip.NameToInfo.get(f"{key}.npy", file.zip.NameToInfo.get(key))
    if member is not None and member.file_size > max(_LARGE, _INFLATION * member.compress_size):
        raise ValueError(
            f"{path}: '{key}' must unpack to at most {_INFLATION} times its size, got {member.file_size:,} "
            f"bytes from {member.compress_size:,}; write the file again without compression"
        )


def read_array(path: Path, file: NpzFile, key: str) -> np.ndarray:
    """Read an array; :func:`read_npz` lists the errors."""
    _check_inflation(path, file, key)
    try:
        array = _mapped(path, file, key)
        array = file[key] if array is None else array
    except _DAMAGES as error:
        raise ValueError(
            f"{path}: '{key}' is damaged ({str(error)[:200]}); download the file again"
        ) from None
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise ValueError(
                f"{path}: '{key}' holds pickled objects, which are never loaded because they may run code; "
                "save it as an array of numbers"
            ) from None
        raise ValueError(
            f"{path}: '{key}' is damaged ({str(error)[:200]}); download the file again"
        ) from None
    if not isinstance(array, np.ndarray):  # bytes
        raise ValueError(f"{path}: '{key}' must hold numbers, got no array")
    return array
