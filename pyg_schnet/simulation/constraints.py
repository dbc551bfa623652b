"""Constraints of dynamics: fixed atoms, and rigid bonds of hydrogen."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLengths
from ase.data import atomic_numbers

from pyg_schnet.datasets.structure_file import parse_index
from pyg_schnet.graph.fragments import COVALENT_RADII
from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.transforms.ase_atoms import from_ase

_BOND = 1.3  # times the sum of covalent radii, up to which hydrogen is bonded
_TOLERANCE = 1e-12  # of squares of bond lengths
_MAX_ITERATIONS = 50  # of Newton's method, which needs four


def fix_atoms(atoms: Atoms, selection: str) -> FixAtoms:
    """Return the constraint that fixes a selection of atoms.

    Args:
        atoms: The structure.
        selection: Indices from 0, slices and symbols of elements, with commas: ``"0,5:10,Si"``.

    Raises:
        ValueError: If a part of the selection is none of those, or selects no atom.
    """
    chosen: list[int] = []
    for part in selection.split(","):
        name = part.strip()
        if name in atomic_numbers:
            found = np.flatnonzero(atoms.symbols == name).tolist()
        else:
            try:
                index = parse_index(name)
                found = np.atleast_1d(np.arange(len(atoms))[index]).tolist()
            except (ValueError, IndexError):
                found = []
        if not found:
            raise ValueError(
                f"`fix` must select atoms by indices from 0 to {len(atoms) - 1}, slices or elements, as in "
                f"'0,5:10,Si', got {name!r}"
            )
        chosen += found
    return FixAtoms(indices=sorted(set(chosen)))


class RigidBonds(FixBondLengths):
    """Bonds of hydrogen at the lengths of a structure, for ASE's velocity Verlet, Langevin and Bussi.

    SHAKE for positions and RATTLE for momenta. The bonds of one atom with all its hydrogens form a group; the
    multipliers of each are found together by Newton's method, and groups are independent. ASE's
    ``FixBondLengths`` takes one bond after the other, in Python.

    Args:
        atoms: The structure. Each of its hydrogens is bonded to the nearest atom, if one is near enough.
            Atoms that ``FixAtoms`` fixes do not move; it must precede this constraint.

    Raises:
        ValueError: If no hydrogen is bonded.

    Source:
        Ryckaert, Ciccotti and Berendsen, J. Comput. Phys. 23, 327 (1977); Andersen, J. Comput. Phys. 52, 24
        (1983).
    """

    def __init__(self, atoms: Atoms):
        heavy, hydrogen, vectors = _hydrogen_bonds_of(atoms)
        if len(heavy) == 0:
            raise ValueError(
                f"`rigid_hydrogens` needs bonds of hydrogen, got {atoms.get_chemical_formula()} without one"
            )
        super().__init__(np.stack([heavy, hydrogen], axis=1), bondlengths=np.linalg.norm(vectors, axis=1))
        centers, group, counts = np.unique(heavy, return_inverse=True, return_counts=True)
        slot = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(group, kind="stable")
        shape = (len(centers), int(counts.max()))
        self._center, self._is_bond = centers, np.zeros(shape, bool)
        self._hydrogen = np.zeros(shape, int)
        self._shift, self._square = np.zeros((*shape, 3)), np.ones(shape)
        place = group[order], slot
        self._is_bond[place], self._hydrogen[place] = True, hydrogen[order]
        self._shift[place] = vectors[order] - (atoms.positions[hydrogen] - atoms.positions[heavy])[order]
        self._square[place] = (vectors[order] ** 2).sum(axis=1)
        self._is_free = ~_is_fixed(atoms)
        self._inverse_mass = self._is_free / atoms.get_masses()
        self._weight = self._is_bond * self._inverse_mass[self._hydrogen]  # (groups, bonds)
        self._center_weight = self._inverse_mass[centers]

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        """Move the atoms of bonds along these, so that they keep their lengths; called by ASE.

        Args:
            atoms: The structure before the step.
            new: New positions in Å, ``(atoms, 3)``, which are changed.

        Raises:
            ValueError: If no positions keep the lengths, because the step is too long.
        """
        along, bond = self._vectors(atoms.positions), self._vectors(new)
        total = np.zeros(self._is_bond.shape)
        for _ in range(_MAX_ITERATIONS):
            error = np.where(self._is_bond, (bond**2).sum(axis=2) - self._square, 0.0)
            if np.abs(error).max() <= _TOLERANCE:
                break
            step = self._solve(2 * self._products(bond, along), -error)
            total += step
            bond = bond + self._response(step, along)
        else:
            raise ValueError("rigid bonds of hydrogen cannot keep their lengths; reduce `timestep`")
        self._add(new, total, along, self._inverse_mass)

    def adjust_momenta(self, atoms: Atoms, p: np.ndarray) -> None:
        """Remove the motion along the bonds from momenta, or their forces; called by ASE.

        Args:
            atoms: The structure.
            p: Momenta or forces, ``(atoms, 3)``, which are changed.
        """
        bond = self._vectors(atoms.positions)
        velocity = p / atoms.get_masses()[:, None]
        rate = (velocity[self._hydrogen] - velocity[self._center][:, None]) * self._is_bond[:, :, None]
        step = self._solve(self._products(bond, bond), -(rate * bond).sum(axis=2))
        self._add(p, step, bond, self._is_free)

    def copy(self) -> RigidBonds:
        """Return the constraint itself, which does not change."""
        return self

    def __deepcopy__(self, memo: dict) -> RigidBonds:
        return self

    def _vectors(self, positions: np.ndarray) -> np.ndarray:
        """Compute the vectors from centers to hydrogens in Å, ``(groups, bonds, 3)``, 0 where none is."""
        vectors = positions[self._hydrogen] - positions[self._center][:, None] + self._shift
        return vectors * self._is_bond[:, :, None]

    def _products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Compute the change of ``left · bond`` by each multiplier, ``(groups, bonds, bonds)``."""
        products = np.einsum("gia,gja->gij", left, right)
        diagonal = np.einsum("gii->gi", products) * self._weight
        products *= self._center_weight[:, None, None]
        np.einsum("gii->gi", products)[...] += diagonal
        return products

    def _response(self, step: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Compute the change of the bonds by multipliers, ``(groups, bonds, 3)``."""
        pull = step[:, :, None] * along
        center = pull.sum(axis=1, keepdims=True) * self._center_weight[:, None, None]
        return (pull * self._weight[:, :, None] + center) * self._is_bond[:, :, None]

    def _solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        np.einsum("gii->gi", matrix)[...] += ~self._is_bond  # no bond, no multiplier
        return np.linalg.solve(matrix, right[:, :, None])[:, :, 0]

    def _add(self, values: np.ndarray, step: np.ndarray, along: np.ndarray, weight: np.ndarray) -> None:
        """Add pulls along the bonds to values of atoms, times their weights."""
        pull = step[:, :, None] * along
        bonded = self._hydrogen[self._is_bond]
        values[bonded] += pull[self._is_bond] * weight[bonded, None]
        values[self._center] -= pull.sum(axis=1) * weight[self._center, None]


def _is_fixed(atoms: Atoms) -> np.ndarray:
    """Return which atoms are fixed, ``(atoms,)``."""
    mask = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask


def _hydrogen_bonds_of(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a bond of each bonded hydrogen: the other atom, the hydrogen, and the vector between in Å."""
    data = from_ase(atoms)
    z, pos = data.z, data.pos
    assert pos is not None
    radii = _BOND * COVALENT_RADII[z]
    (source, target), shift = neighbor_list(
        pos, 2 * float(radii.max()), None, data.get("cell"), data.get("pbc")
    )
    offset = shift.to(pos.dtype) @ data.cell.view(3, 3).to(pos.dtype) if "cell" in data else 0.0
    vector = pos[source] + offset - pos[target]  # from the other atom, the target, to the hydrogen
    length = vector.norm(dim=1)
    fits = (length < radii[source] + radii[target]) & (z[source] == 1)
    fits &= (z[target] > 1) | (source > target)  # of H2, the second atom
    fixed = torch.from_numpy(_is_fixed(atoms))
    fits &= ~(fixed[source] & fixed[target])
    edges = fits.nonzero().flatten()
    edges = edges[torch.argsort(length[edges], stable=True)]
    _, first = np.unique(source[edges].numpy(), return_index=True)
    chosen = edges[torch.from_numpy(np.sort(first))]
    return target[chosen].numpy(), source[chosen].numpy(), vector[chosen].numpy()
