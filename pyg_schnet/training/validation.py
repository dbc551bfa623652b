"""Validation: errors that select the best weights, checks of finiteness, and the error of the splines."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.loader import DataLoader, collate
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.metrics import Evaluation, evaluate
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.properties import LabelScale
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.schedule import learning_rate
from pyg_schnet.training.state import Counters, TrainingState

MAX_ENERGY_ERROR = 1e-6  # of splines, relative to the energies' standard deviation
_NUMBERS_READ_TOGETHER = 100
MAX_FORCES_ERROR = 1e-5  # of splines, relative to the forces' root mean square


class Validation:
    """Measures the validation errors, and saves them, the best weights and the state.

    Args:
        processes: Processes of the run, all of which must call it; rank 0 writes the files.
        state: State of the training.
        val: Validation structures.
        config: Options of the training.
        energy_weight: Weight of the energies in the loss.
        run: Directory for checkpoints and metrics.
        provenance: Provenance to store in the checkpoint.
        scales: Scales of the labels of the potential's properties.
    """

    def __init__(
        self,
        processes: Processes,
        state: TrainingState,
        val: InMemoryDataset,
        config: TrainerConfig,
        energy_weight: float,
        run: RunDirectory,
        provenance: Mapping[str, Any],
        scales: Mapping[Target, LabelScale] | None = None,
    ):
        self._processes, self._state, self._val, self._config = processes, state, val, config
        self._energy_weight, self._run, self._provenance = energy_weight, run, provenance
        self._scales = scales or {}

    def __call__(self) -> tuple[dict[str, float], bool]:
        """Validate the averaged weights.

        Returns:
            A row of the metrics, and whether its loss is the lowest so far.

        Raises:
            FloatingPointError: If an error is not finite.
            ProcessLostError: If another process ended; no file is written then.
        """
        processes, state, config, run = self._processes, self._state, self._config, self._run
        counters = state.counters
        processes.broadcast(*state.flat, *state.buffers)
        state.copy_buffers()
        with processes.communication_errors():
            errors = evaluate(
                state.averaged, self._val, config.batch_size, config.batch_edges, processes.world_size > 1
            )
        row = metrics_row(counters, config, state.losses, errors)
        energy_scale = float(state.averaged.scale)
        loss = validation_loss(errors, self._energy_weight, config, self._scales, energy_scale)
        require_finite("validation error", loss, counters.step, counters, run)
        improved = _update_best(counters, loss)
        state.losses.clear()
        if processes.is_rank_zero:
            if improved:
                checkpoint.save(state.averaged, run.model, {**self._provenance, "validation": row})
            run.append_metrics(row)  # before the state: resuming drops rows that are ahead of it
            state.save(run.last)
        return row, improved


def validation_loss(
    errors: Evaluation,
    energy_weight: float,
    config: TrainerConfig,
    scales: Mapping[Target, LabelScale] | None = None,
    energy_scale: float = 1.0,
) -> float:
    """Return the loss that selects the best weights: nearly that of the training, in units of eV and Å.

    With properties it has no unit: errors are divided by the scale of the energies, or the spread of a
    property.

    Args:
        errors: Errors on the validation structures.
        energy_weight: Weight of the energies.
        config: Kind of errors, and weight of stresses.
        scales: Scales of the labels of properties.
        energy_scale: Scale of the energies in eV, and eV/Å, where there are properties.
    """
    loss = _energy_loss(errors, energy_weight, config)
    if not scales:
        return loss
    power = 1 if config.loss == "absolute" else 2
    loss /= energy_scale**power
    for target, scale in scales.items():
        if own := errors.properties.get(target.name):
            error = own.mae if config.loss == "absolute" else own.rmse
            loss += target.weight * (error / scale.spread) ** power
    return loss


def _energy_loss(errors: Evaluation, energy_weight: float, config: TrainerConfig) -> float:
    if errors.energy_mae is None or errors.energy_rmse is None:
        return 0.0
    if config.loss == "absolute":
        loss = energy_weight * errors.energy_mae
        if errors.forces_mae is not None:
            loss += 2 * errors.forces_mae  # ratio of a random vector's mean length to that of a component
        if errors.virial_mae is not None:
            loss += config.stress_weight * 9 / 2.5 * errors.virial_mae  # the same ratio for nine components
    else:
        loss = energy_weight * errors.energy_rmse**2
        if errors.forces_rmse is not None:
            loss += 3 * errors.forces_rmse**2
        if errors.virial_rmse is not None:
            loss += config.stress_weight * 9 * errors.virial_rmse**2
    return loss


def _update_best(counters: Counters, loss: float) -> bool:
    """Update the counters, and return whether the loss is the lowest so far."""
    improved = loss < counters.best_loss
    if improved:
        counters.best_loss, counters.best_step, counters.stale = loss, counters.step, 0
    else:
        counters.stale += 1
    return improved


def metrics_row(
    counters: Counters, config: TrainerConfig, losses: list[Tensor], errors: Evaluation
) -> dict[str, float]:
    """Return a row of ``metrics.csv``; ``losses`` are those of the steps since the row before."""
    minutes = counters.seconds / 60
    row = {
        "step": counters.step,
        "minutes": minutes,
        "lr": learning_rate(config, counters.step - 1, minutes),
        "loss": float(torch.stack(losses).mean()),
    }
    if errors.energy_mae is not None and errors.energy_rmse is not None:
        row |= {"val_energy_mae_eV": errors.energy_mae, "val_energy_rmse_eV": errors.energy_rmse}
    if errors.forces_mae is not None and errors.forces_rmse is not None:
        row["val_forces_mae_eV_per_A"] = errors.forces_mae
        row["val_forces_rmse_eV_per_A"] = errors.forces_rmse
    if errors.stress_mae is not None and errors.stress_rmse is not None:
        row["val_stress_mae_eV_per_A3"] = errors.stress_mae
        row["val_stress_rmse_eV_per_A3"] = errors.stress_rmse
    for own in errors.properties.values():
        row |= {f"val_{own.target.column('mae')}": own.mae, f"val_{own.target.column('rmse')}": own.rmse}
    return row


class RecentNumbers:
    """Losses and norms of gradients of the last steps, which must be finite.

    On accelerators they are read together, because reading one synchronizes host and device.

    Args:
        run: Directory of the last good checkpoint.
        train: Training structures.
        together: Whether to read many numbers together; each at once otherwise.
    """

    def __init__(self, run: RunDirectory, train: InMemoryDataset, together: bool):
        self._run, self._train = run, train
        self._most = _NUMBERS_READ_TOGETHER if together else 1
        self._numbers: list[tuple[str, Tensor, Tensor, int]] = []

    def add(self, name: str, value: Tensor, ids: Tensor, counters: Counters) -> None:
        """Add a number of a step; check all if there are many.

        Args:
            name: Name of the number.
            value: The number, shape ``()``.
            ids: Indices of the structures of the batch.
            counters: Progress of the run.

        Raises:
            FloatingPointError: As :meth:`check`.
        """
        self._numbers.append((name, value, ids, counters.step))
        if len(self._numbers) >= self._most:
            self.check(counters)

    def check(self, counters: Counters) -> None:
        """Check all numbers added since the last check.

        Raises:
            FloatingPointError: If one is not finite, with its step, the structures and advice.
        """
        numbers, self._numbers = self._numbers, []
        if not numbers:
            return
        values = torch.stack([value.double() for _, value, _, _ in numbers]).tolist()
        for value, (name, _, ids, step) in zip(values, numbers, strict=True):
            require_finite(name, value, step, counters, self._run, self._train, ids)


def require_finite(
    name: str,
    value: float,
    step: int,
    counters: Counters,
    run: RunDirectory,
    train: InMemoryDataset | None = None,
    ids: Tensor | None = None,
) -> None:
    """Raise if a number of a run is not finite.

    Args:
        name: Name of the number.
        value: The number.
        step: Number of steps that were complete when it was computed.
        counters: Progress of the run.
        run: Directory of the last good checkpoint.
        train: Training structures.
        ids: Indices of the structures of the batch, if the number belongs to one.

    Raises:
        FloatingPointError: If the number is not finite, with the step, the structures and advice.
    """
    if math.isfinite(value):
        return
    where = ""
    if train is not None and ids is not None:
        where = f", for the structures {', '.join(map(str, collate(train, ids).idx.tolist()))}"
    kept = f"{run.model} (step {counters.best_step:,})" if run.model.exists() else "none yet"
    raise FloatingPointError(
        f"the {name} is {value} after {step:,} steps{where}; the last good checkpoint is {kept}. "
        "Check the labels of the structures; if they are right, lower `trainer.lr` or set `trainer.clip_norm`"
    )


@dataclass(frozen=True)
class SplineError:
    """Largest changes of predictions by the filters' splines, relative to the spread of the predictions.

    Attributes:
        energy: Of an energy, in standard deviations of the energies relative to the atomic references,
            without which different compositions would hide any change.
        forces: Of a force component, in units of the forces' root mean square.
    """

    energy: float
    forces: float

    def report(self) -> str:
        """Return the errors in one line of text."""
        text = (
            f"Splines of the filters change energies by {self.energy:.0e} of their spread and forces by "
            f"{self.forces:.0e} of their RMS at most (float64)"
        )
        if self.energy <= MAX_ENERGY_ERROR and self.forces <= MAX_FORCES_ERROR:
            return f"{text}."
        return (
            f"{text}: more than {MAX_ENERGY_ERROR:.0e} and {MAX_FORCES_ERROR:.0e}; train with "
            "model.filters=exact."
        )


def spline_error(potential: Potential, dataset: InMemoryDataset, batch_size: int = 32) -> SplineError | None:
    """Compare a potential with splined filters to the same with exact filters, both in float64.

    Args:
        potential: A potential; it is not changed.
        dataset: Structures like those it is used for.
        batch_size: Structures per batch.

    Returns:
        The largest errors; ``None`` for models without splines.
    """
    if not potential.has_energy:
        return None
    if not isinstance(potential.model, SchNet) or potential.model.filters == "exact" or len(dataset) < 2:
        return None
    own = copy.deepcopy(potential).double().eval()
    own.compiled = None
    outputs: dict[str, list[dict[str, Tensor]]] = {"exact": [], "spline": []}
    references: list[Tensor] = []
    for batch in DataLoader(dataset, batch_size, generator=torch.Generator()):
        batch.pos = batch.pos.double()
        for filters, results in outputs.items():
            own.model.filters = filters  # pyright: ignore[reportArgumentType]
            results.append(own(batch.to(own.scale.device)))
        zero = torch.zeros(batch.num_graphs, dtype=torch.float64, device=own.scale.device)
        references.append(own.scaled(zero, batch.z, batch.batch, batch.num_graphs))
    exact, spline = (
        {name: torch.cat([result[name] for result in results]) for name in ("energy", "forces")}
        for results in outputs.values()
    )
    spread = (exact["energy"] - torch.cat(references)).std()
    energy = (spline["energy"] - exact["energy"]).abs().max() / spread
    forces = (spline["forces"] - exact["forces"]).abs().max() / exact["forces"].square().mean().sqrt()
    return SplineError(float(energy), float(forces))
