"""Structures in HDF5 files with a group for each molecule: ANI-1x, ANI-1, SPICE, modelforge and others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from pyg_schnet.io.formats.arrays import (
    ANI_1,
    ANI_1X,
    MODELFORGE,
    NUMBERS,
    POSITIONS,
    SPICE,
    ArrayConverter,
    Layout,
    recognize,
)
from pyg_schnet.io.formats.frames import Frames, atomic_numbers
from pyg_schnet.io.formats.hdf5_access import Node, listing, nodes, open_file
from pyg_schnet.io.formats.labels import Keys, Labels, is_virial
from pyg_schnet.io.formats.stated_units import chosen_units
from pyg_schnet.io.units import Units

_log = logging.getLogger(__name__)
_ATOMS_AT_ONCE = 2**20
_SYSTEMS = "grouped_indices"  # in groups of modelforge: the system, of several of one size, of each frame


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels, group by group.

    The layouts of ANI-1x, ANI-1 and SPICE are recognized; others need ``units``, or attributes ``units`` (or
    modelforge's ``u``) of the arrays, which take precedence over a layout. Arrays whose names end in
    ``gradient`` are minus the forces. Structures of ANI-1x whose labels were not computed are left out and
    counted.

    Args:
        path: The file.
        keys: Names of the labels; those of the layout by default.
        units: Units of the file; by default those that it states or its layout implies.

    Raises:
        ValueError: If the file is damaged or refers to other files, or if labels or units are unknown or
            differ among groups.
    """
    with open_file(path) as file:
        reading: _Reading | None = None
        held: Frames | None = None  # the last frames carry the number of structures that were left out
        for node in nodes(path, file, _holds_structures):
            if reading is None:
                reading = _Reading(path, *_recognize(node, keys, units), None if units else node)
                reading.available = _available(node, reading.converter)
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
    """Return whether the structures of a file have a lattice."""
    with open_file(path) as file:
        first = next(nodes(path, file, _holds_structures), None)
        return first is not None and "cell" in first.members


@dataclass
class _Reading:
    """State of one pass through a file, whose first molecule determines labels and units.

    Attributes:
        path: The file.
        converter: Conversion of the arrays of a molecule.
        names: Names of the arrays to read.
        first: The first molecule, if all must state its units.
        molecules: Number of molecules so far.
        skipped: Number of structures that were left out because a label is NaN.
        lacking: Molecules that lack an array, each with the name of the array.
        stated: Units that the first molecule's arrays state.
        available: Arrays of the first molecule that could be properties.
    """

    path: Path
    converter: ArrayConverter
    names: list[str]
    first: Node | None
    molecules: int = 0
    skipped: int = 0
    lacking: list[tuple[str, str]] = field(default_factory=list)
    stated: dict[str, str | None] = field(default_factory=dict)
    available: dict[str, str] = field(default_factory=dict)

    def frames(self, node: Node) -> Iterator[Frames]:
        source = str(node)
        self.molecules += 1
        missing = next((name for name in self.names if name not in node.members), None)
        if missing is not None:
            self.lacking.append((node.name, missing))
        if self.lacking:  # molecules are only counted, for the error message
            return
        own = [name for name in self.converter.properties if name in node.members and name not in self.names]
        arrays = {name: node.open(name) for name in (*self.names, *own)}
        self._check_units(node, arrays)
        if _SYSTEMS in node.members:
            arrays[_SYSTEMS] = node.open(_SYSTEMS)
        first = 0
        for rows in self._parts(arrays):
            read = {name: node.values(name, array, rows.get(name)) for name, array in arrays.items()}
            if _SYSTEMS in read:
                read = self._with_own_numbers(read, source)
            self.converter.check_types(read, source)
            if self.converter.layout.has_gaps:
                read = self._without_gaps(read)
            if read[self.converter.layout.positions].size:
                frames = self.converter.frames(read, source).check(source, first)
                first += len(frames)
                yield replace(frames, available=self.available)

    def _check_units(self, node: Node, arrays: dict[str, h5py.Dataset]) -> None:
        """Raise if the arrays of a molecule state other units than those of the first one."""
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
            names = [label.name for label in self.converter.labels if label is not None]
            self.stated = {
                name: first.stated_unit(name) for name in (self.converter.layout.positions, *names)
            }
        return self.stated

    def _with_own_numbers(self, arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
        """Replace the atomic numbers of systems by those of each frame's system."""
        system, key = arrays.pop(_SYSTEMS), self.converter.layout.numbers
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
        """Yield the rows of each array to read at once; ``{}`` reads all rows."""
        numbers, positions = self.converter.layout.numbers, arrays[self.converter.layout.positions]
        of_all = {numbers: 1, "cell": 2, "pbc": 1}  # dimensions of arrays that all frames share
        sliced = [name for name, array in arrays.items() if array.ndim != of_all.get(name)]
        if _SYSTEMS in arrays or arrays[numbers].shape[1:] == (1,):  # modelforge's layout
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
        labels = [label.name for label in self.converter.labels if label is not None]
        properties = [name for name in self.converter.properties if name in arrays]
        per_frame = dict.fromkeys((self.converter.layout.positions, *labels, *properties))
        counts = {array.shape[:1] for array in map(arrays.__getitem__, per_frame)}
        if not labels or len(counts) > 1 or counts == {()}:
            return arrays  # of different lengths: the conversion raises an error
        rows = [np.isnan(arrays[name]).reshape(len(arrays[name]), -1) for name in labels]
        gaps = np.hstack(rows).any(axis=1)
        self.skipped += int(gaps.sum())
        return arrays | {name: arrays[name][~gaps] for name in per_frame}


def _holds_structures(names: frozenset[str]) -> bool:
    return not names.isdisjoint(NUMBERS) and not names.isdisjoint(POSITIONS)


def _recognize(node: Node, keys: Keys, units: Units | None) -> tuple[ArrayConverter, list[str]]:
    available = node.describe()
    candidates = [
        layout
        for layout in (ANI_1X, ANI_1, SPICE, *MODELFORGE)
        if not available.keys().isdisjoint(layout.partners)
    ]
    layout = recognize(available, candidates, str(node))
    labels = layout.labels(available, keys, str(node))
    units = chosen_units(str(node.path), units, lambda: _stated_units(node, layout, labels))
    units = units or layout.units_of(labels, str(node))
    converter = ArrayConverter(layout, labels, units, keys.properties)
    return converter, converter.names(available, str(node))


def _available(node: Node, converter: ArrayConverter) -> dict[str, str]:
    """Return the arrays of a molecule that could be properties."""
    arrays = {name: node.open(name) for name in node.members if not node.is_group(name)}
    shapes = {name: array.shape for name, array in arrays.items() if array.dtype.kind in "fiu"}
    *sites, _ = arrays[converter.layout.positions].shape
    frames = sites[0] if len(sites) > 1 else shapes.get("n_atoms", (1,))[0]
    return converter.available(shapes, tuple(sites), frames)


def _stated_units(node: Node, layout: Layout, labels: Labels) -> Units | None:
    length = node.stated_unit(layout.positions)
    energy = "eV" if labels.energy is None else node.stated_unit(labels.energy.name)
    if labels.energy is not None and length is None and energy is not None and layout.units is None:
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
