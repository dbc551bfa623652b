"""Structures that files hold one by one, and how their labels are found and gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, product
from typing import Any

import numpy as np

from pyg_schnet.io.formats.frames import Frames, scaled
from pyg_schnet.io.formats.labels import (
    Keys,
    Label,
    Labels,
    appears,
    charge_of,
    choose,
    describe,
    is_gradient,
    is_virial,
)
from pyg_schnet.io.units import Units

_ATOMS_AHEAD = 256  # single atoms at the begin of a file
_ALONE = 8.0  # Å between periodic images; nearest neighbors in crystals are closer than 6
_AT_ONCE = 4096  # structures that are held as objects
_ATOMS_AT_ONCE = 2**20
_OF_STRUCTURES = ("info", "key_value_pairs", "data")
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)  # xx yy zz yz xz xy, ASE's order, as a matrix


@dataclass(frozen=True)
class Record:
    """A structure and all that its file says of it.

    Attributes:
        numbers: Atomic numbers, shape ``(atoms,)``.
        positions: Shape ``(atoms, 3)``.
        cell: Lattice vectors as rows, shape ``(3, 3)``.
        pbc: Periodic directions, shape ``(3,)``.
        places: What could be labels, by place (``"calculator"``, ``"info"``, …) and name.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    places: Mapping[str, Mapping[str, Any]]


def gather(
    records: Iterator[Record], source: str, keys: Keys, units: Units | Callable[[Labels], Units]
) -> Iterator[Frames]:
    """Gather structures with the labels that the first one shows, or the first that is no isolated atom.

    Forces and stress of isolated atoms are zero where a file leaves them out.

    Args:
        records: The structures.
        source: Named in the messages.
        keys: What the user asks for.
        units: Of the records, or what finds those of the labels.

    Yields:
        Some thousand structures at a time, in eV and Å, all with the same labels.

    Raises:
        ValueError: If a label is missing in some structures or has a wrong shape, or if a structure is none.
    """
    gathered: _Gathered | None = None
    ahead = list(islice(_up_to_several_atoms(records), _ATOMS_AHEAD))
    shown = len(ahead) - 1 if ahead and np.size(ahead[-1].numbers) > 1 else 0
    for record in chain(ahead, records):
        if gathered is None:
            labels = choose(ahead[shown].places, keys, f"{source}: frame {shown}")
            known = units if isinstance(units, Units) else units(labels)
            gathered = _Gathered(source, keys, known, labels)
        gathered.add(record)
        if len(gathered.rows) >= _AT_ONCE or gathered.atoms >= _ATOMS_AT_ONCE:
            yield gathered.take()
    if gathered is None:
        raise ValueError(f"{source}: must hold at least one structure, got none")
    gathered.check_complete()
    if gathered.rows:
        yield gathered.take()


def _up_to_several_atoms(records: Iterator[Record]) -> Iterator[Record]:
    """Read to the first structure of several atoms, which shows which labels there are."""
    for record in records:
        yield record
        if np.size(record.numbers) > 1:
            return


