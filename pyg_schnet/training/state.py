"""The state of a training run, complete enough to go on as if it had never stopped."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.flat_parameters import FlatParameters
from pyg_schnet.training.soap import Soap

_KIND = "training state"
_ADAM = ("exp_avg", "exp_avg_sq")


@dataclass
class Counters:
    """Numbers of a run.

    Attributes:
        step: Steps done.
        best_loss: Lowest validation loss so far.
        best_step: The step that had it.
        stale: Validations since then.
        seconds: Time spent in training.
    """

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0


class TrainingState:
    """Weights, their average, the optimizer's moments and the counters.

    Args:
        potential: What is trained, on its device.
        optimizer: ``"soap"`` or ``"adam"``.
        lr: Its learning rate.
        ema_decay: Decay of the average of the weights.

    Attributes:
        weights: What is trained, in one tensor.
        counters: Numbers of the run.
        losses: Of the steps since the last validation.
    """

    def __init__(self, potential: Potential, optimizer: str, lr: float, ema_decay: float):
        self.potential = potential
        self.average = AveragedModel(potential, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self.weights, self._averages = FlatParameters(potential), FlatParameters(self.average.module)
        self.optimizer: Optimizer
        if optimizer == "soap":
            self.optimizer = Soap(self.weights.parameters, lr)
            self.optimizer.initialize()
        else:
            self.optimizer = torch.optim.Adam([self.weights.values], lr, fused=True)
        self._flat = optimizer != "soap"
        flat = tuple(self.weights.values.shape)
        self._optimizer_shapes = _shapes(self.optimizer) or {0: dict.fromkeys(_ADAM, flat)}
        self.counters = Counters()
        self.losses: list[Tensor] = []
        self._update = get_ema_multi_avg_fn(ema_decay)
        self._is_new = True  # no average yet

    @property
    def averaged(self) -> Potential:
        """The potential with averaged weights."""
        return self.average.module  # pyright: ignore[reportReturnType]

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """The weights and their averages."""
        return self.weights.values.detach(), self._averages.values.detach()

    def collect_gradients(self) -> Tensor:
        """Put the gradients in a row, where the optimizer looks for them, and give it: it may be changed."""
        return self.weights.collect_gradients(for_values=self._flat)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Shorten the gradient to a norm, and give the norm that it had."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return torch.nn.utils.clip_grad_norm_(trained, max_norm)

    def step(self) -> None:
        """Let the optimizer make a step, and the average follow."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_average()

    def update_average(self) -> None:
        """Let the average follow the weights; what ``AveragedModel`` does, for all of them at once."""
        with torch.no_grad():
            weights, averages = self.flat
            if self._is_new:  # n_averaged may be on a GPU, for which looking at it would wait
                averages.copy_(weights)
            else:
                self._update([averages], [weights], self.average.n_averaged)
            self.average.n_averaged += 1
            self._is_new = False

    @property
    def buffers(self) -> list[Tensor]:
        """Buffers of the potential, for instance the running mean of a BatchNorm."""
        return list(self.potential.buffers())

    def copy_buffers(self) -> None:
        """Copy the buffers of the potential to the averaged one; they are not averaged."""
        with torch.no_grad():
            for own, buffer in zip(self.averaged.buffers(), self.buffers, strict=True):
                own.copy_(buffer)

    def release(self) -> None:
        """Give each parameter memory of its own; training does not go on after it."""
        self.weights.release()
        self._averages.release()

    def save(self, path: str | os.PathLike) -> None:
        """Write all of it to a file, at once or not at all."""
        checkpoint.write(path, _KIND, {"counters": asdict(self.counters)}, self._tensors())

    def restore(self, path: str | os.PathLike) -> None:
        """Read it back.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or of another model.
        """
        header, tensors = checkpoint.read(path, _KIND)
        try:
            self.counters = _counters(header["counters"])
            self.potential.load_state_dict(_under("potential.", tensors))
            self.average.load_state_dict(_under("average.", tensors))
            self._restore_optimizer(_under("optimizer.", tensors))
            self._is_new = int(self.average.n_averaged) == 0
            self.losses = (
                list(tensors["losses"].to(self.weights.values.device).unbind()) if "losses" in tensors else []
            )
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: does not fit this model and optimizer: {error}") from None
        if not all(bool(values.isfinite().all()) for values in self.flat):
            raise ValueError(f"{path}: its weights must be finite numbers, got others; begin the run again")

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"potential.{name}": t for name, t in self.potential.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(t) for name, t in entry.items()}
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        return tensors

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor.clone()  # aligned: products round by it
        for index, entry in state.items():  # the optimizer itself checks nothing
            for name, tensor in entry.items():
                shape, wanted = tuple(tensor.shape), self._optimizer_shapes.get(index, {}).get(name)
                if name != "step" and shape != wanted:
                    raise ValueError(
                        f"the optimizer's {name!r} must have the shape {wanted}, got {shape}; an earlier "
                        "version or another optimizer wrote it: begin the run again"
                    )
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _counters(entries: dict[str, Any]) -> Counters:
    found = Counters(**entries)
    for field in fields(Counters):
        value = getattr(found, field.name)
        if type(value) not in ((int,) if field.type == "int" else (int, float)):
            kind = "a whole number" if field.type == "int" else "a number"
            raise TypeError(f"its `{field.name}` must be {kind}, got {str(value)[:40]!r}")
    return found


def _shapes(optimizer: Optimizer) -> dict[int, dict[str, tuple[int, ...]]]:
    """Give the shapes of what an optimizer keeps for each parameter; Adam has nothing before a step."""
    state = optimizer.state_dict()["state"]
    return {k: {name: tuple(t.shape) for name, t in entry.items()} for k, entry in state.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
