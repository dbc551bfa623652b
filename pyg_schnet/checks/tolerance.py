"""How much may differ by rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """How much may differ by rounding, and how far a difference quotient steps.

    Attributes:
        energy: In eV, beside ``relative``.
        forces: In eV/Å, beside ``relative``.
        relative: To the largest energy, or force.
        slope: Of a difference quotient, relative to the largest force, or 1 eV/Å.
        step: Of a difference quotient, in Å.
        width: Of the interval in which a jump is looked for, in Å.
    """

    energy: float
    forces: float
    relative: float
    slope: float
    step: float
    width: float


# Measured on trained models: 1e-12 eV and eV/Å, difference quotients 5e-7. In float32 1e-6 of the energies.
TOLERANCES = {
    torch.float64: Tolerance(1e-8, 1e-8, 1e-11, 1e-6, 1e-4, 1e-9),
    torch.float32: Tolerance(1e-4, 1e-3, 1e-5, 2e-2, 1e-2, 1e-3),
}
