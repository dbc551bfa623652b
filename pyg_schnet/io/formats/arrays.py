"""Arrays of many structures, as npz and HDF5 files hold them, in the shape of frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pyg_schnet.io.formats.frames import Frames, atomic_numbers, scaled
from pyg_schnet.io.formats.labels import Labels, describe, is_gradient, is_virial
from pyg_schnet.io.formats.layouts import Layout
from pyg_schnet.io.formats.records import as_matrix
from pyg_schnet.io.units import Units

_LATTICE = ("cell", "pbc")
_SIZES = ("n_atoms", "ptr")
_UNCLEAR = ("lattice", "Lattice", "unit_cell", "box")  # published with vectors in rows and in columns


@dataclass(frozen=True)
class Shaping:
    """How arrays with names become frames.

    Attributes:
        layout: Names of atomic numbers and positions.
        labels: Names of the labels.
        units: Of the arrays.
    """

    layout: Layout
    labels: Labels
    units: Units

    def names(self, available: Iterable[str], source: str) -> list[str]:
        """Choose the arrays to read.

        Raises:
            ValueError: If there is a lattice of which it is not known how it is written.
        """
        available = list(available)
        unclear = next((name for name in _UNCLEAR if name in available), None)
        if unclear is not None and "cell" not in available:
            raise ValueError(
                f"{source}: has '{unclear}', of which it is not known whether rows or columns are lattice "
                "vectors; save it as 'cell', in rows"
            )
        labels = [label.name for label in self.labels if label is not None]
        others = [name for name in (*_LATTICE, *_SIZES) if name in available]
        return [self.layout.numbers, self.layout.positions, *labels, *others]

    def frames(self, arrays: dict[str, np.ndarray], source: str) -> Frames:
        """Bring arrays into the shape of frames, in eV and Å; not yet checked but for their shapes.

        Args:
            arrays: By name, and changed by this. Atomic numbers have the shape ``(atoms,)``, or ``(frames,
                atoms)`` filled up with 0 or -1, positions and forces ``(frames, atoms, 3)``. Atoms of
                structures of any sizes behind each other go with ``n_atoms (frames,)`` or ``ptr (frames +
                1,)``. Energies are ``(frames,)`` or ``(frames, 1)``, stresses ``(frames, 3, 3)``, ``(frames,
                9)`` or ``(frames, 6)`` in ASE's order, ``cell`` and ``pbc`` are of one frame or of each.
            source: Named in the messages.

        Raises:
            ValueError: If a shape is wrong, or something is no atomic number.
        """
        self.check_types(arrays, source)
        numbers, counts, real = self._structures(arrays, source)
        positions, energy = arrays[self.layout.positions], arrays[self.labels.energy.name]
        length, in_eV = self.units.length_in_angstrom, self.units.energy_in_eV
        forces, stress = self.labels.forces, self.labels.stress
        if energy.shape in ((len(counts), 1), ()):
            energy = energy.reshape(-1)
        if forces is not None:
            shaped = _shaped(arrays[forces.name], positions.shape, forces.name, source)
            sign = -1 if is_gradient(forces.name) else 1
            forces = scaled(_flat(shaped, real), sign * self.units.forces_in_eV_per_angstrom)
        cell, pbc = _lattice(arrays, len(counts), source)
        if stress is not None:
            of_virial = in_eV / length**3
            to_ours = of_virial if is_virial(stress.name) else self.units.stress_in_eV_per_cubic_angstrom
            stress = scaled(_stress(arrays[stress.name], stress.name, cell, len(counts), source), to_ours)
        return Frames(
            numbers=numbers,
            positions=scaled(_flat(positions, real), length),
            counts=counts,
            energy=scaled(_shaped(energy, (len(counts),), self.labels.energy.name, source), in_eV),
            forces=forces,
            stress=stress,
            cell=None if cell is None else scaled(cell, length),
            pbc=pbc,
            units=self.units,
            labels=describe(self.labels, self.units),
        )

    def check_types(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Refuse arrays of anything but numbers, and symbols of elements where these belong."""
        for name, array in arrays.items():
            kinds = {self.layout.numbers: "fiuSUO", "pbc": "biu"}.get(name, "fiu")
            if array.dtype.kind not in kinds:
                raise ValueError(f"{_at(source, name)} must hold numbers, got {array.dtype}")

    def _structures(
        self, arrays: dict[str, np.ndarray], source: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Tell the atomic numbers one after the other, the sizes, and which atoms are no mere filling."""
        key, name = self.layout.positions, self.layout.numbers
        numbers, positions = arrays[name], arrays[key]
        if numbers.ndim == 2 and numbers.shape[1] == 1 and positions.shape[-2:-1] == numbers.shape[:1]:
            numbers = numbers[:, 0]  # of one atom a row, as modelforge writes them
        if any(size in arrays for size in _SIZES):
            counts = _sizes(arrays, source)
            _shaped(positions, (int(counts.sum()), 3), key, source)
            _shaped(numbers, (len(positions),), name, source)
            return atomic_numbers(numbers, _at(source, name)), counts, None
        if numbers.ndim == 2:
            _shaped(positions, (*numbers.shape, 3), key, source)
            real = np.full(numbers.shape, True) if numbers.dtype.kind in "SUO" else ~np.isin(numbers, [0, -1])
            return atomic_numbers(numbers[real], _at(source, name)), real.sum(axis=1), real
        if numbers.ndim != 1:
            raise ValueError(
                f"{_at(source, name)} must have shape (atoms,) or (frames, atoms), got {numbers.shape}"
            )
        if positions.shape != (len(numbers), 3):  # of one structure
            frames = positions.shape[0] if positions.ndim == 3 else "frames"
            _shaped(positions, (frames, len(numbers), 3), key, source)
        counts = np.full(positions.size // (3 * max(1, len(numbers))), len(numbers))
        return np.tile(atomic_numbers(numbers, _at(source, name)), len(counts)), counts, None


def _sizes(arrays: dict[str, np.ndarray], source: str) -> np.ndarray:
    name = next(name for name in _SIZES if name in arrays)
    sizes = np.diff(arrays[name], axis=0) if name == "ptr" else arrays[name]
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes < 0).any():
        wanted = "ascending offsets" if name == "ptr" else "numbers of atoms"
        raise ValueError(
            f"{_at(source, name)} must hold {wanted}, got {arrays[name].dtype} of shape {arrays[name].shape}"
        )
    return sizes.astype(np.int64)


def _lattice(
    arrays: dict[str, np.ndarray], frames: int, source: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not any(name in arrays for name in _LATTICE):
        return None, None
    if "cell" not in arrays:
        if arrays["pbc"].any():
            raise ValueError(f"{source}: must have lattice vectors, as 'cell', where 'pbc' is true")
        return None, None
    cell = _of_each(arrays["cell"], (3, 3), "cell", frames, source).astype(np.float64)
    if "pbc" not in arrays:  # as ASE's default for a file with a lattice
        return cell, np.any(cell, axis=2)
    pbc = _of_each(arrays["pbc"], (3,), "pbc", frames, source)
    return cell, pbc.astype(bool)


def _of_each(array: np.ndarray, shape: tuple[int, ...], name: str, frames: int, source: str) -> np.ndarray:
    if array.shape == shape:
        return np.broadcast_to(array, (frames, *shape))
    return _shaped(array, (frames, *shape), name, source)


def _stress(array: np.ndarray, name: str, cell: np.ndarray | None, frames: int, source: str) -> np.ndarray:
    if array.shape[:2] == (frames, 1):  # a matrix of one structure each, as SchNetPack writes it
        array = array[:, 0]
    if array.shape not in ((frames, 6), (frames, 9)):
        array = _shaped(array, (frames, 3, 3), name, source)
    stress = as_matrix(array)
    if not is_virial(name):
        return stress
    volume = np.zeros(frames) if cell is None else np.abs(np.linalg.det(cell))
    if not volume.all():
        raise ValueError(
            f"{_at(source, name)} is a virial, which needs a 'cell' in each frame to become a stress; set "
            "`stress_key` to 'none'"
        )
    return -stress / volume[:, None, None]


def _flat(array: np.ndarray, real: np.ndarray | None) -> np.ndarray:
    return array.reshape(-1, 3) if real is None else array[real]


def _shaped(array: np.ndarray, shape: tuple[int | str, ...], name: str, source: str) -> np.ndarray:
    if array.shape != shape:
        wanted = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise ValueError(f"{_at(source, name)} must have shape {wanted}, got {array.shape}")
    return array


def _at(source: str, name: str) -> str:
    return f"{source}: '{name}'"
