"""Structures in HDF5 files: a group for each molecule, as of ANI-1x, ANI-1, SPICE and modelforge."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from pyg_schnet.io.formats.arrays import Shaping
from pyg_schnet.io.formats.frames import Frames, atomic_numbers
from pyg_schnet.io.formats.hdf5_access import Node, listing, nodes, open_file
from pyg_schnet.io.formats.labels import Keys, Labels, is_virial
from pyg_schnet.io.formats.layouts import (
    ANI_1,
    ANI_1X,
    MODELFORGE,
    NUMBERS,
    POSITIONS,
    SPICE,
    Layout,
    recognise,
)
from pyg_schnet.io.formats.stated_units import chosen_units
from pyg_schnet.io.units import Units

_log = logging.getLogger(__name__)
_ATOMS_AT_ONCE = 2**20
_SYSTEMS = "grouped_indices"  # modelforge's, of systems of one size in one group: whose atoms a frame has


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels, a group after the other.

    The layouts of ANI-1x, ANI-1 and SPICE are recognised; others need ``units``, or attributes ``units`` or,
    as modelforge's, ``u`` of the arrays, which hold in any layout. Arrays whose names end in ``gradient`` are
    minus the forces. Structures of ANI-1x whose labels were not computed are left out and counted.

    Args:
        path: The file.
        keys: Which labels; those of the layout by default.
        units: Of the file; what it says, or its layout, by default.

    Raises:
        ValueError: If the file is damaged, if it refers to others, or if labels or units are not known, or
            are not the same in all groups.
    """
    with open_file(path) as file:
        reading: _Reading | None = None
        held: Frames | None = None  # the last one tells how many were left out
        for node in nodes(path, file, _holds_structures):
            if reading is None:
                reading = _Reading(path, *_recognise(node, keys, units), None if units else node)
            for frames in reading.frames(node):
                if held is not None:
                    yield held
                held = frames
        if reading is None:
            raise ValueError(
                f"{path}: must have groups with atomic numbers and positions under usual names, got "
                f"{listing(path, file)}"
            )
        reading.check_complete()
        if held is None:
            raise ValueError(f"{path}: must hold structures with labels, got {reading.skipped} without (NaN)")
        yield replace(held, skipped=reading.skipped)
    if reading.skipped:
        _log.warning("%s: left out %d structures, whose labels are missing (NaN)", path, reading.skipped)


def is_periodic(path: Path) -> bool:
    """Tell whether the structures of a file have a lattice."""
    with open_file(path) as file:
        first = next(nodes(path, file, _holds_structures), None)
        return first is not None and "cell" in first.members


