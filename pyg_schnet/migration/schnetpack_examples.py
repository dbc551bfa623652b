"""Comparison of migrated models with energies computed by the other program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.nn.readout import AtomicSum
from pyg_schnet.nn.schnet import SchNet

_ENERGY_TOLERANCE = 5e-7  # relative; the other program may use float32: four units in the last place
_NETWORK_TOLERANCE = 1e-4  # of the network's contribution; another activation changes it by tenths


def select_agreeing(models: Iterable[SchNet], examples: Sequence[Data]) -> SchNet:
    """Return the first of several models that agrees with examples.

    Args:
        models: Candidates, which differ in the activation of the readout.
        examples: Structures with ``energy`` in the unit of the models.

    Raises:
        ValueError: If there are no examples, one has no energy, or no model agrees.
    """
    if not examples or any(getattr(one, "energy", None) is None for one in examples):
        raise ValueError("`examples` must be structures with `energy`, got none or one without")
    errors_found = []
    for model in models:
        errors, bounds = zip(*(_error(model, one) for one in examples), strict=True)
        if all(error <= bound for error, bound in zip(errors, bounds, strict=True)):
            return model
        errors_found.append(f"{max(errors):.3g} with {model.config.readout_activation}")
    raise ValueError(
        "`examples` must have the energies of SchNetPack for these weights, in its unit; those of the model "
        f"differ by up to {', '.join(errors_found)}. Give another `activation`, `readout` or `envelope`"
    )


def _error(model: SchNet, example: Data) -> tuple[float, float]:
    """Return the error of an energy, and its tolerance."""
    cell, pbc = getattr(example, "cell", None), getattr(example, "pbc", None)
    pos = example.pos
    assert isinstance(pos, Tensor)
    with torch.no_grad():
        own = float(model(example.z, pos, cell=cell, pbc=pbc, dtype=torch.float64))
    energy = float(torch.as_tensor(example.energy))
    offset = 0.0
    if isinstance(readout := model.readout, AtomicSum):
        offset = float((readout.atomref[example.z] + readout.mean).sum())
        offset /= len(pos) if model.config.readout == "mean" else 1
    return abs(own - energy), _ENERGY_TOLERANCE * abs(energy) + _NETWORK_TOLERANCE * abs(own - offset)
