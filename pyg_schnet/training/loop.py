"""The training loop, and signals that end it after a step.

An option of training takes this path: ``cli/train.py``, ``TrainConfig`` (``config.py``), ``run.train``,
:func:`fit`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.kernels import on_accelerator
from pyg_schnet.loader import collate
from pyg_schnet.loader.sampler import BatchSequence, bound_edges, count_edges, split_by_edges
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target
from pyg_schnet.training.callbacks import Callback, Callbacks, Training
from pyg_schnet.training.captured_step import choose_step
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import choose_batches
from pyg_schnet.training.distributed import Processes, ProcessLostError
from pyg_schnet.training.execution import choose_execution
from pyg_schnet.training.progress import Report
from pyg_schnet.training.properties import LabelScale
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.schedule import completed_fraction, learning_rate
from pyg_schnet.training.state import Counters, TrainingState
from pyg_schnet.training.step import StepLoss, TrainingStep
from pyg_schnet.training.validation import RecentNumbers, Validation, require_finite


class StopRequest:
    """A request to end the run after the current step.

    Attributes:
        signal: The signal that requested it; ``None`` without a request.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    @property
    def is_set(self) -> bool:
        """Whether the run should end."""
        return self.signal is not None

    def set(self) -> None:
        """Request it on behalf of another process of the run."""
        self.signal = self.signal or signal.SIGTERM

    def clear(self) -> None:
        """Withdraw the request, so that the process does not end by the signal."""
        self.signal = None


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Defer SIGINT and SIGTERM: they set the request, and are sent again after the body.

    A second SIGINT (Ctrl-C) ends the process at once. Further SIGTERMs are ignored: schedulers send it to a
    process and to its group. In threads other than the main one, which receives all signals, nothing changes.
    """
    request = StopRequest()
    handlers = {}

    def handle(number: int, _: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        signal.signal(number, handlers[number] if number == signal.SIGINT else signal.SIG_IGN)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C; sent by schedulers of clusters
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # ignored by jobs in the background
                handlers[number] = handler
                signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if request.signal is not None:
        signal.raise_signal(request.signal)


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
    stop: StopRequest | None = None,
    callbacks: Sequence[Callback] = (),
    scales: Mapping[Target, LabelScale] | None = None,
) -> Counters:
    """Train a potential on energies and, if there are labels, forces and stresses.

    Args:
        processes: Processes of the run, with the device.
        potential: Potential to train in place; the best average of its weights is kept in ``run.model``.
        train: Training structures.
        val: Validation structures.
        config: Options of the training.
        run: Directory for checkpoints and logs.
        report: Output for the user.
        provenance: Provenance to store in the checkpoint.
        resume: Continue from ``run.last``.
        stop: Request to stop, checked after each step; the run then ends with a checkpoint. Before the first
            validation, the averaged weights of that step are also kept as ``run.model``; the first
            validation of a resumed run replaces them.
        callbacks: Callbacks, which rank 0 calls.
        scales: Scales of the labels of the properties of the potential.

    Returns:
        Steps, best validation loss and time.

    Raises:
        FloatingPointError: If the loss or weights are not finite, with the step and the structures of the
            batch. On GPUs, a hundred numbers are checked together, and all before anything is saved.
        ProcessLostError: If another process ended; all completed steps are in ``run.last``.
    """
    fabric, stop = processes.fabric, StopRequest() if stop is None else stop
    energy_weight = config.energy_weight
    if energy_weight is None:
        energy_weight = 0.01 if "forces" in collate(train, [0]) else 1.0
    potential.to(fabric.device, getattr(torch, config.precision)).train()
    edges = _edges(train, potential, config, processes, report)
    bounds = _edge_bounds(train, potential, config)
    batches = BatchSequence(len(train), config.batch_size, config.seed, config.batch_edges, edges)
    data = choose_batches(train, potential, config, fabric.device, report)
    first = _parts(next(batches.from_step(0)), bounds)[0]
    choose_execution(
        potential, data.cut(first.tolist()), config, config.max_steps, report, processes.local_world_size
    )
    state = TrainingState(potential, config.optimizer, config.lr, config.ema_decay, config.weight_decay)
    if resume:
        state.restore(run.last)
        report.line(f"Resuming at step {state.counters.step:,}.")
        if processes.is_rank_zero:
            run.truncate_metrics(state.counters.step)
    elif processes.is_rank_zero:
        state.save(run.last)  # so that the run can be resumed at any time
    counters, losses, stopped, ended = state.counters, state.losses, False, False
    validate = Validation(processes, state, val, config, energy_weight, run, provenance, scales or {})
    recent = RecentNumbers(run, train, on_accelerator(state.weights.values))
    loss_of = StepLoss(potential, config, energy_weight, batches.mean_size, scales or {})
    eager_step = TrainingStep(processes, state, loss_of, data, train, recent, config.clip_norm)
    step = choose_step(eager_step, config, report)
    saved = time.perf_counter()
    began = saved - counters.seconds

    def save() -> None:
        recent.check(counters)
        _save(state, processes, run)

    def save_for_resume() -> None:
        save()
        report.line(
            f"A callback failed after step {counters.step:,}, saved in {run.last}; resume with --resume."
        )

    def requests_and_clock() -> tuple[float, float, float]:
        clock = time.perf_counter() - began if processes.is_rank_zero else 0.0
        return float(stop.is_set or report.is_closed), float(training.is_stopping), clock

    training = Training(run, config, state)
    events = Callbacks(callbacks if processes.is_rank_zero else (), training, save_for_resume)
    report.start(counters.step, _completed(counters, config))
    try:
        with events:
            for ids in batches.from_step(counters.step):
                is_over = ended or _is_over(counters, config)
                if losses and (counters.step % config.val_every == 0 or is_over):
                    recent.check(counters)
                    row, improved = validate()
                    report.validated(row, improved)
                    events.validated(row)
                    ended = processes.of_rank_zero(training.is_stopping)
                    saved = time.perf_counter()
                if stopped or ended or _is_over(counters, config):
                    break
                state.set_learning_rate(learning_rate(config, counters.step, counters.seconds / 60))
                parts = _parts(processes.shard(ids, edges), bounds)
                loss, (stops, ends, counters.seconds) = step(ids, parts, requests_and_clock)
                losses.append(loss)
                counters.step += 1
                stopped, ended = stops > 0, ends > 0
                report.step(counters.step, _completed(counters, config), loss)
                events.step(loss)
                if stopped or time.perf_counter() - saved > 60 * config.save_minutes:
                    save()
                    saved = time.perf_counter()
    except ProcessLostError as error:
        _save(state, processes, run)
        held = f"all {counters.step:,} steps" if processes.is_rank_zero else "the last checkpoint"
        raise ProcessLostError(
            f"{error}, killed or out of memory if it reported no reason; {run.last} holds {held}; resume "
            "with --resume"
        ) from error
    finally:
        state.release()
        report.stop()
    if ended:
        report.line(f"A callback ended the training after step {counters.step:,}.")
    if stopped:
        stop.set()
        report.line(f"Interrupted after step {counters.step:,}, saved in {run.last}; resume with --resume.")
        if math.isinf(counters.best_loss) and processes.is_rank_zero:
            state.copy_buffers()
            checkpoint.save(state.averaged, run.model, {**provenance, "validation": None})
            report.line(f"{run.model} holds the current weights, which were not validated.")
    return counters


def _completed(counters: Counters, config: TrainerConfig) -> float:
    return completed_fraction(config, counters.step, counters.seconds / 60)


def _is_over(counters: Counters, config: TrainerConfig) -> bool:
    stale = config.patience is not None and counters.stale >= config.patience
    return stale or _completed(counters, config) >= 1


def _edges(
    train: InMemoryDataset, potential: Potential, config: TrainerConfig, processes: Processes, report: Report
) -> Tensor | None:
    """Count the edges of each structure if they define the batches or the shards of the processes."""
    if config.batch_edges is None and processes.world_size == 1:
        return None
    edges = count_edges(train, potential.cutoff).to(processes.fabric.device)
    processes.broadcast(edges)  # by rounding, a pair at the cutoff may count on one processor only
    edges = edges.cpu()
    if config.batch_edges is not None and (large := int((edges > config.batch_edges).sum())):
        report.line(
            f"{large:,} structures have more than `trainer.batch_edges` {config.batch_edges:,} edges, up to "
            f"{int(edges.max()):,}; each is a batch of its own."
        )
    return edges


def _edge_bounds(train: InMemoryDataset, potential: Potential, config: TrainerConfig) -> Tensor | None:
    """Bound the edges of each structure, to compute steps too large for the memory in parts.

    Batches of other models are not split: they may couple structures, as batch normalization does.
    """
    if config.batch_edges is not None or not isinstance(potential.model, SchNet):
        return None
    return bound_edges(train, potential.cutoff)


def _parts(ids: Tensor, bounds: Tensor | None) -> list[Tensor]:
    return [ids] if bounds is None else split_by_edges(ids, bounds)


def _save(state: TrainingState, processes: Processes, run: RunDirectory) -> None:
    """Write the state between validations if its weights are finite."""
    if not processes.is_rank_zero:
        return
    total = state.weights.values.detach().sum()
    require_finite("sum of the weights", total.item(), state.counters.step, state.counters, run)
    state.save(run.last)
