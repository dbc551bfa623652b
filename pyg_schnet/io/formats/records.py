"""Records: the structures of files that hold them one by one, and their collection into frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Any

import numpy as np

from pyg_schnet.io.formats.frames import Frames, scaled
from pyg_schnet.io.formats.labels import (
    Keys,
    Label,
    Labels,
    Sections,
    appears,
    charge_of,
    choose,
    describe,
    factors,
    is_virial,
)
from pyg_schnet.io.formats.properties import ATOM, STRUCTURE, concatenated, description, is_vector, value_of
from pyg_schnet.io.units import Units

_ATOMS_AHEAD = 256  # isolated atoms at the start of a file
_ISOLATED = 8.0  # Å between periodic images; nearest neighbors in crystals are closer than 6
_STRUCTURES_AT_ONCE = 4096
_ATOMS_AT_ONCE = 2**20
_OF_STRUCTURES = ("info", "key_value_pairs", "data")  # sections that may state a charge
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)  # matrix entries in ASE's order xx yy zz yz xz xy


@dataclass(frozen=True)
class Record:
    """One structure of a file, with every value that may be a label.

    Attributes:
        numbers: Atomic numbers, shape ``(atoms,)``.
        positions: Shape ``(atoms, 3)``, in the file's unit.
        cell: Lattice vectors as rows, shape ``(3, 3)``, in the file's unit.
        pbc: Periodic directions, shape ``(3,)``.
        sections: Candidate labels by section (``"calculator"``, ``"info"``, …) and name.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    sections: Sections


def collect(
    records: Iterator[Record], source: str, keys: Keys, units: Units | Callable[[Labels], Units]
) -> Iterator[Frames]:
    """Collect records into frames with labels.

    The first structure of several atoms, or the first one if there is none, determines the labels. Forces and
    stress of isolated atoms are zero where a file omits them. Any structure may lack properties.

    Args:
        records: Structures of the file.
        source: Name of the file, for error messages.
        keys: Requested names of labels.
        units: Units of the records, or a function that returns them for the chosen labels.

    Yields:
        Up to 4,096 structures at a time, in eV and Å, all with the same labels, and those properties that any
        of them has.

    Raises:
        ValueError: If there is no structure, or a label is missing in some structures or has a wrong shape.
    """
    ahead = list(islice(_until_several_atoms(records), _ATOMS_AHEAD))
    if not ahead:
        raise ValueError(f"{source}: must hold at least one structure, got none")
    shown = len(ahead) - 1 if np.size(ahead[-1].numbers) > 1 else 0
    labels = choose(ahead[shown].sections, keys, f"{source}: frame {shown}")
    collector = _Collector(source, keys, labels, units if isinstance(units, Units) else units(labels))
    for record in chain(ahead, records):
        collector.add(record)
        if len(collector.rows) >= _STRUCTURES_AT_ONCE or collector.atoms >= _ATOMS_AT_ONCE:
            yield collector.frames()
    collector.check_complete()
    if collector.rows:
        yield collector.frames()


def _until_several_atoms(records: Iterator[Record]) -> Iterator[Record]:
    """Yield records up to the first one of several atoms."""
    for record in records:
        yield record
        if np.size(record.numbers) > 1:
            return


