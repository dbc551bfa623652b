"""View of a structure: rotated such that few atoms are hidden, with bonds and the edges of the cell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell

_STRETCH = 1.25  # of the sum of covalent radii; longer distances are no bonds
_SIZE = 0.62  # of the covalent radius: drawn radius of atoms
_SMALLEST = 0.3  # Å; leaves space for the label of hydrogen
_MARGIN = 0.3  # Å
_ASIDE = (-8.0, 12.0)  # degrees about x and y, which separate columns of atoms in crystals
_TILTS = (
    0.0,
    8.0,
    -8.0,
    16.0,
    -16.0,
    24.0,
    -24.0,
)  # degrees; the tilt that hides least is used for molecules
_MANY = 200  # atoms; in larger molecules some are always hidden


@dataclass(frozen=True)
class View:
    """Projected structure. Axes point right, up and towards the reader, in Å from the center of the atoms.

    Attributes:
        positions: Positions, ``(atoms, 3)``.
        radii: Drawn radii in Å, ``(atoms,)``.
        bonds: Pairs of bonded atoms, ``(bonds, 2)``; none across the boundaries of a cell.
        cell: Ends of the edges of the cell, ``(12, 2, 3)``; ``(0, 2, 3)`` for a molecule.
    """

    positions: np.ndarray
    radii: np.ndarray
    bonds: np.ndarray
    cell: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms) -> View:
        """Choose the view of a structure.

        Molecules are viewed along their shortest principal axis or, if that hides fewer atoms, up to 24° from
        it; crystals slightly off their third lattice vector. The view is a proper rotation, so that mirror
        images differ.
        """
        middle = atoms.positions.mean(axis=0)
        radii = np.maximum(_SIZE * covalent_radii[atoms.numbers], _SMALLEST)
        centered = atoms.positions - middle
        if atoms.pbc.any():
            turn = _crystal_axes(complete_cell(atoms.cell.array)) @ _tilt(*_ASIDE)
            edges = (_edges(atoms.cell.array) - middle) @ turn
        else:
            turn = _molecule_axes(centered, radii)
            edges = np.empty((0, 2, 3))
        return cls(centered @ turn, radii, _bonds(atoms), edges)

    def box(self) -> np.ndarray:
        """Return the bounding box: smallest and largest values of right and up, in Å, ``(2, 2)``."""
        size = (self.radii + _MARGIN)[:, None]
        points = np.concatenate([self.positions - size, self.positions + size, self.cell.reshape(-1, 3)])
        return np.stack([points.min(axis=0), points.max(axis=0)])[:, :2]


def _bonds(atoms: Atoms) -> np.ndarray:
    radius = covalent_radii[atoms.numbers]
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=-1)
    return np.argwhere(np.triu(distance < _STRETCH * (radius[:, None] + radius), k=1))


def _edges(cell: np.ndarray) -> np.ndarray:
    corners = np.array([np.array(place) @ cell for place in product((0, 1), repeat=3)]).reshape(2, 2, 2, 3)
    ends = [np.moveaxis(corners, direction, 0).reshape(2, 4, 3) for direction in range(3)]
    return np.concatenate(ends, axis=1).swapaxes(0, 1)


def _crystal_axes(cell: np.ndarray) -> np.ndarray:
    """Return axes in columns: the third lattice vector towards the reader, the first to the right."""
    front = cell[2] / np.linalg.norm(cell[2])
    right = cell[0] - (cell[0] @ front) * front
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(front, right), front], axis=1)


def _molecule_axes(centered: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return principal axes in columns, the longest first, tilted such that few atoms are hidden."""
    axes = np.linalg.svd(centered)[2].T
    for column in (0, 1):  # the farthest atom is on the right, and at the top
        along = centered @ axes[:, column]
        if along[np.abs(along).argmax()] < 0:
            axes[:, column] *= -1
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    if len(centered) > _MANY:
        return axes
    turns = [axes @ _tilt(about_x, about_y) for about_x, about_y in product(_TILTS, _TILTS)]
    return min(turns, key=lambda turn: _overlap(centered @ turn, radii))  # of equal ones, the first


def _tilt(about_x: float, about_y: float) -> np.ndarray:
    """Return a rotation about the x and the y axis, by angles in degrees."""
    (sx, sy), (cx, cy) = np.sin(np.radians((about_x, about_y))), np.cos(np.radians((about_x, about_y)))
    return np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


def _overlap(positions: np.ndarray, radii: np.ndarray) -> float:
    """Return a measure of the overlap of drawn atoms."""
    distance = np.linalg.norm(positions[:, None, :2] - positions[:, :2], axis=-1)
    covered = np.triu((radii[:, None] + radii - distance).clip(min=0), k=1)
    return round(float((covered**2).sum()), 9)
