"""Fingerprints of structures: equal for copies, by which they are found among millions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

# Odd constants of splitmix64 (Steele, Lea, Flood 2014) as signed integers; products wrap around.
_MULTIPLIERS = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
_ORDER = 3202034522624059733


def fingerprints(batch: Data) -> Tensor:
    """Compute a 64-bit number for each molecule from its atomic numbers and the bits of its positions.

    Two molecules that differ anywhere, in the order of their atoms too, have the same one with a
    probability of 2⁻⁶⁴.

    Args:
        batch: With ``z``, ``pos``, ``batch`` and ``ptr``.

    Returns:
        Shape ``(molecules,)``, int64.
    """
    molecule, ptr = cast(Tensor, batch.batch), cast(Tensor, batch.ptr)
    place = torch.arange(len(molecule), device=molecule.device) - ptr[molecule]
    bits = (cast(Tensor, batch.pos).double() + 0.0).view(torch.int64)  # + 0.0: no negative zeros
    code = _mixed(place * _ORDER + cast(Tensor, batch.z))
    for axis, multiplier in enumerate(_MULTIPLIERS):
        code = _mixed((code ^ bits[:, axis]) * multiplier)
    total = torch.zeros(len(ptr) - 1, dtype=torch.int64, device=molecule.device)
    return total.index_add_(0, molecule, code)


def _mixed(code: Tensor) -> Tensor:
    code = (code ^ (code >> 30)) * _MULTIPLIERS[1]
    code = (code ^ (code >> 27)) * _MULTIPLIERS[2]
    return code ^ (code >> 31)
