"""Structures with labels, as every format module returns them: checked flat arrays in eV and Å."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from ase.data import atomic_numbers as number_of

from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.units import Units

PER_ATOM = ("numbers", "positions", "forces")
PER_FRAME = ("counts", "energy", "stress", "cell", "pbc")


@dataclass(frozen=True)
class Frames:
    """Structures of any size in concatenated arrays, in eV and Å.

    Attributes:
        numbers: Atomic numbers, shape ``(atoms,)``; uint8 after :meth:`check`.
        positions: Shape ``(atoms, 3)``, in Å, float64.
        counts: Number of atoms of each structure, shape ``(frames,)``, int64.
        energy: Shape ``(frames,)``, in eV, float64, or ``None`` if no energies are read.
        forces: Shape ``(atoms, 3)``, in eV/Å, float64, or ``None``.
        stress: Shape ``(frames, 3, 3)``, in eV/Å³, float64, positive under tension (ASE's sign), or ``None``.
        cell: Lattice vectors as rows, shape ``(frames, 3, 3)``, in Å, float64, or ``None``.
        pbc: Periodic directions, shape ``(frames, 3)``, or ``None``.
        units: Units of the source file.
        labels: Source of each label, for instance ``{"energy": "'E' (kcal/mol)"}``.
        skipped: Number of structures that the reader left out because a label is missing.
        charged: Number of structures with a total charge, which is ignored.
        properties: Further labels by name, in the unit of the file, float64, NaN where a structure has none:
            shape ``(frames,)``, or ``(atoms,)`` if there is a value for each atom.
        available: Further values that could be properties, by name: ``"structure"`` or ``"atom"``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    counts: np.ndarray
    energy: np.ndarray | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    cell: np.ndarray | None = None
    pbc: np.ndarray | None = None
    units: Units = field(default=Units("eV"))
    labels: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    charged: int = 0
    properties: dict[str, np.ndarray] = field(default_factory=dict)
    available: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.counts)

    def check(self, source: str, first: int = 0) -> Frames:
        """Check that the frames are physically meaningful.

        Args:
            source: Name of the file, for error messages.
            first: Number of the first frame in the file, for error messages.

        Returns:
            The same frames, with atomic numbers as uint8.

        Raises:
            ValueError: If there is no frame, a value is not finite, an atomic number is invalid, two atoms
                coincide, or a periodic direction has no lattice vector; the message names the frame.
        """
        if len(self) == 0:
            raise ValueError(f"{source}: must hold at least one structure, got none")
        if (self.counts < 1).any():
            _raise_for_frame(
                source, "hold at least one atom, got none", first + int(np.argmax(self.counts < 1))
            )
        wrong = ~_are_atomic_numbers(self.numbers)
        if wrong.any():
            atom = int(np.argmax(wrong))
            what = f"hold atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {self.numbers[atom]}"
            _raise_for_frame(source, what, first + self._frame_of(atom))
        self._check_finite(source, first)
        if self.pbc is not None and self.cell is not None:
            _check_lattice(self.cell, self.pbc, source, first)
        self._check_distances(source, first)
        return replace(self, numbers=self.numbers.astype(np.uint8, copy=False))

    def loaded(self) -> Frames:
        """Copy memory-mapped arrays into memory, so that the file may be replaced."""
        mapped = {
            name: np.array(value)
            for name in ("positions", "energy", "forces", "stress", "cell")
            if isinstance(value := getattr(self, name), np.memmap)
        }
        return replace(self, **mapped)

    def part(self, start: int, stop: int) -> Frames:
        """Return some of the frames as views.

        Args:
            start: Number of the first frame.
            stop: Number after the last one.
        """
        before = int(self.counts[:start].sum())
        atoms = slice(before, before + int(self.counts[start:stop].sum()))
        own = {name: atoms for name in PER_ATOM} | {name: slice(start, stop) for name in PER_FRAME}
        values = {name: getattr(self, name) for name in own}
        properties = {
            name: x[slice(start, stop) if len(x) == len(self) else atoms]
            for name, x in self.properties.items()
        }
        changed = {name: x[own[name]] for name, x in values.items() if x is not None}
        return replace(self, **changed, properties=properties)

    def with_lattice(self) -> Frames:
        """Return frames with a cell and ``pbc``: zero and ``False`` where the source has none."""
        if self.cell is not None:
            return self
        cell, pbc = np.zeros((len(self), 3, 3)), np.zeros((len(self), 3), dtype=bool)
        return replace(self, cell=cell, pbc=pbc)

    def _check_finite(self, source: str, first: int) -> None:
        for name in ("positions", "energy", "forces", "stress", "cell"):
            value = getattr(self, name)
            if value is None or _is_sum_finite(value):
                continue
            finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if not finite.all():
                row = int(np.argmin(finite))
                frame = self._frame_of(row) if name in PER_ATOM else row
                key = f" ({self.labels[name]})" if name in self.labels else ""
                _raise_for_frame(source, f"have finite {name}{key}, got NaN or infinity", first + frame)
        for name, value in self.properties.items():
            infinite = np.isinf(value)
            if infinite.any():
                row = int(np.argmax(infinite))
                frame = row if len(value) == len(self) else self._frame_of(row)
                _raise_for_frame(source, f"have a finite '{name}' or NaN, got infinity", first + frame)

    def _check_distances(self, source: str, first: int) -> None:
        suspects = np.concatenate([frames[_has_equal_x(positions)] for frames, positions in self._by_size()])
        if len(suspects) == 0:
            return
        starts = np.cumsum(self.counts) - self.counts
        for frame in np.sort(suspects):
            atoms = self.positions[starts[frame] : starts[frame] + self.counts[frame]]
            order = np.lexsort(atoms.T)
            same = (np.diff(atoms[order], axis=0) == 0).all(axis=1)
            if same.any():
                pair = np.sort(order[np.argmax(same) :][:2])
                what = f"not place two atoms at one point, got atoms {pair[0]} and {pair[1]} there"
                _raise_for_frame(source, what, first + int(frame))

    def _by_size(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each number of atoms the frame numbers and the positions ``(frames, atoms, 3)``."""
        if (self.counts == self.counts[0]).all():
            yield np.arange(len(self)), self.positions.reshape(len(self), -1, 3)
            return
        starts = np.cumsum(self.counts) - self.counts
        for size in np.unique(self.counts):
            frames = np.flatnonzero(self.counts == size)
            yield frames, self.positions[starts[frames][:, None] + np.arange(size)]

    def _frame_of(self, atom: int) -> int:
        return int(np.searchsorted(np.cumsum(self.counts), atom, side="right"))


def concatenate(parts: Sequence[Frames]) -> Frames:
    """Concatenate frames; all have a lattice if some have one.

    Args:
        parts: Frames with the same fields; the result has the units of the first.
    """
    if len(parts) == 1:
        return parts[0]
    if any(part.cell is not None for part in parts):
        parts = [part.with_lattice() for part in parts]
    names = [name for name in (*PER_ATOM, *PER_FRAME) if getattr(parts[0], name) is not None]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    labels = merge_labels([part.labels for part in parts])
    counts = {name: sum(getattr(part, name) for part in parts) for name in ("skipped", "charged")}
    properties = {
        name: np.concatenate([part.properties[name] for part in parts]) for name in parts[0].properties
    }
    available = {name: kind for part in parts for name, kind in part.available.items()}
    return replace(parts[0], **arrays, labels=labels, **counts, properties=properties, available=available)


def merge_labels(parts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Combine the sources of labels of several files, as ``"'E' (eV) or 'U0' (eV)"`` where they differ."""
    merged: dict[str, str] = {}
    for labels in parts:
        for kind, text in labels.items():
            before = merged.setdefault(kind, text)
            merged[kind] = before if text in before else f"{before} or {text}"
    return merged


def atomic_numbers(values: np.ndarray, source: str) -> np.ndarray:
    """Convert atomic numbers of any numeric type, or element symbols, to uint8.

    Args:
        values: Numbers with integer values, or strings such as ``"C"`` or ``b"C"``.
        source: Name of the array, for error messages.

    Raises:
        ValueError: If a value is not an atomic number from 1 to 99.
    """
    if values.dtype.kind in "SUO":
        symbols = [text.decode() if isinstance(text, bytes) else str(text) for text in values.flat]
        wrong = next((symbol for symbol in symbols if symbol not in number_of), None)
        if wrong is not None:
            raise ValueError(f"{source} must hold symbols of elements, got {wrong!r}")
        values = np.array([number_of[symbol] for symbol in symbols]).reshape(values.shape)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{source} must hold atomic numbers, got {values.dtype}")
    valid = _are_atomic_numbers(values)
    if values.size == 0 or not valid.all():
        got = values[~valid][0] if values.size else "none"
        raise ValueError(f"{source} must hold atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {got}")
    return values.astype(np.uint8, copy=False)


def scaled(values: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by a unit factor in float64; in place if the array is float64 in memory already."""
    if factor == 1.0:
        return values.astype(np.float64, copy=False)
    if isinstance(values, np.memmap):  # an in-place product would copy it page by page
        return np.multiply(np.asarray(values), factor, dtype=np.float64)
    values = values.astype(np.float64, copy=False)
    values *= factor
    return values


def _are_atomic_numbers(values: np.ndarray) -> np.ndarray:
    valid = (values >= 1) & (values <= MAX_ATOMIC_NUMBER)
    return valid & (values == np.trunc(values)) if values.dtype.kind == "f" else valid


def _is_sum_finite(values: np.ndarray) -> bool:
    """Return ``True`` only if all values are finite, without temporary arrays.

    The sum of finite values may overflow, so ``False`` is inconclusive.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()))


def _has_equal_x(positions: np.ndarray) -> np.ndarray:
    """Return for each frame of ``(frames, atoms, 3)`` whether two atoms have the same x, a rare case."""
    x = np.sort(positions[:, :, 0], axis=1)
    return (x[:, 1:] == x[:, :-1]).any(axis=1)


def _check_lattice(cell: np.ndarray, pbc: np.ndarray, source: str, first: int) -> None:
    spanned = np.where(pbc[:, :, None], cell, 0.0)
    flat = np.linalg.matrix_rank(spanned) < pbc.sum(axis=1)
    if flat.any():
        frame = int(np.argmax(flat))
        what = f"have a lattice vector for each periodic direction, got {cell[frame].tolist()}"
        _raise_for_frame(source, what, first + frame)


def _raise_for_frame(source: str, what: str, frame: int) -> NoReturn:
    raise ValueError(f"{source}: must {what} in frame {frame}; remove the frame")
