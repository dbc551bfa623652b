"""Structures whose energy or forces are far from those of all others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.datasets.report.structure_statistics import Survey
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

_FEWEST = 10  # structures that are compared
_WIDTHS = 50.0  # robust standard deviations
_ENERGY, _ENERGY_OF_ANY = 1.0, 20.0  # eV an atom; of one composition, and of all: no bond has more
_ROUNDS = 3
_FORCE_WIDTHS, _FORCE = 8.0, 20.0  # robust standard deviations of the logarithm, and eV/Å


@dataclass(frozen=True)
class Outliers:
    """Structures far from all others.

    Attributes:
        number: How many.
        worst: Number of the farthest.
        deviation: How far it is: of energies in eV an atom from the median, of forces in eV/Å.
    """

    number: int
    worst: int
    deviation: float


def energy_outliers(known: Survey) -> Outliers | None:
    """Find energies that are far from the others of their composition, or from fitted atomic references."""
    deviation = _from_references(known)
    order = known.composition.sort(stable=True).indices
    for own in order.split(known.frequencies().tolist()):
        if len(own) >= _FEWEST:
            values = known.energy[own] / known.atoms[own]
            values = values - values.median()
            far = values.abs() > max(_ENERGY, _WIDTHS * _width(values))
            deviation[own] = torch.where(far, values, 0.0)
    return _outliers(deviation)


def force_outliers(known: Survey) -> Outliers | None:
    """Find structures with a component of the forces that is far beyond those of the others."""
    largest = known.forces_largest
    if largest is None or len(largest) < _FEWEST:
        return None
    ratio = (largest.clamp(min=1e-6) / largest.median().clamp(min=1e-6)).log()
    far = (ratio > math.log(3) + _FORCE_WIDTHS * _width(ratio)) & (largest > _FORCE)
    return _outliers(torch.where(far, largest, 0.0))


def _from_references(known: Survey) -> Tensor:
    """Return deviations from references that are fitted without the outliers, 0 for all that are near."""
    kept = torch.ones(len(known), dtype=torch.bool)
    deviation = torch.zeros(len(known), dtype=torch.float64)
    if len(known) < _FEWEST:
        return deviation
    counts = known.counts[:, : MAX_ATOMIC_NUMBER + 1].double()
    for _ in range(_ROUNDS):
        frequencies = torch.bincount(known.composition[kept], minlength=len(counts)).double()
        total = torch.zeros_like(frequencies).index_add_(0, known.composition[kept], known.energy[kept])
        there = frequencies > 0
        some = Compositions(counts[there], frequencies[there], (total / frequencies)[there])
        residual = (known.energy - (counts @ References.fit(some).energy)[known.composition]) / known.atoms
        residual = residual - residual[kept].median()
        kept = residual.abs() <= max(_ENERGY_OF_ANY, _WIDTHS * _width(residual[kept]))
        deviation = torch.where(kept, 0.0, residual)
        if bool(kept.all()) or not bool(kept.any()):
            break
    return deviation


def _width(values: Tensor) -> float:
    """Return the standard deviation by the median of the deviations, which outliers do not move."""
    return 1.4826 * float((values - values.median()).abs().median())


def _outliers(deviation: Tensor) -> Outliers | None:
    number = int((deviation != 0).sum())
    if number == 0:
        return None
    worst = int(deviation.abs().argmax())
    return Outliers(number, worst, float(deviation[worst]))
