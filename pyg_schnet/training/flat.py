"""Flat parameters: all weights in one tensor, on which optimizer and average are one operation each."""

from __future__ import annotations

import torch
from torch import nn


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

    def collect_gradients(self) -> None:
        """Put the parameters' gradients in a row, as the gradient of ``values``, and forget them."""
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self.parameters]
        self.values.grad = torch.cat(gradients, out=self._gradient)
        for parameter in self.parameters:
            parameter.grad = None

    def release(self) -> None:
        """Give each parameter memory of its own again, so that a copy of one is not one of all."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
