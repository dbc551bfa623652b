"""Limits of a simulation: how far it may leave what its potential was trained on."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_atomic_numbers
from pyg_schnet.potentials.training_domain import SKIN, NearPairs, TrainingDomain
from pyg_schnet.simulation.integrators import check_positive
from pyg_schnet.simulation.structures import stored_results
from pyg_schnet.transforms.ase_atoms import from_ase

MAX_DISPLACEMENT = 1.0  # Å in a step; a hydrogen atom at 300 K moves 0.014 Å in 0.5 fs
_FORCES = 3.0  # of the largest in training: halves of one ensemble differ by 1.3, explosions by thousands
_FEW = 100  # atoms of a molecule up to which all distances take less than a search: 8 µs for 9


class Limits:
    """Distances and forces that stop a simulation.

    Looking at all distances takes some ms where there are many atoms, so it is told how much they may
    approach each other, and they are looked at again when atoms have moved by half of it.

    Args:
        atoms: With the calculator, which knows what its potential was trained on, or does not.
        closest: The part of the shortest distance of two elements in training that is allowed; ``None``
            allows any distance.
        max_force: The longest force allowed on an atom, in eV/Å; ``"auto"`` is 3 times the longest in
            training, ``None`` allows any.

    Attributes:
        looks: How often all distances were looked at.

    Raises:
        ValueError: If an argument is out of range, or an element has no place in SchNet.
    """

    def __init__(self, atoms: Atoms, closest: float | None, max_force: float | str | None):
        domain = training_domain_of(atoms.calc)
        self._max_force, self._why = _check_limits(domain, closest, max_force)
        self._domain, self._closest = (None, None) if closest is None else (domain, closest)
        self._dense = None
        if self._domain is not None:
            check_atomic_numbers(torch.from_numpy(atoms.numbers))
            table = self._domain.limits(closest or 0.0).numpy()
            own = np.unique(atoms.numbers)
            self._reach = float(table[np.ix_(own, own)].max()) + SKIN
            if len(atoms) <= _FEW and not atoms.pbc.any():
                self._dense = table[np.ix_(atoms.numbers, atoms.numbers)] - np.diag([math.inf] * len(atoms))
        self._room = 0.0
        self._positions, self._cell = np.full_like(atoms.positions, math.nan), atoms.cell.array.copy()
        self.looks = 0

    def breach(self, frame: Atoms) -> str | None:
        """Say what is beyond the limits, if anything is."""
        if self._max_force is not None:
            square = (stored_results(frame)["forces"] ** 2).sum(axis=1)
            atom = int(square.argmax())
            if not square[atom] <= self._max_force**2:
                return _too_strong(atom, math.sqrt(square[atom]), self._max_force, self._why)
        if self._domain is None or self._closest is None or self._is_near_the_last_look(frame):
            return None
        self.looks += 1
        self._positions, self._cell = frame.positions.copy(), frame.cell.array.copy()
        self._room = self._look(frame, self._domain, self._closest)
        if self._room >= 0:
            return None
        try:
            self._domain.check(from_ase(frame), self._closest)
        except ValueError as error:
            return str(error)
        return None  # by rounding, neither is right

    def _look(self, frame: Atoms, domain: TrainingDomain, closest: float) -> float:
        if self._dense is None:
            return domain.room(from_ase(frame), closest)
        vector = frame.positions[:, None] - frame.positions  # (atoms, atoms, 3)
        distance = np.sqrt(np.einsum("ijk,ijk->ij", vector, vector))
        return float((distance - self._dense).min())

    def _is_near_the_last_look(self, frame: Atoms) -> bool:
        moved, strain = frame.positions - self._positions, 0.0
        if frame.cell.array.tobytes() != self._cell.tobytes():
            if not frame.pbc.all():
                return False  # open directions may have no lattice vector to tell a strain by
            deformation = np.linalg.solve(self._cell, frame.cell.array)
            moved = frame.positions - self._positions @ deformation
            strain = float(np.linalg.norm(deformation - np.eye(3), ord=2))
        farthest = math.sqrt(float((moved**2).sum(axis=1).max()))
        return 2 * farthest + strain * self._reach < self._room  # false for NaN, as at first


class BatchedLimits:
    """Limits of structures side by side, whose cells stay.

    Pairs of atoms near their limits are listed, and their distances looked at in each step; they are listed
    anew when an atom has moved by half of what the list has to spare.

    Args:
        domain: What their potential was trained on, if it is known.
        closest: See :class:`Limits`.
        max_force: See :class:`Limits`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, domain: TrainingDomain | None, closest: float | None, max_force: float | str | None):
        self._max_force, self._why = _check_limits(domain, closest, max_force)
        self._domain, self._closest = (None, None) if closest is None else (domain, closest)
        self._near: NearPairs | None = None
        self._pos = torch.empty(0, 3)

    def breaches(self, data: Data, forces: Tensor) -> dict[int, str]:
        """Say what is beyond the limits, by the number of the structure.

        Args:
            data: The batch, the same in each call but for positions.
            forces: In eV/Å, ``(atoms, 3)``.
        """
        found = {}
        if self._domain is not None and self._closest is not None:
            pos = cast(Tensor, data.pos)
            if self._near is None or not bool((pos - self._pos).square().sum(1).amax() < (SKIN / 2) ** 2):
                self._near, self._pos = self._domain.near(data, self._closest), pos.clone()
            found = self._near.breaches(data)
        if self._max_force is not None:
            square, batch = forces.square().sum(dim=1), cast(Tensor, data.batch)
            for atom in (~(square <= self._max_force**2)).nonzero().flatten().tolist():
                number = int(batch[atom])
                own = atom - int((batch < number).sum())
                text = _too_strong(own, math.sqrt(float(square[atom])), self._max_force, self._why)
                found.setdefault(number, text)
        return found