@dataclass
class _Gathered:
    """Structures on their way to arrays, and which labels they lack."""

    source: str
    keys: Keys
    units: Units
    labels: Labels
    total: int = 0
    taken: int = 0
    atoms: int = 0
    rows: list[tuple[Record, float, np.ndarray | None, np.ndarray | None]] = field(default_factory=list)
    missing: dict[str, list[int]] = field(default_factory=dict)  # numbers of structures without a label

    def add(self, record: Record) -> None:
        for kind, label in self.labels._asdict().items():
            if not self._has_what_the_first_has(record, kind, label):
                self.missing.setdefault(kind, []).append(self.total)
        self._check_shapes(record)
        if not self.missing:  # otherwise the others are only counted
            self.rows.append((record, self._energy(record), self._forces(record), self._stress(record)))
            self.atoms += len(record.numbers)
        self.total += 1

    def take(self) -> Frames:
        rows, self.rows, self.atoms = self.rows, [], 0
        records, energies, forces, stresses = zip(*rows, strict=True)
        length, energy = self.units.length_in_angstrom, self.units.energy_in_eV
        force, stress = self.units.forces_in_eV_per_angstrom, self.units.stress_in_eV_per_cubic_angstrom
        if self.labels.stress is not None and is_virial(self.labels.stress.name):
            stress = energy / length**3
        pbc = np.array([record.pbc for record in records], dtype=bool)
        has_lattice = bool(pbc.any())
        frames = Frames(
            numbers=np.concatenate([record.numbers for record in records]),
            positions=scaled(np.concatenate([record.positions for record in records]), length),
            counts=np.array([len(record.numbers) for record in records]),
            energy=scaled(np.array(energies), energy),
            forces=scaled(np.concatenate(forces), force) if self.labels.forces else None,
            stress=scaled(np.array(stresses), stress) if self.labels.stress else None,
            cell=scaled(np.array([record.cell for record in records]), length) if has_lattice else None,
            pbc=pbc if has_lattice else None,
            units=self.units,
            labels=describe(self.labels, self.units),
            charged=sum(map(_is_charged, records)),
        )
        first, self.taken = self.taken, self.total
        return frames.check(self.source, first)

    def check_complete(self) -> None:
        for kind, numbers in self.missing.items():
            label = getattr(self.labels, kind)
            if label is None:  # the first structure has none
                some, lacking, first = kind, self.total - len(numbers), 0
            else:
                some, lacking, first = f"{kind} {label}", len(numbers), numbers[0]
            other = "choose another `energy_key`" if kind == "energy" else f"set `{kind}_key` to 'none'"
            raise ValueError(
                f"{self.source}: has {some} in some structures only; {lacking} of {self.total} have none, "
                f"the first of them is frame {first}; remove them, or {other}"
            )

    def _check_shapes(self, record: Record) -> None:
        atoms = np.size(record.numbers)
        wanted = {"numbers": (atoms,), "positions": (atoms, 3), "cell": (3, 3), "pbc": (3,)}
        for name, shape in wanted.items():
            value = np.asarray(getattr(record, name))
            if value.shape != shape or value.dtype.kind not in "fiub":
                raise ValueError(
                    f"{self.source}: {name} must be numbers of shape {shape}, got {value.dtype} of shape "
                    f"{value.shape} in frame {self.total}"
                )

    def _has_what_the_first_has(self, record: Record, kind: str, label: Label | None) -> bool:
        if kind != "energy" and np.size(record.numbers) == 1 and is_isolated(record.cell, record.pbc):
            return True
        if label is not None:
            return label.of(record.places) is not None
        return getattr(self.keys, kind) == "none" or not appears(record.places, kind, self.labels.energy)

    def _energy(self, record: Record) -> float:
        return float(self._number_array(record, "energy", [()]))

    def _forces(self, record: Record) -> np.ndarray | None:
        if (label := self.labels.forces) is None:
            return None
        if label.of(record.places) is None:
            return np.zeros((len(record.numbers), 3))
        forces = self._number_array(record, "forces", [(len(record.numbers), 3)])
        return -forces if is_gradient(label.name) else forces

    def _stress(self, record: Record) -> np.ndarray | None:
        if (label := self.labels.stress) is None:
            return None
        if label.of(record.places) is None:
            return np.zeros((3, 3))
        stress = as_matrix(self._number_array(record, "stress", [(3, 3), (6,), (9,)]))
        if not is_virial(label.name):
            return stress
        volume = abs(np.linalg.det(record.cell))
        if volume == 0:
            raise ValueError(
                f"{self.source}: must have a cell to make a stress of the virial {label}, got none in frame "
                f"{self.total}; set `stress_key` to 'none'"
            )
        return -stress / volume

    def _number_array(self, record: Record, kind: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
        label: Label = getattr(self.labels, kind)
        try:
            value = np.asarray(label.of(record.places))
        except ValueError:  # lists of several lengths
            value = np.empty(0, dtype=object)
        value = value.reshape(()) if value.size == 1 and shapes == [()] else value
        if value.shape[:1] == (1,) and value.shape[1:] in shapes:  # as SchNetPack's stress, (1, 3, 3)
            value = value[0]
        if value.dtype.kind not in "fiu" or value.shape not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ValueError(
                f"{self.source}: {kind} {label} must be numbers of shape {wanted}, got {value.dtype} of "
                f"shape {value.shape} in frame {self.total}"
            )
        return value.astype(np.float64, copy=False)


def _is_charged(record: Record) -> bool:
    return any(charge_of(values) != 0 for place, values in record.places.items() if place in _OF_STRUCTURES)


def is_isolated(cell: np.ndarray | None, pbc: np.ndarray | None) -> bool:
    """Whether one atom has no periodic image near it."""
    if cell is None or pbc is None or not np.any(pbc):
        return True
    cell, pbc = np.asarray(cell, dtype=np.float64), np.asarray(pbc, dtype=bool)
    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    steps = steps[(steps[:, ~pbc] == 0).all(axis=1)]
    return bool(np.linalg.norm(steps @ cell, axis=1).min() >= _ALONE)


def as_matrix(stress: np.ndarray) -> np.ndarray:
    """Turn stresses of six (xx yy zz yz xz xy, as ASE's) or nine numbers into matrices.

    Args:
        stress: Shape ``(..., 6)``, ``(..., 9)`` or ``(..., 3, 3)``.

    Returns:
        Shape ``(..., 3, 3)``.
    """
    if stress.shape[-2:] == (3, 3):
        return stress
    nine = stress if stress.shape[-1] == 9 else stress[..., _VOIGT]
    return nine.reshape(*stress.shape[:-1], 3, 3)
