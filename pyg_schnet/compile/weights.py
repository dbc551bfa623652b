"""Weights of a potential, and whether it still computes the same function of them."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pyg_schnet.nn.snapshot import ModuleSnapshot, why_unsupported

if TYPE_CHECKING:
    from pyg_schnet.nn import SchNet
    from pyg_schnet.potentials.potential import Potential


class Weights:
    """Parameters and buffers of a potential, found without traversing its modules again.

    Args:
        potential: A potential whose model is a SchNet.

    Attributes:
        names: Names of the tensors, parameters first.
        parameters: Number of parameters.
        key: Equal for potentials that compute the same function of their tensors, of which all have the same
            types and shapes.
        unknown: Why this function is not compiled, in one line; ``None`` if it may be.
    """

    def __init__(self, potential: Potential):
        modules = {"model": potential.model, **({"heads": potential.heads} if potential.properties else {})}
        self._snapshot = ModuleSnapshot(modules, around=[potential])
        self._root = potential._modules
        parameters = {name: True for name, _ in potential.named_parameters()}
        self.names = [*parameters, *(name for name, _ in potential.named_buffers())]
        self.parameters = len(parameters)
        self._slots: list[tuple[dict[str, Any], str]] = []
        for name in self.names:
            path, _, own = name.rpartition(".")
            module = potential.get_submodule(path)
            self._slots.append((module._parameters if name in parameters else module._buffers, own))
        tensors = self.tensors()
        self._kinds = [*map(_kind, tensors)]
        self._none = [None] * len(tensors)
        self.key: Hashable = (
            type(potential),
            self._snapshot.key,
            self.parameters,
            *zip(self.names, self._kinds, strict=True),
        )
        self.unknown = (
            why_unsupported(type(potential), "")
            or self._snapshot.unsupported
            or _unsupported_reason(potential)
        )

    def tensors(self) -> list[Tensor]:
        """Return the present tensors."""
        return [tensors[name] for tensors, name in self._slots]

    def tensors_of(self, potential: Potential, thoroughly: bool) -> list[Tensor] | None:
        """Return the present tensors; ``None`` if the structure of the potential has changed."""
        if potential._modules is not self._root or not self._snapshot.is_current(thoroughly):
            return None
        try:
            tensors = self.tensors()
        except KeyError:  # a module no longer has one
            return None
        return None if any(map(operator.is_, tensors, self._none)) else tensors

    def fit(self, tensors: list[Tensor]) -> bool:
        """Return whether tensors have the same types and shapes as at construction."""
        return [*map(_kind, tensors)] == self._kinds


def result_names(potential: Potential, forces: bool) -> list[str]:
    """Return the names of the results of a potential's programs, in order."""
    energy = ["energy", *(["forces"] if forces else [])] if potential.has_energy else []
    return [*energy, *(target.name for target in potential.properties)]


def _kind(tensor: Tensor | None) -> tuple | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)


def _unsupported_reason(potential: Potential) -> str | None:
    seen: set[int] = set()
    for module in potential.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and id(tensor) in seen:
                return "one tensor is the weight of two modules, which is not compiled"
            seen.add(id(tensor))
    model = cast("SchNet", potential.model)
    dtype = model.embedding.weight.dtype
    if model.filters == "exact":
        return "filters='exact' is not compiled"
    if model.filters == "auto" and dtype != torch.float32:
        return f"filters='auto' is exact in {dtype}, which is not compiled; use filters='spline'"
    if not model.filter_tables.supports(model):
        return "its filter networks have no splines"
    return (
        None if model.filter_tables.features(model).known else "its radial basis or envelope has no splines"
    )
