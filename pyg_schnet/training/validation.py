"""Validation: the errors that choose the best weights, and the row that tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.metrics import Evaluation, evaluate
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.finite import require_finite
from pyg_schnet.training.progress import Report
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.schedule import learning_rate
from pyg_schnet.training.state import Counters, TrainingState


class Validation:
    """What is done each so many steps: errors are measured and told, and the best weights and the state kept.

    Args:
        processes: Those of the run, all of which call it; the first one writes.
        state: Of the training.
        val: Structures to choose by.
        config: How to train.
        energy_weight: Of the loss.
        run: Where checkpoints and logs go.
        report: What to show.
        provenance: Written into the checkpoint.
    """

    def __init__(
        self,
        processes: Processes,
        state: TrainingState,
        val: InMemoryDataset,
        config: TrainerConfig,
        energy_weight: float,
        run: RunDirectory,
        report: Report,
        provenance: Mapping[str, Any],
    ):
        self._processes, self._state, self._val, self._config = processes, state, val, config
        self._energy_weight, self._run, self._report = energy_weight, run, report
        self._provenance = provenance

    def __call__(self) -> None:
        """Validate the averaged weights.

        Raises:
            FloatingPointError: If an error is not finite.
            ProcessLostError: If another process ended; nothing is written then.
        """
        processes, state, config, run = self._processes, self._state, self._config, self._run
        count = state.counters
        processes.follow(*state.flat, *state.buffers)
        state.copy_buffers()
        with processes.watched():
            errors = evaluate(
                state.averaged, self._val, config.batch_size, config.batch_edges, processes.count > 1
            )
        row = metrics_row(count, config, state.losses, errors)
        loss = validation_loss(errors, self._energy_weight, config)
        require_finite("validation error", loss, count, run)
        improved = _judge(count, loss)
        state.losses.clear()
        if processes.is_first:
            if improved:
                checkpoint.save(state.averaged, run.model, {**self._provenance, "validation": row})
            run.append_metrics(row)  # before the state: resuming cuts rows that are ahead of it
            state.save(run.last)
            processes.fabric.log_dict({k: v for k, v in row.items() if k != "step"}, count.step)
        self._report.validated(row, improved)


def validation_loss(errors: Evaluation, energy_weight: float, config: TrainerConfig) -> float:
    """Give what the best weights are chosen by: nearly the same of the errors as in training, in eV and Å."""
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
    return loss


def _judge(count: Counters, loss: float) -> bool:
    """Update the best loss, and tell whether this one is it."""
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
