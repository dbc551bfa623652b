"""The state of a training run, complete enough for a bit-exact resume."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.soap import Soap

_KIND = "training state"
_ADAM_STATE = ("exp_avg", "exp_avg_sq")


@dataclass
class Counters:
    """Progress of a run.

    Attributes:
        step: Completed steps.
        best_loss: Lowest validation loss so far.
        best_step: Step of the lowest validation loss.
        stale: Validations since then.
        seconds: Training time in seconds.
    """

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0


class FlatParameters:
    """The trained parameters of a module in one tensor, of which the parameters become views.

    A step of Adam and of a moving average on forty small tensors takes more than half a millisecond, of which
    the arithmetic is a twentieth. Adam is elementwise, so the result is the same.

    Args:
        module: A module; its parameters keep names and shapes. After a change of device or dtype they are no
            longer views.

    Attributes:
        parameters: The trained parameters.
        values: All of them in one tensor, shape ``(numbers,)``.
    """

    def __init__(self, module: nn.Module):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        with torch.no_grad():
            self.values = nn.Parameter(torch.cat([p.reshape(-1) for p in self.parameters]))
            parts = self.values.detach().split([p.numel() for p in self.parameters])
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.data = part.view_as(parameter)
        self._gradient = torch.zeros_like(self.values)

    def collect_gradients(self, for_values: bool) -> Tensor:
        """Copy the parameters' gradients into one buffer, reused at each step, and return it.

        Missing gradients, of parameters that a batch does not use, become zeros.

        Args:
            for_values: Set the buffer as the gradient of ``values``; otherwise set its parts as the gradients
                of the parameters.
        """
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self.parameters]
        torch.cat(gradients, out=self._gradient)
        parts = self._gradient.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = None if for_values else part.view_as(parameter)
        self.values.grad = self._gradient if for_values else None
        return self._gradient

    def release(self) -> None:
        """Copy each parameter into its own memory, so that a copy of one is not a copy of all."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()


