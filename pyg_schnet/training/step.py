"""A step of a training: loss, gradients, and the update of the weights, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.graph.memory import describe_out_of_memory, too_large_reason
from pyg_schnet.loader import collate
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import Batches, TrainingBatch
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.properties import LabelScale
from pyg_schnet.training.state import TrainingState
from pyg_schnet.training.validation import RecentNumbers


class StepLoss:
    """The loss of a step, summed over parts of its batch.

    Args:
        potential: Potential to train.
        config: Options of the loss.
        energy_weight: Weight of the energies in the loss.
        mean_size: Mean number of structures of a step, by which sums over structures are divided.
        scales: Scales of the labels of the potential's properties.
    """

    def __init__(
        self,
        potential: Potential,
        config: TrainerConfig,
        energy_weight: float,
        mean_size: float,
        scales: Mapping[Target, LabelScale] | None = None,
    ):
        self.potential, self.mean_size = potential, mean_size
        self._energy_weight = energy_weight
        self._options = {"errors": config.loss, "stress_weight": config.stress_weight}
        self._scales = dict(scales or {})

    def __call__(self, part: TrainingBatch, weights: Tensor | None = None) -> Tensor:
        """Return the loss of structures, float64, shape ``()``.

        Args:
            part: Structures of the step, or all of them.
            weights: Weight of each structure, in place of the reciprocal of the mean size.
        """
        batch, graph, outputs = part
        out = self.potential(batch, graph=graph, **outputs)
        scale, options = self.potential.scale, self._options
        loss = potential_loss(
            out, batch, self._energy_weight, scale, **options, weights=weights, properties=self._scales
        )
        structures = batch.num_graphs if self._scales else len(out["energy"])
        if weights is None and structures != self.mean_size:
            loss = loss * (structures / self.mean_size)
        return loss


class TrainingStep:
    """A step of a training: the gradients of the loss, and the update of the weights and their average.

    Args:
        processes: Processes of the run, which sum their gradients.
        state: State of the training.
        loss: Loss of the step.
        data: Source of batches.
        train: Training structures, for messages.
        recent: Check of losses and gradients.
        clip_norm: Largest norm of the gradient; ``None`` for any.
    """

    def __init__(
        self,
        processes: Processes,
        state: TrainingState,
        loss: StepLoss,
        data: Batches,
        train: InMemoryDataset,
        recent: RecentNumbers,
        clip_norm: float | None,
    ):
        self.processes, self.state, self.loss, self.data = processes, state, loss, data
        self.train, self.recent, self.clip_norm = train, recent, clip_norm

    def __call__(
        self, ids: Tensor, parts: Sequence[Tensor], numbers: Callable[[], tuple[float, ...]]
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Do a step.

        Args:
            ids: Indices of the structures of the step.
            parts: Those of this process, in parts that fit into the memory.
            numbers: Returns numbers to sum over all processes, after the gradients are computed.

        Returns:
            The loss, float64, and the sums of the numbers.

        Raises:
            FloatingPointError: If the loss or the norm of the gradient of this or an earlier step is not
                finite.
            ProcessLostError: If another process ended.
        """
        loss = torch.zeros((), dtype=torch.float64, device=self.processes.fabric.device)
        for part in parts:
            if len(part) == 0:
                continue
            with describe_out_of_memory(lambda part=part: self.too_large(part)):
                own = self.loss(self.data.cut(part.tolist()))
                self.processes.fabric.backward(own)
            loss = loss + own.detach()
        loss, sums = self.processes.all_reduce(self.state.collect_gradients(), loss, numbers())
        self.check(ids, loss, self.clip())
        self.state.step()
        return loss, sums

    def clip(self) -> Tensor | None:
        """Clip the collected gradient, and return the norm before, if there is a bound."""
        return None if self.clip_norm is None else self.state.clip_gradients(self.clip_norm)

    def check(self, ids: Tensor, loss: Tensor, norm: Tensor | None) -> None:
        """Check that a loss and the norm of a gradient are finite, on accelerators some steps later."""
        self.recent.add("loss", loss, ids, self.state.counters)
        if norm is not None:
            self.recent.add("norm of the gradient", norm, ids, self.state.counters)

    def too_large(self, ids: Tensor) -> str:
        """Return what a user can do if a batch does not fit into the memory."""
        sizes = collate(self.train, ids).ptr.diff()
        largest = int(sizes.argmax())
        where = f"of {len(ids)} structures in one batch the largest, " if len(ids) > 1 else ""
        reason = too_large_reason(int(sizes[largest]), self.loss.potential.cutoff)
        return (
            f"{where}structure {int(ids[largest])} of the training set: {reason}, or lower "
            "`trainer.batch_size`"
        )
