"""Validation: the errors that choose the best weights, and the row that tells them."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.evaluation import Evaluation
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.schedule import learning_rate
from pyg_schnet.training.state import Counters


def judge(count: Counters, errors: Evaluation, energy_weight: float, config: TrainerConfig) -> bool:
    """Update the best loss; nearly the same combination of errors as in training, in eV and Å.

    Returns:
        Whether these errors are the best so far.
    """
    if config.loss == "absolute":
        loss = energy_weight * errors.energy_mae
        if errors.forces_mae is not None:
            loss += 2 * errors.forces_mae  # the mean length of random vectors over that of a component
        if errors.virial_mae is not None:
            loss += config.stress_weight * 9 / 2.5 * errors.virial_mae  # the same of nine components
    else:
        loss = energy_weight * errors.energy_rmse**2
        if errors.forces_rmse is not None:
            loss += 3 * errors.forces_rmse**2
        if errors.virial_rmse is not None:
            loss += config.stress_weight * 9 * errors.virial_rmse**2
    improved = loss < count.best_loss
    if improved:
        count.best_loss, count.best_step, count.stale = loss, count.step, 0
    else:
        count.stale += 1
    return improved


def metrics_row(
    count: Counters, config: TrainerConfig, losses: list[Tensor], errors: Evaluation
) -> dict[str, float]:
    """Give a row of ``metrics.csv``; ``losses`` are those of the steps since the row before."""
    row = {
        "step": count.step,
        "minutes": count.seconds / 60,
        "lr": learning_rate(config, count.step - 1, count.seconds / 60),
        "loss": float(torch.stack(losses).mean()),
        "val_energy_mae_eV": errors.energy_mae,
        "val_energy_rmse_eV": errors.energy_rmse,
    }
    if errors.forces_mae is not None and errors.forces_rmse is not None:
        row["val_forces_mae_eV_per_A"] = errors.forces_mae
        row["val_forces_rmse_eV_per_A"] = errors.forces_rmse
    if errors.stress_mae is not None and errors.stress_rmse is not None:
        row["val_stress_mae_eV_per_A3"] = errors.stress_mae
        row["val_stress_rmse_eV_per_A3"] = errors.stress_rmse
    return row
