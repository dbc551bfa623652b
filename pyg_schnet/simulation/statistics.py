"""Statistics of a run: means, and the drift of the total energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from torch import Tensor


@dataclass
class Statistics:
    """Running means over steps, and second moments about them.

    Values are numbers, or tensors with a value per structure.

    Attributes:
        count: Number of steps.
        temperature: Mean temperature in K.
        pressure: Mean pressure in GPa.
        volume: Mean volume in Å³.
        step: Mean step number.
        energy: Mean total energy in eV.
        steps: Sum of squares of step numbers about their mean.
        products: Sum of products of step numbers and energies, in eV.
        energies: Sum of squares of energies, in eV².

    Source:
        Welford, Technometrics 4, 419 (1962); sums of squares themselves would lose all digits.
    """

    count: int = 0
    temperature: float = 0.0
    pressure: float = 0.0
    volume: float = 0.0
    step: float = 0.0
    energy: float = 0.0
    steps: float = 0.0
    products: float = 0.0
    energies: float = 0.0

    def add(
        self, step: int, energy: float, temperature: float, pressure: float = 0.0, volume: float = 0.0
    ) -> None:
        """Add a step with its total energy in eV, temperature in K, pressure in GPa and volume in Å³."""
        self.count += 1
        weight = 1 / self.count
        self.temperature += weight * (temperature - self.temperature)
        self.pressure += weight * (pressure - self.pressure)
        self.volume += weight * (volume - self.volume)
        d_step, d_energy = step - self.step, energy - self.energy
        self.step += weight * d_step
        self.energy += weight * d_energy
        self.steps += d_step * (step - self.step)
        self.products += d_step * (energy - self.energy)
        self.energies += d_energy * (energy - self.energy)

    def of_structure(self, index: int) -> Statistics:
        """Return the statistics of one structure."""
        values = (float(x[index]) if isinstance(x, Tensor) else x for x in astuple(self))
        return Statistics(*values)  # pyright: ignore[reportArgumentType] - `count` is a number as it was

    def drift(self, timestep: float, atoms: int) -> float | None:
        """Compute the slope of the least-squares line through the total energy, in meV per atom and ps."""
        if self.count < 2:
            return None
        return 1e6 * self.products / self.steps / timestep / atoms

    def fluctuation(self, atoms: int) -> float | None:
        """Compute the standard deviation of the total energy about that line, in meV per atom."""
        if self.count < 2:
            return None
        residual = max(0.0, self.energies - self.products**2 / self.steps)  # below 0 by rounding
        return 1e3 * math.sqrt(residual / self.count) / atoms


def fit_drift(total: Sequence[float], timestep: float, atoms: int) -> tuple[float, float]:
    """Fit a line to a total energy.

    Args:
        total: Total energy in eV at every step, of two at least.
        timestep: Time step in fs.
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
