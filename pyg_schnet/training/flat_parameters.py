"""Flat parameters: all weights in one tensor, on which optimizer and average are one operation each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """Moves the trained parameters of a module into one tensor, of which they become parts.

    A step of Adam and of a moving average on forty small tensors costs more than half a millisecond, of which
    the arithmetic is a twentieth. Adam treats each number by itself, so that nothing else changes.

    Args:
        module: Its parameters keep names and shapes; after a change of device or type they are parts no more.

    Attributes:
        values: All weights, for the optimizer.
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
        """Move the parameters' gradients into a row, which is used again at the next step, and give it.

        Those of what a batch does not use are zeros.

        Args:
            for_values: Whether it is the gradient of ``values`` then, or its parts those of the parameters.
        """
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self.parameters]
        torch.cat(gradients, out=self._gradient)
        parts = self._gradient.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = None if for_values else part.view_as(parameter)
        self.values.grad = self._gradient if for_values else None
        return self._gradient

    def release(self) -> None:
        """Give each parameter memory of its own again, so that a copy of one is not one of all."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
