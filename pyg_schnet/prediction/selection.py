"""Selection of the structures on which several potentials disagree most."""

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
        potentials: Ensemble, or paths of several checkpoints.
        pool: Structures without labels, which may be streamed from a file.
        k: Number of structures to select; all if there are fewer.
        batch_size: Number of structures evaluated at once.
        device: Device of the computation; by default that of the potentials, the CPU for paths.

    Returns:
        Numbers of the structures and the largest deviation of a force in each, in eV/Å, in descending order.

    Raises:
        StructureError: If the potentials reject a structure: a ``ValueError`` with its number.
        TypeError: If ``potentials`` is a single potential.
        ValueError: If ``k`` is below one, or there are no structures.

    Source:
        Seung, Opper and Sompolinsky, COLT 1992 (query by committee).
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    ensemble = evaluation_copy(potentials, device)
    if not isinstance(ensemble, Ensemble):
        raise TypeError("`potentials` must be several, to disagree; got one")
    deviations = [frame.info["max_forces_deviation"] for frame in predict(ensemble, pool, batch_size)]
    if not deviations:
        raise ValueError("`pool` must hold at least one structure, got none")
    order = sorted(range(len(deviations)), key=lambda number: -deviations[number])[:k]  # stable
    return [(number, deviations[number]) for number in order]
