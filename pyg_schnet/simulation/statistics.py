"""Statistics of a run that may go on another day: means, and the line through the total energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from torch import Tensor


@dataclass
class Statistics:
    """Means over steps, and second moments about them, updated step by step.

    Attributes:
        count: Number of steps.
        temperature: In K.
        pressure: In GPa.
        volume: In Å³.
        step: Of their numbers.
        energy: Of total energies, in eV.
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
        """Take in a step, with its total energy."""
        self.count += 1
        part = 1 / self.count
        self.temperature += part * (temperature - self.temperature)
        self.pressure += part * (pressure - self.pressure)
        self.volume += part * (volume - self.volume)
        later, higher = step - self.step, energy - self.energy
        self.step += part * later
        self.energy += part * higher
        self.steps += later * (step - self.step)
        self.products += later * (energy - self.energy)
        self.energies += higher * (energy - self.energy)

    def of(self, place: int) -> Statistics:
        """Give those of one structure, where energies and temperatures were tensors, a value a structure."""
        values = (float(x[place]) if isinstance(x, Tensor) else x for x in astuple(self))
        return Statistics(*values)  # pyright: ignore[reportArgumentType] - `count` is a number as it was

    def drift(self, timestep: float, atoms: int) -> float | None:
        """Slope of the least-squares line through the total energy, in meV per atom and ps."""
        if self.count < 2:
            return None
        return 1e6 * self.products / self.steps / timestep / atoms

    def fluctuation(self, atoms: int) -> float | None:
        """Standard deviation of the total energy about that line, in meV per atom."""
        if self.count < 2:
            return None
        about = max(0.0, self.energies - self.products**2 / self.steps)  # below 0 by rounding
        return 1e3 * math.sqrt(about / self.count) / atoms


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
