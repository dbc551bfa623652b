"""The training loop, in plain sight."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet import checkpoint
from pyg_schnet.evaluation import Evaluation, evaluate, labelled
from pyg_schnet.loader import collate
from pyg_schnet.potential import Potential
from pyg_schnet.training.acceleration import accelerate
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.progress import Report
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.schedule import batches, learning_rate, progress
from pyg_schnet.training.state import Counters, TrainingState


def fit(
    fabric: Fabric,
    potential: Potential,
    train: InMemoryDataset,
    val: InMemoryDataset,
    config: TrainerConfig,
    run: RunDirectory,
    report: Report,
    provenance: Mapping[str, Any],
    resume: bool = False,
) -> Counters:
    """Train a potential on energies and, where there are labels, forces and stresses.

    Args:
        fabric: The device, and TensorBoard's logger.
        potential: Trained in place; what is kept is the best average of its weights, in ``run.model``.
        train: Structures to train on.
        val: Structures to choose by.
        config: How to train.
        run: Where checkpoints and logs go.
        report: What to show.
        provenance: Written into the checkpoint.
        resume: Go on from ``run.last``.

    Returns:
        Steps, best validation loss and time.

    Raises:
        FloatingPointError: If the loss is not finite, with the step and the structures of the batch.
    """
    has_forces = "forces" in collate(train, [0])
    energy_weight = config.energy_weight
    if energy_weight is None:
        energy_weight = 0.01 if has_forces else 1.0
    potential.to(fabric.device, getattr(torch, config.precision)).train()
    first = next(batches(len(train), config.batch_size, config.seed))
    sample = collate(train, first).to(fabric.device)
    accelerate(potential, sample, config, config.max_steps, report)
    state = TrainingState(potential, config.optimizer, config.lr, config.ema_decay)
    count = state.counters
    if resume:
        state.restore(run.last)
        count = state.counters
        run.cut_metrics(count.step)
        report.line(f"Resuming at step {count.step:,}.")
    module, optimizer = fabric.setup(potential, state.optimizer)

    losses: list[Tensor] = []
    # Looking at a number makes the host wait for a GPU.
    steps_between_looks = 1 if fabric.device.type == "cpu" else 100
    began = time.perf_counter() - count.seconds
    report.start(count.step, progress(config, count.step, count.seconds / 60))
    try:
        for ids in batches(len(train), config.batch_size, config.seed, count.step):
            if _is_over(count, config):
                break
            batch = collate(train, ids).to(fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, count.step, count.seconds / 60)
            out = module(batch, **labelled(batch))
            weights = {"energy_weight": energy_weight, "stress_weight": config.stress_weight}
            loss = potential_loss(out, batch, scale=potential.scale, errors=config.loss, **weights)
            losses.append(loss.detach())
            if len(losses) % steps_between_looks == 0:
                total = torch.stack(losses[-steps_between_looks:]).sum()
                _require_finite("loss", total.item(), count, batch, run)
            fabric.backward(loss)
            state.collect_gradients()
            if config.clip_norm is not None:
                norm = fabric.clip_gradients(
                    module, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
                )
                assert norm is not None
                _require_finite("norm of the gradient", norm.item(), count, batch, run)
            optimizer.step()
            optimizer.zero_grad()
            state.update_average()
            count.step += 1
            count.seconds = time.perf_counter() - began
            report.step(count.step, progress(config, count.step, count.seconds / 60), losses[-1])
            if count.step % config.val_every == 0 or _is_over(count, config):
                errors = evaluate(state.averaged, val, config.batch_size)
                row = _row(count, config, losses, errors)
                _require_finite("validation error", errors.energy_rmse, count, None, run)
                improved = _judge(count, errors, energy_weight, config)
                if improved:
                    checkpoint.save(state.averaged, run.model, {**provenance, "validation": row})
                run.append_metrics(row)  # before the state: resuming cuts rows that are ahead of it
                state.save(run.last)
                fabric.log_dict({k: v for k, v in row.items() if k != "step"}, count.step)
                report.validated(row, improved)
                losses.clear()
    finally:
        state.release()
        report.stop()
        fabric.logger.finalize("success")
    return count


def _is_over(count: Counters, config: TrainerConfig) -> bool:
    stale = config.patience is not None and count.stale >= config.patience
    return stale or progress(config, count.step, count.seconds / 60) >= 1


def _judge(count: Counters, errors: Evaluation, energy_weight: float, config: TrainerConfig) -> bool:
    """Update the best loss; nearly the same combination of errors as in training, in eV and Å."""
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


def _row(
    count: Counters, config: TrainerConfig, losses: list[Tensor], errors: Evaluation
) -> dict[str, float]:
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


def _require_finite(name: str, value: float, count: Counters, batch: Data | None, run: RunDirectory) -> None:
    if math.isfinite(value):
        return
    where = "" if batch is None else f", for the structures {', '.join(map(str, batch.idx.tolist()))}"
    kept = f"{run.model} (step {count.best_step:,})" if run.model.exists() else "none yet"
    raise FloatingPointError(
        f"the {name} is {value} after {count.step:,} steps{where}; the last good checkpoint is {kept}. "
        "Look at the structures' labels; if they are right, lower `trainer.lr` or set `trainer.clip_norm`"
    )
