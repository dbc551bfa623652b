"""Limits that stop a simulation: distances, forces, displacements and disagreement of potentials."""

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
from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.training_domain import SKIN, NearPairs, TrainingDomain
from pyg_schnet.simulation.integrators import check_positive
from pyg_schnet.simulation.structures import stored_results
from pyg_schnet.transforms.ase_atoms import from_ase

MAX_DISPLACEMENT = 1.0  # Å in a step; a hydrogen atom at 300 K moves 0.014 Å in 0.5 fs
# Times the largest force in training: halves of one data set differ by 1.3, explosions by thousands.
_FORCE_RATIO = 3.0
_SKIN_ON_ACCELERATOR = 1.0  # Å; each search of a list costs the repetition of several steps there
_MAX_DENSE = 100  # atoms of a molecule up to which all distances take less than a search: 8 µs for 9


class Limits:
    """Distances, forces and uncertainties that stop the simulation of one structure.

    Computing all distances takes some ms if there are many atoms. Therefore they are computed again only when
    an atom has moved by half of the clearance that the closest pair of atoms had.

    Args:
        atoms: The initial structure with its calculator, whose potential may have a training domain.
        closest: Fraction of the shortest distance of two elements in training that is allowed; ``None`` for
            no limit.
        max_force: Longest force allowed on an atom in eV/Å; ``"auto"`` is 3 times the longest in training,
            ``None`` for no limit.
        max_deviation: Largest deviation of the potentials of an ensemble on an atom's force in eV/Å; ``None``
            for no limit.

    Attributes:
        distance_checks: Number of times that all distances were computed.

    Raises:
        ValueError: If an argument is out of range, an element has no embedding in SchNet, or there is no
            ensemble whose potentials could deviate.
    """

    def __init__(
        self,
        atoms: Atoms,
        closest: float | None,
        max_force: float | str | None,
        max_deviation: float | None = None,
    ):
        domain = training_domain_of(atoms.calc)
        self._max_force, self._origin = _force_limit(domain, closest, max_force)
        self._max_deviation = max_deviation
        if max_deviation is not None:
            _check_deviation(max_deviation, atoms)
        self._domain, self._closest = (None, None) if closest is None else (domain, closest)
        self._min_distance: np.ndarray | None = None  # of all pairs of a small molecule
        if self._domain is not None:
            check_atomic_numbers(torch.from_numpy(atoms.numbers))
            table = self._domain.min_distances(closest or 0.0).numpy()
            elements = np.unique(atoms.numbers)
            self._reach = float(table[np.ix_(elements, elements)].max()) + SKIN
            if len(atoms) <= _MAX_DENSE and not atoms.pbc.any():
                pairs = table[np.ix_(atoms.numbers, atoms.numbers)]
                self._min_distance = pairs - np.diag([math.inf] * len(atoms))
        self._clearance = 0.0
        self._positions, self._cell = np.full_like(atoms.positions, math.nan), atoms.cell.array.copy()
        self.distance_checks = 0

    def violation(self, frame: Atoms) -> str | None:
        """Return which force or distance of a frame is beyond the limits, if one is."""
        if self._max_force is not None:
            square = (stored_results(frame)["forces"] ** 2).sum(axis=1)
            atom = int(square.argmax())
            if not square[atom] <= self._max_force**2:
                return _force_message(atom, math.sqrt(square[atom]), self._max_force, self._origin)
        if self._domain is None or self._closest is None or self._is_within_clearance(frame):
            return None
        self.distance_checks += 1
        self._positions, self._cell = frame.positions.copy(), frame.cell.array.copy()
        self._clearance = self._compute_clearance(frame, self._domain, self._closest)
        if self._clearance >= 0:
            return None
        return self._domain.violations(from_ase(frame), self._closest).get(0)  # none by rounding

    def uncertainty(self, system: Atoms, step: int) -> str | None:
        """Return on which force the potentials deviate beyond the limit, if they do.

        Args:
            system: The structure whose calculator was just evaluated.
            step: Number of the step, for the message.
        """
        if self._max_deviation is None:
            return None
        deviation = system.calc.results["forces_deviation"]  # pyright: ignore[reportOptionalMemberAccess]
        atom = int(deviation.argmax())
        if deviation[atom] <= self._max_deviation:
            return None
        return (
            f"the potentials disagree on the force on atom {atom} by {deviation[atom]:.3g} eV/Å at step "
            f"{step}, more than {self._max_deviation:g}"
        )

    def _compute_clearance(self, frame: Atoms, domain: TrainingDomain, closest: float) -> float:
        """Compute how much every two atoms may approach each other, in Å; negative if two are too close."""
        if self._min_distance is None:
            return domain.clearance(from_ase(frame), closest)
        vector = frame.positions[:, None] - frame.positions  # (atoms, atoms, 3)
        distance = np.sqrt(np.einsum("ijk,ijk->ij", vector, vector))
        return float((distance - self._min_distance).min())

    def _is_within_clearance(self, frame: Atoms) -> bool:
        """Return whether no pair of atoms can have used up the clearance since it was computed."""
        displacement, strain = frame.positions - self._positions, 0.0
        if frame.cell.array.tobytes() != self._cell.tobytes():
            if not frame.pbc.all():
                return False  # open directions may lack the lattice vector from which a strain follows
            deformation = np.linalg.solve(self._cell, frame.cell.array)
            displacement = frame.positions - self._positions @ deformation
            strain = float(np.linalg.norm(deformation - np.eye(3), ord=2))
        largest = math.sqrt(float((displacement**2).sum(axis=1).max()))
        return 2 * largest + strain * self._reach < self._clearance  # false for NaN, as at first


