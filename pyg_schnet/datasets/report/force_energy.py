"""Consistency of forces and energies: work of the forces against energy differences of similar structures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.report.structure_statistics import StructureStatistics
from pyg_schnet.datasets.streaming import stream

_MOST = 2000  # structures that are compared
_MOST_NUMBERS = 2**22  # distances in all of them
_FEWEST = 40
_NEAREST = 0.25  # of the pairs are used


@dataclass(frozen=True)
class ForceEnergyConsistency:
    r"""Agreement of energy differences with the work of the forces, for pairs of similar structures.

    .. math::
        E_2 - E_1 \approx -\tfrac12 (F_1 + F_2) \cdot (R_2 - R_1)

    after the one is rotated onto the other. For forces that are minus the gradient of the energy the factor
    is near 1, and below it if the structures are far apart.

    Attributes:
        correlation: Pearson correlation of energy difference and work.
        factor: Slope of the linear fit through zero.
        pairs: Number of pairs.
    """

    correlation: float
    factor: float
    pairs: int


def compare_forces_with_energies(
    dataset: MoleculeDataset, statistics: StructureStatistics
) -> ForceEnergyConsistency | None:
    """Compare energies and forces of the most frequent composition.

    Args:
        dataset: Data set; its ``transform`` is not applied.
        statistics: Statistics of its structures.

    Returns:
        Correlation and factor; ``None`` if there are no forces, fewer than 40 structures that are not
        periodic and have the same atoms, or no spread.
    """
    if statistics.forces_squares is None:
        return None
    wanted = (statistics.composition == statistics.frequencies().argmax()) & ~statistics.periodic
    numbers = wanted.nonzero().flatten()
    if len(numbers) < _FEWEST:
        return None
    atoms = int(statistics.atoms[numbers[0]])
    most = min(_MOST, _MOST_NUMBERS // max(1, atoms * (atoms - 1) // 2))
    if atoms < 2 or most < _FEWEST:
        return None
    parts = [
        (batch.z, batch.pos, batch.energy, batch.forces)
        for _, batch in stream(dataset, ("pos", "energy", "forces"), numbers[:most])
    ]
    z, pos, energy, forces = (torch.cat(column) for column in zip(*parts, strict=True))
    z, pos, forces = z.view(-1, atoms), pos.view(-1, atoms, 3).double(), forces.view(-1, atoms, 3).double()
    alike = (z == z[0]).all(1)  # the same order of the atoms
    if int(alike.sum()) < _FEWEST:
        return None
    return _compare(pos[alike], energy[alike].double(), forces[alike])


def _compare(pos: Tensor, energy: Tensor, forces: Tensor) -> ForceEnergyConsistency | None:
    pos = pos - pos.mean(1, keepdim=True)
    first, second = _near_pairs(pos)
    turn = _rotation(pos[second], pos[first])
    moved = pos[second] @ turn - pos[first]
    work = -0.5 * ((forces[first] + forces[second] @ turn) * moved).sum((1, 2))
    difference = energy[second] - energy[first]
    if min(float(work.std()), float(difference.std())) < 1e-12:
        return None
    correlation = torch.corrcoef(torch.stack([difference, work]))[0, 1]
    factor = (difference * work).sum() / work.square().sum()
    return ForceEnergyConsistency(float(correlation), float(factor), len(first))


def _near_pairs(pos: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each structure with the one of most similar interatomic distances; return the closest pairs."""
    row, column = torch.triu_indices(pos.size(1), pos.size(1), offset=1)
    shape = (pos[:, row] - pos[:, column]).norm(dim=2)  # (structures, pairs of atoms)
    between = torch.cdist(shape, shape)
    between.fill_diagonal_(float("inf"))
    between[between < 1e-6] = float("inf")  # duplicates
    distance, nearest = between.min(1)
    best = distance.argsort()[: max(_FEWEST // 2, int(_NEAREST * len(pos)))]
    best = best[distance[best].isfinite()]
    return best, nearest[best]


def _rotation(pos: Tensor, onto: Tensor) -> Tensor:
    """Return rotations of centered points onto others (Kabsch 1976), ``(structures, 3, 3)``.

    They include reflections, under which energies are invariant and forces covariant.
    """
    u, _, vh = torch.linalg.svd(pos.transpose(1, 2) @ onto)
    return u @ vh