class _Collector:
    """Checks the labels of records, and concatenates them to frames.

    Attributes:
        rows: Numbers, positions, cell, pbc, energy, forces, stress, properties and whether charged, of each
            structure.
        atoms: Number of atoms in the rows.
    """

    def __init__(self, source: str, keys: Keys, labels: Labels, units: Units):
        self._source, self._keys, self._labels, self._units = source, keys, labels, units
        self._total = self._first = 0  # structures so far, and those of earlier frames
        self._missing: dict[str, list[int]] = {}  # numbers of structures without a label
        self._kinds: dict[str, str] = {}  # whether a property is of structures or of atoms
        self._sources: dict[str, str] = {}  # descriptions of the properties
        self._available: dict[str, str] = {}
        chosen = [label.name for label in labels if label is not None]
        self._examined = {"energy", "forces", "stress", *chosen}  # names that are no candidates any more
        self.rows: list[tuple] = []
        self.atoms = 0

    def add(self, record: Record) -> None:
        for kind, label in self._labels._asdict().items():
            if not self._agrees_with_first(record, kind, label):
                self._missing.setdefault(kind, []).append(self._total)
        self._check_shapes(record)
        if not self._missing:  # otherwise structures are only counted, for the error message
            lattice = record.cell, record.pbc
            labels = self._energy(record), self._forces(record), self._stress(record)
            properties = {name: self._property(record, name) for name in self._keys.properties}
            self._find_candidates(record)
            own = record.numbers, record.positions, *lattice, *labels, properties, _is_charged(record)
            self.rows.append(own)
            self.atoms += len(record.numbers)
        self._total += 1

    def frames(self) -> Frames:
        rows, self.rows, self.atoms = self.rows, [], 0
        columns = zip(*rows, strict=True)
        numbers, positions, cells, pbc, energies, forces, stresses, properties, charged = columns
        counts = np.array([len(own) for own in numbers])
        factor, length = factors(self._labels, self._units), self._units.length_in_angstrom
        has_lattice = bool(np.any(pbc))
        frames = Frames(
            numbers=np.concatenate(numbers),
            positions=scaled(np.concatenate(positions), length),
            counts=counts,
            energy=scaled(np.array(energies), factor.energy) if self._labels.energy else None,
            forces=scaled(np.concatenate(forces), factor.forces) if self._labels.forces else None,
            stress=scaled(np.array(stresses), factor.stress) if self._labels.stress else None,
            cell=scaled(np.array(cells), length) if has_lattice else None,
            pbc=np.array(pbc, dtype=bool) if has_lattice else None,
            units=self._units,
            labels=describe(self._labels, self._units) | self._sources,
            charged=sum(charged),
            properties={
                name: concatenated([own[name] for own in properties], counts)
                for name in self._keys.properties
                if any(own[name] is not None for own in properties)
            },
            available=dict(self._available),
        )
        first, self._first = self._first, self._total
        return frames.check(self._source, first)

    def check_complete(self) -> None:
        for kind, numbers in self._missing.items():
            label = getattr(self._labels, kind)
            if label is None:  # the first structure has none
                some, lacking, first = kind, self._total - len(numbers), 0
            else:
                some, lacking, first = f"{kind} {label}", len(numbers), numbers[0]
            other = "choose another `energy_key`" if kind == "energy" else f"set `{kind}_key` to 'none'"
            raise ValueError(
                f"{self._source}: has {some} in some structures only; {lacking} of {self._total} have none, "
                f"the first of them is frame {first}; remove them, or {other}"
            )

    def _agrees_with_first(self, record: Record, kind: str, label: Label | None) -> bool:
        """Return whether a structure has a label exactly if the first one has."""
        if kind != "energy" and np.size(record.numbers) == 1 and is_isolated(record.cell, record.pbc):
            return True
        if label is not None:
            return label.value(record.sections) is not None
        if self._labels.energy is None or getattr(self._keys, kind) == "none":
            return True
        return not appears(record.sections, kind, self._labels.energy)

    def _check_shapes(self, record: Record) -> None:
        atoms = np.size(record.numbers)
        expected = {"numbers": (atoms,), "positions": (atoms, 3), "cell": (3, 3), "pbc": (3,)}
        for name, shape in expected.items():
            value = np.asarray(getattr(record, name))
            if value.shape != shape or value.dtype.kind not in "fiub":
                raise ValueError(
                    f"{self._source}: {name} must be numbers of shape {shape}, got {value.dtype} of shape "
                    f"{value.shape} in frame {self._total}"
                )

    def _property(self, record: Record, name: str) -> np.ndarray | None:
        """Return the value of a property, from the first section that has one; ``None`` if it is missing."""
        found = ((section, values.get(name)) for section, values in record.sections.items())
        section, value = next(((section, value) for section, value in found if value is not None), ("", None))
        if value is None:
            return None
        atoms = np.size(record.numbers)
        converted = value_of(value, atoms, name)
        kind = ATOM if converted is not None and converted.ndim else STRUCTURE
        if converted is None or (atoms > 1 and self._kinds.setdefault(name, kind) != kind):
            wanted = {None: f"shape () or ({atoms},)", STRUCTURE: "shape ()", ATOM: f"shape ({atoms},)"}
            raise ValueError(
                f"{self._source}: property '{name}' must be numbers of {wanted[self._kinds.get(name)]}, got "
                f"{_shown(value)} in frame {self._total}; leave it out of `properties`, or repair it"
            )
        self._sources.setdefault(name, description(name, section, is_vector(value, name)))
        return converted

    def _find_candidates(self, record: Record) -> None:
        """Collect the names of values that could be properties."""
        atoms = np.size(record.numbers)
        for section, values in record.sections.items():
            for name in values:
                if name in self._examined or not isinstance(name, str) or values[name] is None:
                    continue
                value = value_of(values[name], atoms, name)
                if value is not None:
                    self._available[name] = ATOM if value.ndim or section == "arrays" else STRUCTURE
                if atoms > 1:
                    self._examined.add(name)

    def _energy(self, record: Record) -> float:
        if self._labels.energy is None:
            return 0.0
        return float(self._label_array(record, "energy", [()]))

    def _forces(self, record: Record) -> np.ndarray | None:
        if (label := self._labels.forces) is None:
            return None
        if label.value(record.sections) is None:  # of an isolated atom
            return np.zeros((len(record.numbers), 3))
        return self._label_array(record, "forces", [(len(record.numbers), 3)])

    def _stress(self, record: Record) -> np.ndarray | None:
        """Return the stress, or the virial divided by the volume."""
        if (label := self._labels.stress) is None:
            return None
        if label.value(record.sections) is None:  # of an isolated atom
            return np.zeros((3, 3))
        stress = as_matrix(self._label_array(record, "stress", [(3, 3), (6,), (9,)]))
        if not is_virial(label.name):
            return stress
        volume = abs(np.linalg.det(record.cell))
        if volume == 0:
            raise ValueError(
                f"{self._source}: must have a cell to convert the virial {label} to a stress, got none in "
                f"frame {self._total}; set `stress_key` to 'none'"
            )
        return stress / volume

    def _label_array(self, record: Record, kind: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
        label: Label = getattr(self._labels, kind)
        try:
            value = np.asarray(label.value(record.sections))
        except ValueError:  # lists of several lengths
            value = np.empty(0, dtype=object)
        value = value.reshape(()) if value.size == 1 and shapes == [()] else value
        if value.shape[:1] == (1,) and value.shape[1:] in shapes:  # SchNetPack's stress has shape (1, 3, 3)
            value = value[0]
        if value.dtype.kind not in "fiu" or value.shape not in shapes:
            expected = " or ".join(str(shape) for shape in shapes)
            raise ValueError(
                f"{self._source}: {kind} {label} must be numbers of shape {expected}, got {value.dtype} of "
                f"shape {value.shape} in frame {self._total}"
            )
        return value.astype(np.float64, copy=False)


def _shown(value: Any) -> str:
    try:
        array = np.asarray(value)
    except ValueError:
        return "lists of several lengths"
    return f"{array.dtype} of shape {array.shape}"


def _is_charged(record: Record) -> bool:
    return any(charge_of(record.sections[name]) != 0 for name in _OF_STRUCTURES if name in record.sections)


def is_isolated(cell: np.ndarray | None, pbc: np.ndarray | None) -> bool:
    """Return whether a single atom is at least 8 Å from its nearest periodic image.

    Args:
        cell: Lattice vectors as rows, shape ``(3, 3)``, in Å; ``None`` without a lattice.
        pbc: Periodic directions, shape ``(3,)``; ``None`` without a lattice.
    """
    if cell is None or pbc is None or not np.any(pbc):
        return True
    cell, pbc = np.asarray(cell, dtype=np.float64), np.asarray(pbc, dtype=bool)
    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    steps = steps[(steps[:, ~pbc] == 0).all(axis=1)]
    return bool(np.linalg.norm(steps @ cell, axis=1).min() >= _ISOLATED)


def as_matrix(stress: np.ndarray) -> np.ndarray:
    """Convert stresses of six numbers (ASE's order xx yy zz yz xz xy) or nine numbers to matrices.

    Args:
        stress: Shape ``(..., 6)``, ``(..., 9)`` or ``(..., 3, 3)``.

    Returns:
        Shape ``(..., 3, 3)``.
    """
    if stress.shape[-2:] == (3, 3):
        return stress
    nine = stress if stress.shape[-1] == 9 else stress[..., _VOIGT]
    return nine.reshape(*stress.shape[:-1], 3, 3)
