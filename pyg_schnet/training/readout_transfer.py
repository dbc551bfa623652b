"""Weights that a run takes over from a model that learned other targets, or more of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from pyg_schnet.nn import AtomicSum, AtomwiseNetwork
from pyg_schnet.nn.readout import Readout
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target


def properties_of(potential: Potential) -> dict[Target, Readout]:
    """Return the properties of a potential with their readouts."""
    return dict(zip(potential.properties, cast(Any, potential.heads), strict=True))


def compare_targets(own: Sequence[Target], wanted: Sequence[Target]) -> dict[str, list[str]]:
    """Return the names of targets whose readouts are taken over, are new, or are left out.

    Args:
        own: Targets of the model to start from.
        wanted: Targets of the run. The same ones have the same name, kind and unit.
    """
    known, asked = set(map(_identity, own)), set(map(_identity, wanted))
    return {
        "taken": [target.name for target in wanted if _identity(target) in known],
        "new": [target.name for target in wanted if _identity(target) not in known],
        "left_out": [target.name for target in own if _identity(target) not in asked],
    }


def copy_body(source: Potential, to: Potential) -> None:
    """Copy embeddings and interactions of a SchNet.

    Args:
        source: Potential to copy from.
        to: Potential of the same architecture, whose readout of energies, if there is one, stays.
    """
    body = {name: x for name, x in source.model.state_dict().items() if not name.startswith("readout.")}
    to.model.load_state_dict({**to.model.state_dict(), **body})


def copy_readouts(source: Potential, to: Potential, new: Sequence[int]) -> None:
    """Copy the readouts of properties that are the same.

    Mean and scale of the copy stay, and weights of the last layer absorb the difference, so that results are
    the same: a resumed run finds mean and scale from its data.

    Args:
        source: Potential to copy from.
        to: Potential with readouts that are fitted to the data.
        new: Atomic numbers of elements that the source has not seen, whose fitted values stay.
    """
    own = {_identity(target): head for target, head in properties_of(source).items()}
    for target, head in properties_of(to).items():
        if (trained := own.get(_identity(target))) is not None:
            _copy_readout(trained, head, new)


def _copy_readout(source: Readout, to: Readout, new: Sequence[int]) -> None:
    network = cast(AtomwiseNetwork, to.network)
    network.load_state_dict(source.network.state_dict())
    if isinstance(source, AtomicSum) and isinstance(to, AtomicSum):
        with torch.no_grad():
            network.dense2.weight.mul_(source.std / to.std)
            network.dense2.bias.mul_(source.std / to.std).add_((source.mean - to.mean) / to.std)
    trained = dict(source.named_buffers(recurse=False))
    for name, buffer in to.named_buffers(recurse=False):
        fitted = buffer[new].clone() if buffer.dim() else None
        buffer.copy_(trained[name])
        if fitted is not None:
            buffer[new] = fitted


def _identity(target: Target) -> tuple[str, str | None, str | None]:
    return target.name, target.kind, target.unit
