"""Selection of the structures that a potential knows least about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms

from pyg_schnet.ensemble import Ensemble
from pyg_schnet.simulation.calculator import Model, for_evaluation
from pyg_schnet.simulation.prediction import batch_of


def select(
    potentials: Model,
    pool: Sequence[Atoms],
    k: int,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> list[tuple[int, float]]:
    """Find the structures on whose forces potentials disagree most: query by committee.

    Args:
        potentials: An ensemble, or the paths of several checkpoints.
        pool: Structures without labels.
        k: How many to choose; all if there are fewer.
        batch_size: Structures evaluated at once.
        device: Where to compute; by default where the potentials are, the CPU for paths.

    Returns:
        Numbers of structures, and the largest deviation of a force in each, in eV/Å, the largest first.

    Raises:
        TypeError: If ``potentials`` is one, not several.
        ValueError: If ``k`` is below one, there are no structures, or the potentials refuse one.

    Source:
        Seung, Opper and Sompolinsky, COLT 1992 (query by committee).
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    if len(pool) == 0:
        raise ValueError("`pool` must hold at least one structure, got none")
    ensemble = for_evaluation(potentials, device)
    if not isinstance(ensemble, Ensemble):
        raise TypeError("`potentials` must be several, to disagree; got one")
    found = []
    for first in range(0, len(pool), batch_size):
        batch = batch_of(list(pool[first : first + batch_size]), ensemble.scale.device)
        deviation = ensemble(batch)["forces_deviation"]
        largest = deviation.new_zeros(batch.num_graphs).scatter_reduce(0, batch.batch, deviation, "amax")
        found.append(largest)
    values, numbers = torch.cat(found).sort(descending=True, stable=True)
    return list(zip(numbers[:k].tolist(), values[:k].tolist(), strict=True))
