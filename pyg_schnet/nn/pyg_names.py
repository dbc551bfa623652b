"""Names of PyG's SchNet that ours has elsewhere."""

from __future__ import annotations

import operator
from typing import Any


class _Alias:
    """An attribute that can be read under another name; attributes of subclasses go first."""

    def __init__(self, path: str):
        self._read = operator.attrgetter(path)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is None:
            return self
        for kind in ("_modules", "_parameters", "_buffers"):
            if self._name in model.__dict__[kind]:
                return model.__dict__[kind][self._name]
        return self._read(model)


class PyGNames:
    """Attributes of :class:`torch_geometric.nn.SchNet`, to be read."""

    hidden_channels = _Alias("config.hidden_channels")
    num_filters = _Alias("config.num_filters")
    num_interactions = _Alias("config.num_interactions")
    num_gaussians = _Alias("config.num_gaussians")
    cutoff = _Alias("config.cutoff")
    dipole = _Alias("config.dipole")
    mean = _Alias("config.mean")
    std = _Alias("config.std")
    distance_expansion = _Alias("radial_basis")
    lin1 = _Alias("readout.network.dense1")
    act = _Alias("readout.network.activation")
    lin2 = _Alias("readout.network.dense2")
