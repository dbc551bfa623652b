"""Do energies and forces belong together? Between near structures the forces' work is the energy lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.report.structure_statistics import Survey
from pyg_schnet.datasets.streaming import stream

_MOST = 2000  # structures that are compared with each other
_MOST_NUMBERS = 2**22  # distances in all of them
_FEWEST = 40
_NEAREST = 0.25  # of the pairs are taken


@dataclass(frozen=True)
class Work:
    r"""Energy differences over the work of the forces, of structures that are near each other.

    .. math::
        E_2 - E_1 \approx -\tfrac12 (F_1 + F_2) \cdot (R_2 - R_1)

    after the one is turned onto the other. For forces that are minus the energy's slope the factor is
    near 1, and below it where the structures are far apart.

    Attributes:
        correlation: Pearson's, of energy difference and work.
        factor: Slope of the fit through zero.
        pairs: Number of pairs.
    """

    correlation: float
    factor: float
    pairs: int


def compare_work(dataset: MoleculeDataset, known: Survey) -> Work | None:
    """Compare energies and forces of the composition with the most structures.

    Args:
        dataset: Its ``transform`` is not applied.
        known: Its survey.

    Returns:
        ``None`` if there are no forces, fewer than 40 open structures with the same atoms, or no spread.
    """
    if known.forces_squares is None:
        return None
    wanted = (known.composition == known.frequencies().argmax()) & ~known.periodic
    numbers = wanted.nonzero().flatten()
    if len(numbers) < _FEWEST:
        return None
    atoms = int(known.atoms[numbers[0]])
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


def _compare(pos: Tensor, energy: Tensor, forces: Tensor) -> Work | None:
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
    return Work(float(correlation), float(factor), len(first))


def _near_pairs(pos: Tensor) -> tuple[Tensor, Tensor]:
    """Pair structures with the one whose interatomic distances are most alike; give the best pairs."""
    row, column = torch.triu_indices(pos.size(1), pos.size(1), offset=1)
    shape = (pos[:, row] - pos[:, column]).norm(dim=2)  # (structures, pairs of atoms)
    between = torch.cdist(shape, shape)
    between.fill_diagonal_(float("inf"))
    between[between < 1e-6] = float("inf")  # copies tell nothing
    distance, nearest = between.min(1)
    best = distance.argsort()[: max(_FEWEST // 2, int(_NEAREST * len(pos)))]
    best = best[distance[best].isfinite()]
    return best, nearest[best]


def _rotation(pos: Tensor, onto: Tensor) -> Tensor:
    """Rotations that turn centered points onto others (Kabsch 1976), ``(structures, 3, 3)``.

    Reflections are among them: the energy is the same in a mirror, and forces are mirrored.
    """
    u, _, vh = torch.linalg.svd(pos.transpose(1, 2) @ onto)
    return u @ vh