class TrainingState:
    """Weights, their moving average, the optimizer's state and the counters of a run.

    Args:
        potential: The potential to train, on its device.
        optimizer: ``"soap"`` or ``"adam"``.
        lr: Initial learning rate.
        ema_decay: Decay of the exponential moving average of the weights.
        weight_decay: Decoupled weight decay.

    Attributes:
        weights: The trained weights, in one tensor.
        counters: Progress of the run.
        losses: Losses of the steps since the last validation.
    """

    def __init__(
        self, potential: Potential, optimizer: str, lr: float, ema_decay: float, weight_decay: float = 0.0
    ):
        self.potential = potential
        self.average = AveragedModel(potential, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self.weights, self._averages = FlatParameters(potential), FlatParameters(self.average.module)
        self.optimizer: Optimizer
        values = self.weights.values
        if optimizer == "soap":
            self.optimizer = Soap(self.weights.parameters, lr, weight_decay=weight_decay)
            self.optimizer.initialize()
        elif on_accelerator(values):  # learning rate and step are read there; fused Adam needs a float32
            rate = torch.full((), lr, dtype=torch.float32, device=values.device)
            options = {"weight_decay": weight_decay, "fused": True, "capturable": True}
            self.optimizer = torch.optim.AdamW([values], rate, **options)
        else:
            self.optimizer = torch.optim.AdamW([values], lr, weight_decay=weight_decay, fused=True)
        self._optimizes_values = optimizer != "soap"
        shape = tuple(self.weights.values.shape)
        self._optimizer_shapes = _shapes(self.optimizer) or {0: dict.fromkeys(_ADAM_STATE, shape)}
        self.counters = Counters()
        self.losses: list[Tensor] = []
        self._update = get_ema_multi_avg_fn(ema_decay)
        self._averaged_steps = 0

    @property
    def averaged(self) -> Potential:
        """The potential with the averaged weights."""
        return self.average.module  # pyright: ignore[reportReturnType]

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """The weights and their averages, each in one tensor."""
        return self.weights.values.detach(), self._averages.values.detach()

    def collect_gradients(self) -> Tensor:
        """Collect the gradients in the tensor that the optimizer reads, and return that tensor."""
        return self.weights.collect_gradients(for_values=self._optimizes_values)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Clip the norm of the gradient, and return the norm before."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return torch.nn.utils.clip_grad_norm_(trained, max_norm)

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the next steps, without waiting for the device."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def step(self) -> None:
        """Update the weights by the optimizer, and their average."""
        self.optimizer.step()
        self._average()
        self._count()

    def begin_captured_step(self) -> None:
        """Do on the host what a step needs before :meth:`update`."""
        if isinstance(self.optimizer, Soap):
            self.optimizer.advance()

    def update(self) -> None:
        """Update weights and average as :meth:`step` does, by the same operations on the device in each step.

        Those of the first step differ; it is done by :meth:`step`.
        """
        self.optimizer.update() if isinstance(self.optimizer, Soap) else self.optimizer.step()
        self._average()

    def end_captured_step(self) -> None:
        """Do after :meth:`update` the rest of a step, for which the host may wait for the device."""
        if isinstance(self.optimizer, Soap):
            self.optimizer.refresh()
        self._count()

    def _average(self) -> None:
        """Update the average as ``AveragedModel.update_parameters`` does, all weights at once."""
        self.optimizer.zero_grad()
        with torch.no_grad():
            weights, averages = self.flat
            if self._averaged_steps > 0:
                self._update([averages], [weights], self.average.n_averaged)
            else:
                averages.copy_(weights)

    def _count(self) -> None:
        self._averaged_steps += 1
        # Optimizer and average change one tensor, of whose versions its parts, the weights, know nothing.
        for parameter in (*self.weights.parameters, *self._averages.parameters):
            increment_version(parameter)

    @property
    def buffers(self) -> list[Tensor]:
        """Buffers of the potential, for instance running means of a BatchNorm."""
        return list(self.potential.buffers())

    def copy_buffers(self) -> None:
        """Copy the buffers of the potential, which are not averaged, to the averaged potential."""
        with torch.no_grad():
            for own, buffer in zip(self.averaged.buffers(), self.buffers, strict=True):
                own.copy_(buffer)

    def release(self) -> None:
        """Copy each parameter into its own memory, at the end of the training."""
        self.weights.release()
        self._averages.release()

    def save(self, path: str | os.PathLike) -> None:
        """Write the state to a file, atomically."""
        checkpoint.write(path, _KIND, {"counters": asdict(self.counters)}, self._tensors())

    def restore(self, path: str | os.PathLike) -> None:
        """Read the state from a file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or belongs to another model or optimizer.
        """
        header, tensors = checkpoint.read(path, _KIND)
        try:
            self.counters = _counters(header["counters"])
            self.potential.load_state_dict(_with_prefix("potential.", tensors))
            self.average.load_state_dict(_with_prefix("average.", tensors))
            self._restore_optimizer(_with_prefix("optimizer.", tensors))
            self._averaged_steps = int(self.average.n_averaged)
            self.losses = (
                list(tensors["losses"].to(self.weights.values.device).unbind()) if "losses" in tensors else []
            )
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: does not fit this model and optimizer: {error}") from None
        if not all(bool(values.isfinite().all()) for values in self.flat):
            raise ValueError(f"{path}: its weights must be finite, got NaN or infinity; start the run again")

    def _tensors(self) -> dict[str, Tensor]:
        self.average.n_averaged.fill_(self._averaged_steps)
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
            state.setdefault(int(index), {})[name] = tensor.clone()  # aligned: rounding depends on it
        for index, entry in state.items():  # the optimizer itself does not check shapes
            for name, tensor in entry.items():
                shape, expected = tuple(tensor.shape), self._optimizer_shapes.get(index, {}).get(name)
                if name != "step" and shape != expected:
                    raise ValueError(
                        f"the optimizer's {name!r} must have the shape {expected}, got {shape}; an earlier "
                        "version or another optimizer wrote it: start the run again"
                    )
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _counters(entries: dict[str, Any]) -> Counters:
    counters = Counters(**entries)
    for field in fields(Counters):
        value = getattr(counters, field.name)
        if type(value) not in ((int,) if field.type == "int" else (int, float)):
            kind = "a whole number" if field.type == "int" else "a number"
            raise TypeError(f"its `{field.name}` must be {kind}, got {str(value)[:40]!r}")
    return counters


def _shapes(optimizer: Optimizer) -> dict[int, dict[str, tuple[int, ...]]]:
    """Return the shapes of the optimizer's state by parameter; Adam has none before its first step."""
    state = optimizer.state_dict()["state"]
    return {
        k: {name: tuple(torch.as_tensor(t).shape) for name, t in entry.items()} for k, entry in state.items()
    }


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