class BatchedLimits:
    """Distances and forces that stop single structures of a batch, whose cells are constant.

    Pairs of atoms near their limits are listed, and their distances computed in each step. They are listed
    again when an atom has moved by half of the list's skin. On accelerators, nothing is read in most steps:
    :meth:`are_kept` computes whether :meth:`violations` must be called.

    Args:
        domain: Training domain of the potential, if it is known.
        closest: See :class:`Limits`.
        max_force: See :class:`Limits`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, domain: TrainingDomain | None, closest: float | None, max_force: float | str | None):
        self._max_force, self._origin = _force_limit(domain, closest, max_force)
        self._domain, self._closest = (None, None) if closest is None else (domain, closest)
        self._near: NearPairs | None = None
        self._pos, self._skin = torch.empty(0, 3), SKIN
        self._bounds: tuple[list[float], Tensor] = [], torch.empty(0)  # as numbers, and on the device

    def violations(self, data: Data, forces: Tensor) -> dict[int, str]:
        """Return which force or distance is beyond the limits, by the index of the structure.

        Args:
            data: The batch, the same in each call except for positions.
            forces: Forces in eV/Å, ``(atoms, 3)``.
        """
        found = {}
        if self._domain is not None and self._closest is not None:
            pos = cast(Tensor, data.pos)
            moved = (pos - self._pos).square().sum(1) if self._near is not None else None
            if moved is None or not bool(moved.amax() < (self._skin / 2) ** 2):
                self._skin = _SKIN_ON_ACCELERATOR if on_accelerator(pos) else SKIN
                self._near = self._domain.pairs_near_limits(data, self._closest, self._skin)
                self._pos = pos.clone()
            assert self._near is not None
            found = self._near.violations(data)
        if self._max_force is not None:
            square, batch = forces.square().sum(dim=1), cast(Tensor, data.batch)
            for atom in (~(square <= self._max_force**2)).nonzero().flatten().tolist():
                index = int(batch[atom])
                own = atom - int((batch < index).sum())
                text = _force_message(own, math.sqrt(float(square[atom])), self._max_force, self._origin)
                found.setdefault(index, text)
        return found

    def discard_list(self) -> None:
        """Discard the list of pairs near their limits, so that it is made again with that of neighbors."""
        self._near = None

    def are_kept(
        self, pos: Tensor, forces: Tensor, displacement: Tensor, moved: Tensor, margin: float
    ) -> list[Tensor]:
        """Compute whether a step is surely within all limits and the lists are complete, without reading it.

        Args:
            pos: Positions in Å, ``(atoms, 3)``.
            forces: Forces in eV/Å, ``(atoms, 3)``.
            displacement: Displacement in this step in Å, ``(atoms, 3)``.
            moved: Displacement since neighbors were searched in Å, ``(atoms, 3)``.
            margin: Twice the displacement in Å by which an atom may miss a neighbor.

        Returns:
            Flags, ``()`` each, that are all true if so. NaN is beyond all limits.
        """
        vectors = [forces, displacement, moved]
        lengths = [math.inf if self._max_force is None else self._max_force, MAX_DISPLACEMENT, margin / 2]
        if self._near is not None:
            vectors.append(pos - self._pos)
            lengths.append(self._skin / 2)
        if self._bounds[0] != lengths:
            self._bounds = (
                lengths,
                torch.tensor(lengths, dtype=pos.dtype, device=pos.device)[:, None].square(),
            )
        flags = [(torch.stack(vectors).square().sum(dim=-1) < self._bounds[1]).all()]
        return flags if self._near is None else [*flags, self._near.are_apart(pos)]


def check_frame(frame: Atoms, previous: Atoms | None = None) -> None:
    """Raise if the results of a frame are not finite, or an atom moved too far since the previous one.

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
        atom = int(np.argmax(moved))  # the first NaN, if there is one
        raise ValueError(f"atom {atom} moved {moved[atom]:.3g} Å in one step")


def training_domain_of(calculator: BaseCalculator | None) -> TrainingDomain | None:
    """Return the training domain of a calculator's potential, if it is known."""
    return getattr(getattr(calculator, "potential", None), "domain", None)


def outside_of_domain(frame: Atoms, domain: TrainingDomain | None) -> str | None:
    """Return how a structure is outside of a training domain: by short distances, or by its fragments.

    Args:
        frame: The structure.
        domain: Training domain of the potential, if it is known.
    """
    if domain is None:
        return None
    data = from_ase(frame)
    return domain.violations(data).get(0) or domain.fragmentation(data)


def _force_limit(
    domain: TrainingDomain | None, closest: float | None, max_force: float | str | None
) -> tuple[float | None, str]:
    """Check the limits; return the largest force in eV/Å, and its origin for messages."""
    if closest is not None:
        check_positive("closest", closest, "parts of the distance in training")
    if max_force is None:
        return None, ""
    if isinstance(max_force, str):
        if max_force != "auto":
            raise ValueError(f"`max_force` must be 'auto', None (null) or a force in eV/Å, got {max_force!r}")
        if domain is None or domain.largest_force is None:
            return None, ""
        return _FORCE_RATIO * domain.largest_force, f", {_FORCE_RATIO:g} times the longest in training"
    check_positive("max_force", max_force, "eV/Å")
    return max_force, ""


def _force_message(atom: int, force: float, limit: float, origin: str) -> str:
    return f"the force on atom {atom} is {force:.3g} eV/Å, more than {limit:.3g}{origin}"


def _check_deviation(limit: float, atoms: Atoms) -> None:
    check_positive("stop_if_uncertain", limit, "eV/Å")
    if not isinstance(getattr(atoms.calc, "potential", None), Ensemble):
        raise ValueError(
            "`stop_if_uncertain` needs a calculator of several potentials, which may disagree; use "
            "SchNetCalculator([path, other_path, …]), or several models, joined by commas, in the command"
        )
