"""Conservation of energy, measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fit_drift(total: Sequence[float], timestep: float, atoms: int) -> tuple[float, float]:
    """Fit a line to a total energy.

    Args:
        total: In eV, at every step; two at least.
        timestep: In fs.
        atoms: Number of atoms.

    Returns:
        Slope in meV per atom and ps, and standard deviation about the line in meV per atom.
    """
    energy = 1000 * (np.asarray(total) - total[0]) / atoms  # meV per atom
    energy -= energy.mean()
    time = timestep / 1000 * np.arange(len(energy))  # ps
    time -= time.mean()
    slope = (time @ energy) / (time @ time)
    return float(slope), float(np.std(energy - slope * time))