def _check_limits(
    domain: TrainingDomain | None, closest: float | None, max_force: float | str | None
) -> tuple[float | None, str]:
    """Give the largest force in eV/Å, and where it comes from."""
    if closest is not None:
        check_positive("closest", closest, "parts of the distance in training")
    if max_force is None:
        return None, ""
    if isinstance(max_force, str):
        if max_force != "auto":
            raise ValueError(f"`max_force` must be 'auto', None (null) or a force in eV/Å, got {max_force!r}")
        known = None if domain is None else domain.largest_force
        return (
            (None, "") if known is None else (_FORCES * known, f", {_FORCES:g} times the longest in training")
        )
    check_positive("max_force", max_force, "eV/Å")
    return max_force, ""


def _too_strong(atom: int, force: float, largest: float, why: str) -> str:
    return f"the force on atom {atom} is {force:.3g} eV/Å, more than {largest:.3g}{why}"


def training_domain_of(calculator: BaseCalculator | None) -> TrainingDomain | None:
    """Give what the potential of a calculator was trained on, if it is known."""
    return getattr(getattr(calculator, "potential", None), "domain", None)


def check_frame(frame: Atoms, previous: Atoms | None = None) -> None:
    """Refuse what no potential may say, and what no step may do.

    Raises:
        ValueError: If energy or forces are not finite, or an atom moved 1 Å.
    """
    energy = stored_results(frame)["energy"]
    if not math.isfinite(energy):
        raise ValueError(f"`atoms.calc` returned the energy {energy}")
    forces = stored_results(frame)["forces"]
    finite = np.isfinite(forces).all(axis=1)
    if not finite.all():
        atom = int(np.argmin(finite))
        raise ValueError(f"`atoms.calc` returned the force {forces[atom].tolist()} on atom {atom}")
    if previous is None:
        return
    moved = np.linalg.norm(frame.positions - previous.positions, axis=1)
    if not (moved < MAX_DISPLACEMENT).all():
        atom = int(np.argmax(moved))  # the first nan, if there is one
        raise ValueError(f"atom {atom} moved {moved[atom]:.3g} Å in one step")
