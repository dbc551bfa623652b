"""Trajectories of one molecule in npz files, as MD17 and revised MD17 publish them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from pyg_schnet.units import Units


@dataclass(frozen=True)
class Layout:
    """The keys of an npz file, and the units that they imply.

    Attributes:
        name: Of the data set that is published so.
        numbers: Key of the atomic numbers.
        positions: Key of the positions.
        labels: Keys of energies with the keys of the forces that belong to them; the first by default.
        units: Of positions and labels.
    """

    name: str
    numbers: str
    positions: str
    labels: dict[str, str]
    units: Units = field(default=Units("kcal/mol"))


MD17 = Layout("MD17", numbers="z", positions="R", labels={"E": "F"})
REVISED_MD17 = Layout(
    "revised MD17",
    numbers="nuclear_charges",
    positions="coords",
    labels={"energies": "forces", "old_energies": "old_forces"},
)
_SGDML_UNITS = {"Ang": "Å", "A": "Å", "bohr": "Bohr", "Eh": "Hartree", "hartree": "Hartree"}
LAYOUTS = (MD17, REVISED_MD17)
# What NumPy lets through; zipfile raises RuntimeErrors for methods and versions that it does not know.
_DAMAGES = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Trajectory:
    """Frames of one molecule, in eV and Å.

    Attributes:
        numbers: Atomic numbers, shape ``(atoms,)``, int64.
        positions: Shape ``(frames, atoms, 3)``, in Å, float64.
        energy: Shape ``(frames,)``, in eV, float64.
        forces: Shape ``(frames, atoms, 3)``, in eV/Å, float64, or ``None``.
        units: The file's units.
    """

    numbers: np.ndarray
    positions: np.ndarray
    energy: np.ndarray
    forces: np.ndarray | None
    units: Units


def read_npz(
    path: str | os.PathLike,
    energy_key: str | None = None,
    forces_key: str | None = None,
    units: Units | None = None,
) -> Trajectory:
    """Read a trajectory with its labels.

    The layouts of MD17 (``z, R, E, F``) and revised MD17 (``nuclear_charges, coords, energies, forces``
    and the original labels ``old_energies, old_forces``) are recognised; both are in kcal/mol and Å.

    Args:
        path: The npz file.
        energy_key: Which energies; the layout's own by default.
        forces_key: Which forces; by default those that belong to the energies, if they are there;
            ``"none"`` reads no forces.
        units: Units of the file; by default those of its entries ``e_unit`` and ``r_unit`` (sGDML's), else
            those of the layout.

    Returns:
        The frames in eV and Å.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds pickles, if a key is missing, a shape is wrong or a
            value is not finite, if two atoms coincide, or if the units of a key are not known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; an npz file of structures is needed")
    with _open(path) as file:
        layout = _recognise(path, file.files)
        energy_key = energy_key or next(iter(layout.labels))
        if forces_key is None:
            partner = layout.labels.get(energy_key, "none")
            forces_key = partner if partner in file.files else "none"
        known = {*layout.labels.keys(), *layout.labels.values(), "none"}
        foreign = [key for key in (energy_key, forces_key) if key not in known]
        numbers = _read(path, file, layout.numbers)
        positions = _read(path, file, layout.positions)
        energy = _read(path, file, energy_key)
        forces = None if forces_key == "none" else _read(path, file, forces_key)
        units = units or _own_units(path, file)
    if units is None and foreign:
        raise ValueError(
            f"{path}: the unit of '{foreign[0]}' is not known; set the units, "
            'for example "kcal/mol" or "Hartree, Bohr"'
        )
    units = units or layout.units
    numbers, positions = _check_structure(path, layout, numbers, positions)
    frames, atoms, _ = positions.shape
    if energy.shape == (frames, 1):  # as MD17 has it
        energy = energy[:, 0]
    energy = _shaped(path, energy_key, energy, (frames,))
    if forces is not None:
        forces = _shaped(path, forces_key, forces, (frames, atoms, 3))
        forces = forces * units.forces_in_eV_per_angstrom
    return Trajectory(
        numbers, positions * units.length_in_angstrom, energy * units.energy_in_eV, forces, units
    )


def _own_units(path: Path, file: NpzFile) -> Units | None:
    names = [
        str(file[key]) for key in ("e_unit", "r_unit") if key in file.files and file[key].dtype.kind == "U"
    ]
    if not names:
        return None
    try:
        return Units(*(_SGDML_UNITS.get(name, name) for name in names))
    except ValueError:
        raise ValueError(
            f"{path}: says that its units are {' and '.join(names)}, which are not known; set the units, "
            'for example "kcal/mol" or "Hartree, Bohr"'
        ) from None


@contextmanager
def _open(path: Path) -> Iterator[NpzFile]:
    with path.open("rb") as stream:  # by ourselves, for NumPy leaves it open where the archive is damaged
        try:
            magic = stream.read(6)
            if magic[:2] != b"PK" and magic != b"\x93NUMPY":  # NumPy would take it for a pickle, and say so
                raise ValueError("it starts otherwise" if magic else "it is empty")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
        except (*_DAMAGES, ValueError) as error:
            raise ValueError(
                f"{path}: must be an npz file, which it is not or no longer ({error}); "
                "download or write it again"
            ) from None
        if not isinstance(file, NpzFile):
            raise ValueError(f"{path}: must be an npz file of several arrays, got one npy array")
        with file:
            yield file


def _recognise(path: Path, keys: list[str]) -> Layout:
    for layout in LAYOUTS:
        if layout.numbers in keys and layout.positions in keys:
            return layout
    known = " or ".join(f"'{x.numbers}' and '{x.positions}' ({x.name})" for x in LAYOUTS)
    raise ValueError(
        f"{path}: must have the keys {known}; got {', '.join(repr(key) for key in sorted(keys)) or 'none'}"
    )


def _read(path: Path, file: NpzFile, key: str) -> np.ndarray:
    if key not in file.files:
        raise ValueError(
            f"{path}: has no key '{key}'; its keys are {', '.join(repr(k) for k in sorted(file.files))}; "
            "choose others with energy_key and forces_key"
        )
    try:
        array = file[key]
    except _DAMAGES as error:
        raise ValueError(f"{path}: '{key}' is damaged ({error}); download the file again") from None
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise ValueError(
                f"{path}: '{key}' holds pickled objects, which are never loaded, for they may run code; "
                "save it as an array of numbers"
            ) from None
        raise ValueError(f"{path}: '{key}' is damaged ({error}); download the file again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":  # bytes, if it is no array
        raise ValueError(f"{path}: '{key}' must hold numbers, got {getattr(array, 'dtype', 'no array')}")
    return array


def _check_structure(
    path: Path, layout: Layout, numbers: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if numbers.ndim != 1:
        raise ValueError(
            f"{path}: '{layout.numbers}' must hold one atomic number for each atom, got shape {numbers.shape}"
        )
    wrong = [z for z in numbers.tolist() if not 1 <= z <= 99 or z != int(z)]
    if len(numbers) == 0 or wrong:
        raise ValueError(
            f"{path}: '{layout.numbers}' must hold atomic numbers 1 to 99, "
            f"got {wrong[0] if wrong else 'none'}"
        )
    frames = positions.shape[0] if positions.ndim == 3 else -1
    if frames == 0:
        raise ValueError(f"{path}: '{layout.positions}' must hold at least one frame, got 0")
    positions = _shaped(path, layout.positions, positions, (frames, len(numbers), 3))
    _check_distances(path, layout.positions, positions)
    return numbers.astype(np.int64), positions


def _check_distances(path: Path, key: str, positions: np.ndarray) -> None:
    """Refuse frames with two atoms at one point, a few thousand frames at a time."""
    frames, atoms, _ = positions.shape
    first, second = np.triu_indices(atoms, k=1)
    step = max(1, 2**20 // max(1, len(first)))
    for start in range(0, frames, step):
        part = positions[start : start + step]
        same = (part[:, first] == part[:, second]).all(axis=-1)
        if same.any():
            frame, pair = np.argwhere(same)[0]
            raise ValueError(
                f"{path}: '{key}' must not place two atoms at one point, got atoms {first[pair]} and "
                f"{second[pair]} of frame {start + frame} there; remove the frame"
            )


def _shaped(path: Path, key: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        wanted = ", ".join("frames" if size == -1 else str(size) for size in shape)
        raise ValueError(f"{path}: '{key}' must have shape ({wanted}), got {array.shape}")
    array = array.astype(np.float64)
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{path}: '{key}' must be finite, got NaN or infinity in frame {int(np.argmin(finite))}; "
            "remove the frame"
        )
    return array
