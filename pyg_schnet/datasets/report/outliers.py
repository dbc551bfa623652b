"""Outliers: structures with energies or forces far from those of all others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.datasets.report.structure_statistics import StructureStatistics
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

_FEWEST = 10  # structures that are compared
_WIDTHS = 50.0  # robust standard deviations
_ENERGY, _ENERGY_OF_ANY = 1.0, 20.0  # eV/atom; within a composition, and of all structures: no bond has more
_ROUNDS = 3
_FORCE_WIDTHS, _FORCE = 8.0, 20.0  # robust standard deviations of the logarithm, and eV/Å


@dataclass(frozen=True)
class Outliers:
    """Structures far from all others.

    Attributes:
        number: Number of outliers.
        worst: Index of the farthest.
        deviation: Its deviation from the median energy in eV/atom, or its largest force component in eV/Å.
    """

    number: int
    worst: int
    deviation: float


def find_energy_outliers(statistics: StructureStatistics) -> Outliers | None:
    """Find energies far from those of the same composition, or from fitted atomic references."""
    if statistics.energy is None:
        return None
    deviation = _deviation_from_references(statistics, statistics.energy)
    order = statistics.composition.sort(stable=True).indices
    for own in order.split(statistics.frequencies().tolist()):
        if len(own) >= _FEWEST:
            values = statistics.energy[own] / statistics.atoms[own]
            values = values - values.median()
            far = values.abs() > max(_ENERGY, _WIDTHS * _robust_deviation(values))
            deviation[own] = torch.where(far, values, 0.0)
    return _outliers(deviation)


def find_force_outliers(statistics: StructureStatistics) -> Outliers | None:
    """Find structures with a force component far beyond those of all others."""
    largest = statistics.forces_largest
    if largest is None or len(largest) < _FEWEST:
        return None
    ratio = (largest.clamp(min=1e-6) / largest.median().clamp(min=1e-6)).log()
    far = (ratio > math.log(3) + _FORCE_WIDTHS * _robust_deviation(ratio)) & (largest > _FORCE)
    return _outliers(torch.where(far, largest, 0.0))


def _deviation_from_references(statistics: StructureStatistics, energy: Tensor) -> Tensor:
    """Return deviations from references fitted without outliers, in eV/atom; 0 for all but outliers."""
    kept = torch.ones(len(statistics), dtype=torch.bool)
    deviation = torch.zeros(len(statistics), dtype=torch.float64)
    if len(statistics) < _FEWEST:
        return deviation
    counts = statistics.counts[:, : MAX_ATOMIC_NUMBER + 1].double()
    for _ in range(_ROUNDS):
        frequencies = torch.bincount(statistics.composition[kept], minlength=len(counts)).double()
        total = torch.zeros_like(frequencies).index_add_(0, statistics.composition[kept], energy[kept])
        occurs = frequencies > 0
        some = Compositions(counts[occurs], frequencies[occurs], (total / frequencies)[occurs])
        residual = (
            energy - (counts @ References.fit(some).energy)[statistics.composition]
        ) / statistics.atoms
        residual = residual - residual[kept].median()
        kept = residual.abs() <= max(_ENERGY_OF_ANY, _WIDTHS * _robust_deviation(residual[kept]))
        deviation = torch.where(kept, 0.0, residual)
        if bool(kept.all()) or not bool(kept.any()):
            break
    return deviation


def _robust_deviation(values: Tensor) -> float:
    """Return the standard deviation estimated from the median absolute deviation."""
    return 1.4826 * float((values - values.median()).abs().median())


def _outliers(deviation: Tensor) -> Outliers | None:
    number = int((deviation != 0).sum())
    if number == 0:
        return None
    worst = int(deviation.abs().argmax())
    return Outliers(number, worst, float(deviation[worst]))
