"""Weights of a potential: where they are, and whether they are still those of the same modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Weights:
    """Finds the parameters, then the buffers, of a potential; walking through its modules takes longer.

    Args:
        potential: The potential; its tensors may change, its modules may not.
    """

    def __init__(self, potential: nn.Module):
        parameters = {name: True for name, _ in potential.named_parameters()}
        self.names = [*parameters, *(name for name, _ in potential.named_buffers())]
        self.parameters = len(parameters)
        self._slots: list[tuple[dict[str, Any], str]] = []
        for name in self.names:
            path, _, own = name.rpartition(".")
            module = potential.get_submodule(path)
            self._slots.append((module._parameters if name in parameters else module._buffers, own))
        self._kinds = [_kind(tensor) for tensor in self.tensors()]
        modules = list(potential.modules())
        self._children = [(m._modules, dict(m._modules)) for m in modules if m._modules]
        self._hooks = [
            h for m in modules for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        ]

    def tensors(self) -> list[Tensor]:
        """Give what they are now."""
        return [tensors[name] for tensors, name in self._slots]

    def are_of(self, potential: nn.Module) -> bool:
        """Whether the potential has the same modules, without hooks, and the same types and shapes, still."""
        return (
            all(now == before for now, before in self._children)
            and not any(self._hooks)
            and [*map(_kind, self.tensors())] == self._kinds
        )


def _kind(tensor: Tensor | None) -> tuple | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)
