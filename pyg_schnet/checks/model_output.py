"""What a model answers: energies and forces, or what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """What a model says of a batch.

    Attributes:
        energy: ``(structures,)``, in eV and float64.
        forces: ``(atoms, 3)``, in eV/Å and float64.
        stress: ``(structures, 3, 3)``, in eV/Å³, where it was asked for.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None


class ModelError(Exception):
    """What the model raised, or what is wrong with that which it returned."""


class NotFinite(ModelError):
    """Energies or forces that are no numbers."""


def gradient(energy: Tensor, pos: Tensor) -> Tensor:
    """Give the slope of an energy; it is zero where the positions do not enter, as of a single atom."""
    if not energy.requires_grad:
        return torch.zeros_like(pos)
    (gradient,) = torch.autograd.grad(energy, pos, allow_unused=True)
    return torch.zeros_like(pos) if gradient is None else gradient


def parts_of(out: Any) -> tuple[Tensor, Tensor | None]:
    """Take energy and, where the model gives them, forces from what it returned."""
    forces = None
    if isinstance(out, dict):
        if "energy" not in out:
            raise ModelError(f"it returned a dictionary without 'energy', with {', '.join(map(repr, out))}")
        out, forces = out["energy"], out.get("forces")
    elif isinstance(out, list | tuple):
        out, forces = out[0], (out[1] if len(out) > 1 else None)
    if not isinstance(out, Tensor):
        raise ModelError(f"it returned {type(out).__name__}, where a tensor of energies is expected")
    return out, forces
