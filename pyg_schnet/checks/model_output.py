"""Output of a model: energies and forces, or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """Energies, forces and stresses of a batch.

    Attributes:
        energy: ``(structures,)``, in eV and float64.
        forces: ``(atoms, 3)``, in eV/Å and float64.
        stress: ``(structures, 3, 3)``, in eV/Å³; ``None`` unless requested.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None


class ModelError(Exception):
    """An exception that the model raised, or output of a wrong kind."""


class NotFiniteError(ModelError):
    """Energies or forces that are not finite."""


def gradient(energy: Tensor, pos: Tensor) -> Tensor:
    """Compute the gradient of an energy by positions; zero if it does not depend on them (a single atom)."""
    if not energy.requires_grad:
        return torch.zeros_like(pos)
    (gradient,) = torch.autograd.grad(energy, pos, allow_unused=True)
    return torch.zeros_like(pos) if gradient is None else gradient


def parse_model_output(out: Any) -> tuple[Tensor, Tensor | None]:
    """Return energy and forces from the output of a model; ``None`` for forces that it does not return.

    Raises:
        ModelError: If there is no tensor of energies.
    """
    forces = None
    if isinstance(out, dict):
        if "energy" not in out:
            raise ModelError(
                f"it returned a dictionary without 'energy', with keys {', '.join(map(repr, out))}"
            )
        out, forces = out["energy"], out.get("forces")
    elif isinstance(out, list | tuple):
        out, forces = out[0], (out[1] if len(out) > 1 else None)
    if not isinstance(out, Tensor):
        raise ModelError(f"it returned {type(out).__name__}, expected a tensor of energies")
    return out, forces
