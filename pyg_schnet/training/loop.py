"""The training loop, in plain sight."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.graph.memory import explained, too_large
from pyg_schnet.loader import collate
from pyg_schnet.loader.sampler import bound_edges, count_edges, cut
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.metrics import labelled
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.acceleration import accelerate
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.distributed import Processes, ProcessLostError
from pyg_schnet.training.finite import require_finite
from pyg_schnet.training.interruption import Interruption
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.progress import Report
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.schedule import BatchOrder, learning_rate, progress
from pyg_schnet.training.state import Counters, TrainingState
from pyg_schnet.training.validation import Validation


def fit(
    processes: Processes,
    potential: Potential,
    train: InMemoryDataset,
    val: InMemoryDataset,
    config: TrainerConfig,
    run: RunDirectory,
    report: Report,
    provenance: Mapping[str, Any],
    resume: bool = False,
    interruption: Interruption | None = None,
) -> Counters:
    """Train a potential on energies and, where there are labels, forces and stresses.

    Args:
        processes: Those of the run, with the device and TensorBoard's logger.
        potential: Trained in place; what is kept is the best average of its weights, in ``run.model``.
        train: Structures to train on.
        val: Structures to choose by.
        config: How to train.
        run: Where checkpoints and logs go.
        report: What to show.
        provenance: Written into the checkpoint.
        resume: Go on from ``run.last``.
        interruption: Looked at after each step; what comes ends the run, with a checkpoint. Before the first
            validation the averaged weights of that step are kept as ``run.model``, too; the first
            validation of a resumed run replaces them.

    Returns:
        Steps, best validation loss and time.

    Raises:
        FloatingPointError: If loss or weights are not finite, with the step and the structures of the batch.
        ProcessLostError: If another process ended; all steps that were done are in ``run.last``.
    """
    fabric = processes.fabric
    interruption = Interruption() if interruption is None else interruption
    has_forces = "forces" in collate(train, [0])
    energy_weight = config.energy_weight
    if energy_weight is None:
        energy_weight = 0.01 if has_forces else 1.0
    weights = {"energy_weight": energy_weight, "stress_weight": config.stress_weight}
    potential.to(fabric.device, getattr(torch, config.precision)).train()
    edges = _edges(train, potential, config, processes, report)
    bounds = _bounds(train, potential, config)
    order = BatchOrder(len(train), config, edges)
    first = next(order.after(0))
    sample = collate(train, first if bounds is None else cut(first, bounds)[0]).to(fabric.device)
    accelerate(potential, sample, config, config.max_steps, report, processes.here)
    state = TrainingState(potential, config.optimizer, config.lr, config.ema_decay)
    if resume:
        state.restore(run.last)
        report.line(f"Resuming at step {state.counters.step:,}.")
        if processes.is_first:
            run.cut_metrics(state.counters.step)
    elif processes.is_first:
        state.save(run.last)  # so that there is something to resume from at any time
    count, losses, stopped = state.counters, state.losses, False
    validate = Validation(processes, state, val, config, energy_weight, run, report, provenance)
    # Looking at a number makes the host wait for a GPU.
    steps_between_looks = 1 if fabric.device.type == "cpu" else 100
    began = saved = time.perf_counter()
    began -= count.seconds
    report.start(count.step, progress(config, count.step, count.seconds / 60))
    try:
        for ids in order.after(count.step):
            if losses and (count.step % config.val_every == 0 or _is_over(count, config)):
                validate()
                saved = time.perf_counter()
            if stopped or _is_over(count, config):
                break
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config, count.step, count.seconds / 60)
            mine = processes.share(ids, edges)
            loss = torch.zeros((), dtype=torch.float64, device=fabric.device)
            for part in cut(mine, bounds) if bounds is not None else [mine]:
                if len(part) == 0:
                    continue
                with explained(lambda part=part: _too_large(train, part, potential.cutoff)):
                    batch = collate(train, part).to(fabric.device)
                    out = potential(batch, **labelled(batch))
                    own = potential_loss(out, batch, scale=potential.scale, errors=config.loss, **weights)
                    if len(part) != order.size:
                        own = own * (len(part) / order.size)
                    fabric.backward(own)
                loss = loss + own.detach()
            clock = time.perf_counter() - began if processes.is_first else 0.0
            ends = float(interruption.is_asked or report.is_unread)
            loss, (stops, count.seconds) = processes.add_up(state.collect_gradients(), loss, (ends, clock))
            losses.append(loss)
            if len(losses) % steps_between_looks == 0:
                total = torch.stack(losses[-steps_between_looks:]).sum()
                require_finite("loss", total.item(), count, run, train, ids)
            if config.clip_norm is not None:
                norm = state.clip_gradients(config.clip_norm)
                require_finite("norm of the gradient", norm.item(), count, run, train, ids)
            state.step()
            count.step += 1
            stopped = stops > 0
            report.step(count.step, progress(config, count.step, count.seconds / 60), loss)
            if stopped or time.perf_counter() - saved > 60 * config.save_minutes:
                _save(state, processes, run)
                saved = time.perf_counter()
    except ProcessLostError as error:
        _save(state, processes, run)
        held = f"all {count.step:,} steps" if processes.is_first else "the last checkpoint"
        raise ProcessLostError(
            f"{error}, killed or out of memory if it told no reason; {run.last} holds {held}, --resume goes "
            "on"
        ) from error
    finally:
        state.release()
        report.stop()
        fabric.logger.finalize("success")
    if stopped:
        interruption.note()
        report.line(f"Interrupted after step {count.step:,}, which {run.last} holds; --resume goes on.")
        if math.isinf(count.best_loss) and processes.is_first:
            state.copy_buffers()
            checkpoint.save(state.averaged, run.model, {**provenance, "validation": None})
            report.line(f"{run.model} holds the weights of now, which no validation has seen.")
    return count


def _edges(
    train: InMemoryDataset, potential: Potential, config: TrainerConfig, processes: Processes, report: Report
) -> Tensor | None:
    """Count the edges of the structures, where batches or the parts of the processes are made by them."""
    if config.batch_edges is None and processes.count == 1:
        return None
    edges = count_edges(train, potential.cutoff).to(processes.fabric.device)
    processes.follow(edges)  # one at the cutoff may be there on one processor and not on another
    edges = edges.cpu()
    if config.batch_edges is not None and (large := int((edges > config.batch_edges).sum())):
        report.line(
            f"{large:,} structures have more than `trainer.batch_edges` {config.batch_edges:,}, up to "
            f"{int(edges.max()):,}; each is a batch of its own."
        )
    return edges


def _bounds(train: InMemoryDataset, potential: Potential, config: TrainerConfig) -> Tensor | None:
    """Bound the edges of the structures, by which steps too large for the memory are computed in parts.

    Models of others may see the other structures of a batch, as batch normalization does: they are not cut.
    """
    if config.batch_edges is not None or not isinstance(potential.model, SchNet):
        return None
    return bound_edges(train, potential.cutoff)


def _too_large(train: InMemoryDataset, ids: Tensor, cutoff: float) -> str:
    sizes = collate(train, ids).ptr.diff()
    largest = int(sizes.argmax())
    where = f"of {len(ids)} structures at once the largest, " if len(ids) > 1 else ""
    reason = too_large(int(sizes[largest]), cutoff)
    return (
        f"{where}structure {int(ids[largest])} of the training set: {reason}, or lower `trainer.batch_size`"
    )


def _is_over(count: Counters, config: TrainerConfig) -> bool:
    stale = config.patience is not None and count.stale >= config.patience
    return stale or progress(config, count.step, count.seconds / 60) >= 1


def _save(state: TrainingState, processes: Processes, run: RunDirectory) -> None:
    """Write a checkpoint between validations, unless its weights are useless."""
    if not processes.is_first:
        return
    total = state.weights.values.detach().sum()
    require_finite("sum of the weights", total.item(), state.counters, run)
    state.save(run.last)
