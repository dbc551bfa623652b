"""SchNets of other packages: names of PyG's attributes, and conversion from and to other SchNets."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch_geometric.data import Data

_Model = TypeVar("_Model", bound="Convertible")


class _Alias:
    """An attribute that can be read under another name; attributes of subclasses take precedence."""

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
    """Attributes of :class:`torch_geometric.nn.SchNet`, read-only."""

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


class Convertible(PyGNames):
    """Conversion of SchNets, by :mod:`pyg_schnet.migration`, a higher layer that is imported when needed."""

    @classmethod
    def from_pyg(
        cls: type[_Model],
        model: nn.Module | Mapping[str, Tensor] | str | os.PathLike,
        readout: str | None = None,
        dipole: bool | None = None,
        mean: float | None = None,
        std: float | None = None,
    ) -> _Model:
        """Build a model with the weights of PyG's SchNet: a model, a ``state_dict`` or a file.

        For arguments and errors, see :func:`pyg_schnet.migration.pyg.from_pyg`.
        """
        from pyg_schnet.migration.pyg import from_pyg

        return from_pyg(cls, model, readout, dipole, mean, std)  # pyright: ignore

    def to_pyg(self, scale: float | Tensor = 1.0, atomref: Tensor | None = None) -> nn.Module:
        """Build PyG's SchNet with the same weights.

        For arguments and errors, see :func:`pyg_schnet.migration.pyg.to_pyg`.
        """
        from pyg_schnet.migration.pyg import to_pyg

        return to_pyg(self, scale, atomref)  # pyright: ignore

    @classmethod
    def from_schnetpack(
        cls: type[_Model],
        weights: Mapping[str, Tensor] | str | os.PathLike,
        readout: str | None = None,
        dipole: bool = False,
        envelope: str | None = "auto",
        *,
        activation: str | None = None,
        is_extensive: bool | None = None,
        config: Mapping[str, Any] | str | os.PathLike | None = None,
        examples: Iterable[Data] | None = None,
    ) -> _Model:
        """Build a model with the weights of SchNetPack 2, 1 or 0.3: a ``state_dict`` or a file.

        For arguments and errors, see :func:`pyg_schnet.migration.schnetpack.from_schnetpack`.
        """
        from pyg_schnet.migration.schnetpack import from_schnetpack

        return from_schnetpack(  # pyright: ignore
            cls,  # pyright: ignore
            weights,
            readout,
            dipole,
            envelope,
            activation=activation,
            is_extensive=is_extensive,
            config=config,
            examples=examples,
        )
