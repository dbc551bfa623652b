"""What the implementations have in common: the same tensors, weights and loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Peer:
    """An implementation, ready to be timed on one task.

    Args:
        spec: Of the task: kind, forces, model; whether to compile; a variant; the device, else the CPU.
        data: An npz file, see ``inputs.py``.
        dtype: Of the network and of the positions.
        weights: An npz file with another implementation's weights, where that can be.
    """

    transplants = False  # whether the weights can be carried over to ours

    def __init__(
        self, spec: dict[str, Any], data: str, dtype: torch.dtype = torch.float32, weights: str | None = None
    ):
        self.spec, self.weights = spec, weights
        self.device = torch.device(spec.get("device", "cpu"))
        with np.load(data) as file:
            arrays = {key: torch.from_numpy(file[key]).to(self.device) for key in file}
        self.z, self.batch, self.edge_index = (arrays[key].long() for key in ("z", "batch", "edge_index"))
        self.pos, self.energy, self.forces = (
            list(arrays[key].to(dtype)) for key in ("pos", "energy", "forces")
        )
        self.molecules = len(self.energy[0])
        torch.manual_seed(0)
        self.model = self.build().to(dtype)
        if dtype == torch.float64:
            self.sharpen()
        training = spec["kind"] == "train"
        self.model.train(training).requires_grad_(training)  # nobody computes gradients that nobody wants
        self.model.to(self.device)
        self.load()

    def build(self) -> nn.Module:
        """Make the model in float32 with random weights and biases."""
        raise NotImplementedError

    def sharpen(self) -> None:
        """Replace constants that the implementation rounds to float32, so that nothing but errors is left.

        PyG's and SchNetPack's centers of the Gaussians alone make a difference of 1e-6 in the forces.
        """

    def load(self) -> None:
        """Bring the tensors into the implementation's own form, and compile where that is asked for."""
        if self.spec.get("compile"):
            self.model = torch.compile(self.model)

    def evaluate(self, pos: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute energies, and forces where the task has them, differentiable in training mode."""
        raise NotImplementedError

    def frame(self, number: int) -> tuple[Tensor, Tensor | None]:
        """Evaluate one of the frames."""
        return self.evaluate(self.pos[number])

    def save(self, path: str) -> None:
        """Write the weights, as arrays and not as a pickle."""
        np.savez(path, **{name: tensor.cpu().numpy() for name, tensor in self.model.state_dict().items()})

    def minus_gradient(self, energy: Tensor, pos: Tensor) -> Tensor:
        """Differentiate; once more in training."""
        (gradient,) = torch.autograd.grad(energy.sum(), pos, create_graph=self.model.training)
        return -gradient

    def loss(self, number: int) -> Tensor:
        """Give the paper's loss, equation (5) with its weight of 0.01 for energies; without forces 1."""
        energy, forces = self.frame(number)
        error = (energy - self.energy[number]).square().mean()
        if forces is None:
            return error
        return 0.01 * error + (forces - self.forces[number]).square().sum(-1).mean()


def shake(model: nn.Module) -> nn.Module:
    """Add noise to all weights: a bias or a last layer of zero would hide what it multiplies."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.3 / math.sqrt(max(parameter.shape[-1], 1))
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model
