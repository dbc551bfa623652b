"""Named arrays of many structures, as in npz and HDF5 files: published layouts, and conversion to frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pyg_schnet.io.formats.frames import Frames, atomic_numbers, scaled
from pyg_schnet.io.formats.labels import Keys, Labels, choose, describe, factors, is_virial
from pyg_schnet.io.formats.properties import description, is_dipole, possible, values_of
from pyg_schnet.io.formats.records import as_matrix
from pyg_schnet.io.units import Units

NUMBERS = ("z", "nuclear_charges", "atomic_numbers", "numbers", "species", "Z")
POSITIONS = ("R", "coords", "coordinates", "positions", "pos", "xyz", "conformations", "geometry")
_LATTICE = ("cell", "pbc")
_SIZES = ("n_atoms", "ptr")
_AMBIGUOUS = ("lattice", "Lattice", "unit_cell", "box")  # published with vectors in rows and in columns


@dataclass(frozen=True)
class Layout:
    """Names of the arrays in a file, and the units that they imply.

    Attributes:
        numbers: Name of the atomic numbers.
        positions: Name of the positions.
        partners: Names of energies, each with the name of the forces that belong to it, or ``""``; the first
            one in the file is the default.
        units: Units of positions and labels; ``None`` where the names do not imply them.
        has_gaps: Whether NaN marks labels that were not computed.
    """

    numbers: str
    positions: str
    partners: Mapping[str, str] = field(default_factory=dict)
    units: Units | None = None
    has_gaps: bool = False

    def labels(self, names: Mapping[str, str], keys: Keys, source: str) -> Labels:
        """Choose the labels.

        Args:
            names: Names of the arrays in the file, each with a description for error messages.
            keys: Requested names.
            source: Name of the file, for error messages.

        Raises:
            ValueError: If a requested name is missing, or none or several are recognized.
        """
        energy = keys.energy or next((name for name in self.partners if name in names), None)
        if energy is not None and energy in self.partners:
            partner = self.partners[energy]
            forces = keys.forces or (partner if partner in names else "none")
            keys = keys._replace(energy=energy, forces=forces)
        return choose({"": names}, keys, source)

    def units_of(self, labels: Labels, source: str) -> Units:
        """Return the units that the names of the labels imply.

        Raises:
            ValueError: If they imply none. Without labels, those of the positions are needed.
        """
        known = {*self.partners.keys(), *self.partners.values()}
        chosen = [label.name for label in labels[:2] if label is not None]
        if self.units is None or not known.issuperset(chosen):
            chosen = chosen or [self.positions]
            foreign = next((name for name in chosen if name not in known), chosen[0])
            raise ValueError(
                f"{source}: the unit of '{foreign}' is not known; set `units`, "
                'for example "kcal/mol" or "Hartree, Bohr"'
            )
        return self.units


MD17 = Layout("z", "R", {"E": "F"}, Units("kcal/mol"))
REVISED_MD17 = Layout(
    "nuclear_charges",
    "coords",
    {"energies": "forces", "old_energies": "old_forces"},
    Units("kcal/mol"),
)
ANI_1X = Layout(
    "atomic_numbers",
    "coordinates",
    {
        "wb97x_dz.energy": "wb97x_dz.forces",
        "wb97x_tz.energy": "wb97x_tz.forces",
        **dict.fromkeys(("ccsd(t)_cbs.energy", "hf_dz.energy", "hf_tz.energy", "hf_qz.energy"), ""),
    },
    Units("Hartree"),
    has_gaps=True,
)
ANI_1 = Layout("species", "coordinates", {"energies": "forces"}, Units("Hartree"))
SPICE = Layout(
    "atomic_numbers",
    "conformations",
    # Formation energies differ from total energies by a constant per molecule, so the gradient is the same.
    {"dft_total_energy": "dft_total_gradient", "formation_energy": "dft_total_gradient"},
    Units("Hartree", "Bohr"),
)
# modelforge's files of ANI-1x and QM9, whose arrays state their units; older ones name positions `geometry`.
_OF_MODELFORGE = {
    "wb97x_dz_energy": "wb97x_dz_forces",
    "wb97x_tz_energy": "wb97x_tz_forces",
    "internal_energy_at_0K": "",
}
MODELFORGE = tuple(
    Layout("atomic_numbers", positions, _OF_MODELFORGE, has_gaps=True)
    for positions in ("positions", "geometry")
)
DEEPMD = Layout("type", "coord", {"energy": "force"})
PUBLISHED = {
    "MD17": MD17,
    "revised MD17": REVISED_MD17,
    "ANI-1x": ANI_1X,
    "ANI-1": ANI_1,
    "SPICE": SPICE,
    "modelforge": MODELFORGE[0],
}
"""Layouts of published npz and HDF5 files, by the name of the data set or program."""


def recognize(names: Iterable[str], layouts: Sequence[Layout], source: str) -> Layout:
    """Return the layout of a file.

    Args:
        names: Names of the arrays in the file.
        layouts: Published layouts, which take precedence.
        source: Name of the file, for error messages.

    Raises:
        ValueError: If there are no atomic numbers or positions under a known name.
    """
    names = list(names)
    for layout in layouts:
        if layout.numbers in names and layout.positions in names:
            return layout
    numbers = next((name for name in NUMBERS if name in names), None)
    positions = next((name for name in POSITIONS if name in names), None)
    if numbers is None or positions is None:
        raise ValueError(
            f"{source}: must have atomic numbers, as {_either(NUMBERS)}, and positions, as "
            f"{_either(POSITIONS)}; got {', '.join(repr(name) for name in sorted(names)) or 'no arrays'}"
        )
    return Layout(numbers, positions)


@dataclass(frozen=True)
class ArrayConverter:
    """Conversion of named arrays to frames.

    Attributes:
        layout: Names of atomic numbers and positions.
        labels: Names of the labels.
        units: Units of the arrays.
        properties: Names of further arrays of structures or atoms, which may be absent.
    """

    layout: Layout
    labels: Labels
    units: Units
    properties: tuple[str, ...] = ()

    def names(self, available: Iterable[str], source: str) -> list[str]:
        """Return the names of the arrays to read, without properties.

        Raises:
            ValueError: If there is a lattice whose convention, vectors in rows or in columns, is not known.
        """
        available = list(available)
        ambiguous = next((name for name in _AMBIGUOUS if name in available), None)
        if ambiguous is not None and "cell" not in available:
            raise ValueError(
                f"{source}: has '{ambiguous}', whose lattice vectors may be rows or columns; save it as "
                "'cell', in rows"
            )
        labels = [label.name for label in self.labels if label is not None]
        others = [name for name in (*_LATTICE, *_SIZES) if name in available]
        return [self.layout.numbers, self.layout.positions, *labels, *others]

    def frames(self, arrays: dict[str, np.ndarray], source: str) -> Frames:
        """Convert arrays to frames in eV and Å; only types and shapes are checked.

        Args:
            arrays: Arrays by name; they may be modified in place. Atomic numbers have shape ``(atoms,)``, or
                ``(frames, atoms)`` padded with 0 or -1; positions and forces ``(frames, atoms, 3)``.
                Structures of different sizes are concatenated and come with ``n_atoms (frames,)`` or ``ptr
                (frames + 1,)``. Energies are ``(frames,)`` or ``(frames, 1)``; stresses ``(frames, 3, 3)``,
                ``(frames, 9)`` or, in ASE's order, ``(frames, 6)``; ``cell`` and ``pbc`` of one frame or all.
                Properties have the shape of energies, or of positions without the last dimension.
            source: Name of the file, for error messages.

        Raises:
            ValueError: If a shape is wrong, or an atomic number is invalid.
        """
        self.check_types(arrays, source)
        numbers, counts, real = self._structures(arrays, source)
        positions = arrays[self.layout.positions]
        properties = self._properties(arrays, positions.shape[:-1], real, len(counts), source)
        length, factor = self.units.length_in_angstrom, factors(self.labels, self.units)
        energy, forces, stress = self.labels
        if forces is not None:
            forces = _check_shape(arrays[forces.name], positions.shape, forces.name, source)
            forces = scaled(_flat(forces, real), factor.forces)
        cell, pbc = _lattice(arrays, len(counts), source)
        if stress is not None:
            stress = _stress(arrays[stress.name], stress.name, cell, len(counts), source)
            stress = scaled(stress, factor.stress)
        return Frames(
            numbers=numbers,
            positions=scaled(_flat(positions, real), length),
            counts=counts,
            energy=None
            if energy is None
            else scaled(_energies(arrays[energy.name], energy.name, len(counts), source), factor.energy),
            forces=forces,
            stress=stress,
            cell=None if cell is None else scaled(cell, length),
            pbc=pbc,
            units=self.units,
            labels=describe(self.labels, self.units)
            | {name: self._source(arrays, name) for name in properties},
            properties=properties,
        )

    def available(
        self, shapes: Mapping[str, tuple[int, ...]], sites: tuple[int, ...], frames: int
    ) -> dict[str, str]:
        """Return the names of arrays that could be properties, each with ``"structure"`` or ``"atom"``.

        Args:
            shapes: Shapes of the numeric arrays by name.
            sites: Shape of the positions without the last dimension.
            frames: Number of structures.
        """
        taken = {self.layout.numbers, self.layout.positions, *_LATTICE, *_SIZES}
        taken |= {label.name for label in self.labels if label is not None}
        return possible({name: x for name, x in shapes.items() if name not in taken}, sites, frames)

    def _properties(
        self,
        arrays: Mapping[str, np.ndarray],
        sites: tuple[int, ...],
        real: np.ndarray | None,
        frames: int,
        source: str,
    ) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name in self.properties:
            if name not in arrays:
                continue
            values = values_of(arrays[name], name, sites, real, frames)
            if values is None:
                raise ValueError(
                    f"{_at(source, name)} must be numbers of shape ({frames},) or {sites}, a value for each "
                    f"structure or atom, got {arrays[name].dtype} of shape {arrays[name].shape}; leave it "
                    "out of `properties`"
                )
            found[name] = values
        return found

    def _source(self, arrays: Mapping[str, np.ndarray], name: str) -> str:
        shape = arrays[name].shape
        return description(name, "", is_dipole(name) and len(shape) > 1 and shape[-1] == 3)

    def check_types(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Raise if an array does not hold numbers, or element symbols in place of atomic numbers."""
        for name, array in arrays.items():
            kinds = {self.layout.numbers: "fiuSUO", "pbc": "biu"}.get(name, "fiu")
            if array.dtype.kind not in kinds:
                raise ValueError(f"{_at(source, name)} must hold numbers, got {array.dtype}")

    def _structures(
        self, arrays: dict[str, np.ndarray], source: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return atomic numbers ``(atoms,)``, atoms per frame, and a mask of atoms without padding."""
        key, name = self.layout.positions, self.layout.numbers
        numbers, positions = arrays[name], arrays[key]
        if numbers.ndim == 2 and numbers.shape[1] == 1 and positions.shape[-2:-1] == numbers.shape[:1]:
            numbers = numbers[:, 0]  # modelforge writes a row for each atom
        if any(size in arrays for size in _SIZES):
            counts = _sizes(arrays, source)
            _check_shape(positions, (int(counts.sum()), 3), key, source)
            _check_shape(numbers, (len(positions),), name, source)
            return atomic_numbers(numbers, _at(source, name)), counts, None
        if numbers.ndim == 2:
            _check_shape(positions, (*numbers.shape, 3), key, source)
            real = np.full(numbers.shape, True) if numbers.dtype.kind in "SUO" else ~np.isin(numbers, [0, -1])
            return atomic_numbers(numbers[real], _at(source, name)), real.sum(axis=1), real
        if numbers.ndim != 1:
            raise ValueError(
                f"{_at(source, name)} must have shape (atoms,) or (frames, atoms), got {numbers.shape}"
            )
        if positions.shape != (len(numbers), 3):  # or one structure without the dimension of frames
            frames = positions.shape[0] if positions.ndim == 3 else "frames"
            _check_shape(positions, (frames, len(numbers), 3), key, source)
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
    if "pbc" not in arrays:  # ASE's default for a file with a lattice
        return cell, np.any(cell, axis=2)
    pbc = _of_each(arrays["pbc"], (3,), "pbc", frames, source)
    return cell, pbc.astype(bool)


def _of_each(array: np.ndarray, shape: tuple[int, ...], name: str, frames: int, source: str) -> np.ndarray:
    if array.shape == shape:
        return np.broadcast_to(array, (frames, *shape))
    return _check_shape(array, (frames, *shape), name, source)


def _stress(array: np.ndarray, name: str, cell: np.ndarray | None, frames: int, source: str) -> np.ndarray:
    """Return stresses, or virials divided by the volume, as matrices."""
    if array.shape[:2] == (frames, 1):  # SchNetPack writes one matrix in a batch of one structure
        array = array[:, 0]
    if array.shape not in ((frames, 6), (frames, 9)):
        array = _check_shape(array, (frames, 3, 3), name, source)
    stress = as_matrix(array)
    if not is_virial(name):
        return stress
    volume = np.zeros(frames) if cell is None else np.abs(np.linalg.det(cell))
    if not volume.all():
        raise ValueError(
            f"{_at(source, name)} is a virial, which needs a 'cell' in each frame to become a stress; set "
            "`stress_key` to 'none'"
        )
    return stress / volume[:, None, None]


def _energies(array: np.ndarray, name: str, frames: int, source: str) -> np.ndarray:
    array = array.reshape(-1) if array.shape in ((frames, 1), ()) else array
    return _check_shape(array, (frames,), name, source)


def _flat(array: np.ndarray, real: np.ndarray | None) -> np.ndarray:
    return array.reshape(-1, 3) if real is None else array[real]


def _check_shape(array: np.ndarray, shape: tuple[int | str, ...], name: str, source: str) -> np.ndarray:
    if array.shape != shape:
        wanted = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise ValueError(f"{_at(source, name)} must have shape {wanted}, got {array.shape}")
    return array


def _at(source: str, name: str) -> str:
    return f"{source}: '{name}'"


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(f"'{name}'" for name in names[:-1]), f"'{names[-1]}'"])
