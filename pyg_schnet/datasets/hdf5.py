"""Structures in HDF5 files: a group for each molecule, as ANI-1x, ANI-1 and SPICE publish them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from pyg_schnet.datasets.arrays import Shaping
from pyg_schnet.datasets.frames import Frames
from pyg_schnet.datasets.hdf5_access import Node, listing, nodes, open_file
from pyg_schnet.datasets.labels import Keys, Labels, is_virial
from pyg_schnet.datasets.layouts import ANI_1, ANI_1X, NUMBERS, POSITIONS, SPICE, Layout, recognise
from pyg_schnet.units import Units

_log = logging.getLogger(__name__)
_ATOMS_AT_ONCE = 2**20


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels, a group after the other.

    The layouts of ANI-1x, ANI-1 and SPICE are recognised; others need ``units``, or attributes ``units`` of
    the arrays, which hold in any layout. Arrays whose names end in ``gradient`` are minus the forces.
    Structures of ANI-1x whose labels were not computed are left out and counted.

    Args:
        path: The file.
        keys: Which labels; those of the layout by default.
        units: Of the file; what it says, or its layout, by default.

    Raises:
        ValueError: If the file is damaged, if it refers to others, or if labels or units are not known.
    """
    with open_file(path) as file:
        reading: _Reading | None = None
        held: Frames | None = None  # the last one tells how many were left out
        for node in nodes(path, file, _holds_structures):
            if reading is None:
                reading = _Reading(path, *_recognise(node, keys, units))
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
    """One pass through a file: what its first molecule shows holds for all."""

    path: Path
    shaping: Shaping
    names: list[str]
    molecules: int = 0
    skipped: int = 0
    lacking: list[tuple[str, str]] = field(default_factory=list)  # molecules, and what they lack

    def frames(self, node: Node) -> Iterator[Frames]:
        source = str(node)
        self.molecules += 1
        missing = next((name for name in self.names if name not in node.members), None)
        if missing is not None:
            self.lacking.append((node.name, missing))
        if self.lacking:  # the others are only counted
            return
        arrays = {name: node.open(name) for name in self.names}
        first = 0
        for rows in self._parts(arrays):
            read = {name: node.values(name, array, rows.get(name)) for name, array in arrays.items()}
            self.shaping.check_types(read, source)
            if self.shaping.layout.has_gaps:
                read = self._without_gaps(read)
            if read[self.shaping.layout.positions].size:
                frames = self.shaping.frames(read, source).check(source, first)
                first += len(frames)
                yield frames

    def check_complete(self) -> None:
        if self.lacking:
            name, key = self.lacking[0]
            raise ValueError(
                f"{self.path}: must have the same arrays in all molecules, but {len(self.lacking)} of "
                f"{self.molecules} lack some, the first of them '{name}' lacks '{key}'; choose other labels"
            )

    def _parts(self, arrays: dict[str, h5py.Dataset]) -> Iterator[dict[str, slice]]:
        """Tell the rows of each array to read at once; all of them where there are few."""
        positions = arrays[self.shaping.layout.positions]
        of_all = {self.shaping.layout.numbers: 1, "cell": 2, "pbc": 1}  # dimensions of what all frames share
        sliced = [name for name, array in arrays.items() if array.ndim != of_all.get(name)]
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
        layout for layout in (ANI_1X, ANI_1, SPICE) if not available.keys().isdisjoint(layout.partners)
    ]
    layout = recognise(available, candidates, str(node))
    labels = layout.labels(available, keys, str(node))
    units = units or _stated_units(node, layout, labels) or layout.units_of(labels, str(node))
    shaping = Shaping(layout, labels, units)
    return shaping, shaping.names(available, str(node))


def _stated_units(node: Node, layout: Layout, labels: Labels) -> Units | None:
    energy, length = (node.stated_unit(name) for name in (labels.energy.name, layout.positions))
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
