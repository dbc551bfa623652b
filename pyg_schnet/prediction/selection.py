"""Selection of the structures that a potential knows least about."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from ase import Atoms

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.prediction.predictor import predict
from pyg_schnet.simulation.calculator import Model, evaluation_copy


def select(
    potentials: Model,
    pool: Iterable[Atoms],
    k: int,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> list[tuple[int, float]]:
    """Find the structures on whose forces potentials disagree most: query by committee.

    Args:
        potentials: An ensemble, or the paths of several checkpoints.
        pool: Structures without labels, which may stream from a file.
        k: How many to choose; all if there are fewer.
        batch_size: Structures evaluated at once.
        device: Where to compute; by default where the potentials are, the CPU for paths.

    Returns:
        Numbers of structures, and the largest deviation of a force in each, in eV/Å, the largest first.

    Raises:
        StructureError: If the potentials refuse a structure: a ``ValueError`` that tells its number.
        TypeError: If ``potentials`` is one, not several.
        ValueError: If ``k`` is below one, or there are no structures.

    Source:
        Seung, Opper and Sompolinsky, COLT 1992 (query by committee).
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    ensemble = evaluation_copy(potentials, device)
    if not isinstance(ensemble, Ensemble):
        raise TypeError("`potentials` must be several, to disagree; got one")
    found = [frame.info["max_forces_deviation"] for frame in predict(ensemble, pool, batch_size)]
    if not found:
        raise ValueError("`pool` must hold at least one structure, got none")
    order = sorted(range(len(found)), key=lambda number: -found[number])[:k]  # stable
    return [(number, found[number]) for number in order]