@dataclass
class _Reading:
    """One pass through a file: what its first molecule shows holds for all.

    Attributes:
        first: The first molecule, if its units are those of all.
    """

    path: Path
    shaping: Shaping
    names: list[str]
    first: Node | None
    molecules: int = 0
    skipped: int = 0
    lacking: list[tuple[str, str]] = field(default_factory=list)  # molecules, and what they lack
    stated: dict[str, str | None] = field(default_factory=dict)  # units of the first molecule's arrays

    def frames(self, node: Node) -> Iterator[Frames]:
        source = str(node)
        self.molecules += 1
        missing = next((name for name in self.names if name not in node.members), None)
        if missing is not None:
            self.lacking.append((node.name, missing))
        if self.lacking:  # the others are only counted
            return
        arrays = {name: node.open(name) for name in self.names}
        self._check_units(node, arrays)
        if _SYSTEMS in node.members:
            arrays[_SYSTEMS] = node.open(_SYSTEMS)
        first = 0
        for rows in self._parts(arrays):
            read = {name: node.values(name, array, rows.get(name)) for name, array in arrays.items()}
            if _SYSTEMS in read:
                read = self._with_own_numbers(read, source)
            self.shaping.check_types(read, source)
            if self.shaping.layout.has_gaps:
                read = self._without_gaps(read)
            if read[self.shaping.layout.positions].size:
                frames = self.shaping.frames(read, source).check(source, first)
                first += len(frames)
                yield frames

    def _check_units(self, node: Node, arrays: dict[str, h5py.Dataset]) -> None:
        """Refuse a molecule whose arrays state other units than those of the first one."""
        if self.first is None:
            return
        of_first = self._units_of_first(self.first)
        for name, unit in of_first.items():
            own = node.stated_unit(name, arrays[name])
            if own != unit:
                raise ValueError(
                    f"{node}: '{name}' must have the unit of '{self.first.name}', {unit or 'none'}, got "
                    f"{own or 'none'}; set `units`, or write the file again"
                )

    def _units_of_first(self, first: Node) -> dict[str, str | None]:
        if not self.stated:
            names = [label.name for label in self.shaping.labels if label is not None]
            self.stated = {name: first.stated_unit(name) for name in (self.shaping.layout.positions, *names)}
        return self.stated

    def _with_own_numbers(self, arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
        """Give each frame the atomic numbers of its system."""
        system, key = arrays.pop(_SYSTEMS), self.shaping.layout.numbers
        numbers = arrays[key]
        valid = numbers.ndim == 3 and numbers.shape[2] == 1 and system.ndim == 1 and system.dtype.kind in "iu"
        if not valid or (system.size and not 0 <= system.min() <= system.max() < len(numbers)):
            raise ValueError(
                f"{source}: '{key}' must have shape (systems, atoms, 1), with '{_SYSTEMS}' numbering the "
                f"systems from 0, got {numbers.shape} and {system.dtype} of shape {system.shape}"
            )
        return arrays | {key: atomic_numbers(numbers[..., 0], f"{source}: '{key}'")[system]}

    def check_complete(self) -> None:
        if self.lacking:
            name, key = self.lacking[0]
            raise ValueError(
                f"{self.path}: must have the same arrays in all molecules, but {len(self.lacking)} of "
                f"{self.molecules} lack some, the first of them '{name}' lacks '{key}'; choose other labels"
            )

    def _parts(self, arrays: dict[str, h5py.Dataset]) -> Iterator[dict[str, slice]]:
        """Tell the rows of each array to read at once; all of them where there are few."""
        numbers, positions = self.shaping.layout.numbers, arrays[self.shaping.layout.positions]
        of_all = {numbers: 1, "cell": 2, "pbc": 1}  # dimensions of what all frames share
        sliced = [name for name, array in arrays.items() if array.ndim != of_all.get(name)]
        if _SYSTEMS in arrays or arrays[numbers].shape[1:] == (1,):  # as modelforge writes them
            sliced = [name for name in sliced if name != numbers]
        size = int(np.prod(positions.shape)) // 3
        alike = positions.ndim == 3 and len({arrays[name].shape[:1] for name in sliced}) == 1
        if size <= _ATOMS_AT_ONCE or not alike:
            yield {}
            return
        step = max(1, _ATOMS_AT_ONCE * len(positions) // size)
        for start in range(0, len(positions), step):
            yield {name: slice(start, start + step) for name in sliced}

    def _without_gaps(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        labels = [label.name for label in self.shaping.labels if label is not None]
        per_frame = (self.shaping.layout.positions, *labels)
        counts = {array.shape[:1] for array in map(arrays.__getitem__, per_frame)}
        if len(counts) > 1 or counts == {()}:
            return arrays  # which will be refused
        rows = [np.isnan(arrays[name]).reshape(len(arrays[name]), -1) for name in labels]
        gaps = np.hstack(rows).any(axis=1)
        self.skipped += int(gaps.sum())
        return arrays | {name: arrays[name][~gaps] for name in per_frame}


def _holds_structures(names: frozenset[str]) -> bool:
    return not names.isdisjoint(NUMBERS) and not names.isdisjoint(POSITIONS)


def _recognise(node: Node, keys: Keys, units: Units | None) -> tuple[Shaping, list[str]]:
    available = node.describe()
    candidates = [
        layout
        for layout in (ANI_1X, ANI_1, SPICE, *MODELFORGE)
        if not available.keys().isdisjoint(layout.partners)
    ]
    layout = recognise(available, candidates, str(node))
    labels = layout.labels(available, keys, str(node))
    units = chosen_units(str(node.path), units, lambda: _stated_units(node, layout, labels))
    units = units or layout.units_of(labels, str(node))
    shaping = Shaping(layout, labels, units)
    return shaping, shaping.names(available, str(node))


def _stated_units(node: Node, layout: Layout, labels: Labels) -> Units | None:
    energy, length = (node.stated_unit(name) for name in (labels.energy.name, layout.positions))
    if length is None and energy is not None and layout.units is None:
        raise ValueError(
            f"{node.path}: states that '{labels.energy.name}' is in {energy}, and no unit of "
            f'\'{layout.positions}\'; set `units`, for example "kcal/mol" or "Hartree, Bohr"'
        )
    if energy is None or length is None:
        return None
    forces, stress = (None if label is None else node.stated_unit(label.name) for label in labels[1:])
    if labels.stress is not None and is_virial(labels.stress.name):
        stress = None  # an energy
    try:
        return Units.stated(energy, length, forces, stress)
    except ValueError:
        stated = ", ".join(filter(None, (energy, length, forces, stress)))
        raise ValueError(
            f"{node.path}: states the units {stated}, which are not known; set `units`, for example "
            '"kcal/mol" or "Hartree, Bohr"'
        ) from None
