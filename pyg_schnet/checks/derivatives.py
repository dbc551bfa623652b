"""Derivatives: forces and stresses are gradients of the energy, and do no work on a closed path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.result import SKIP, CheckResult
from pyg_schnet.checks.samples import Samples, with_positions

_COORDINATES = 24  # of each structure, chosen at random
# Points of a closed path, for up to 200 atoms and for more: the sum over a period converges faster than any
# power of their distance.
_POINTS, _LARGE = (64, 16), 200
_AMPLITUDE = 0.05  # Å
_STRAIN = 1e-5
_WEIGHTS = torch.tensor([1, -8, 8, -1], dtype=torch.float64) / 12  # of the four-point central difference


def check_forces(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare forces with four-point differences of the energy; for N2 two points are not accurate enough."""
    step, worst, largest, energy = adapter.tolerance.step, 0.0, 1.0, 0.0
    for data in samples.structures:
        pos = cast(Tensor, data.pos)
        forces = adapter.compute_exact([data]).forces.flatten()
        chosen = torch.randperm(pos.numel(), generator=samples.generator)[:_COORDINATES]
        displaced = []
        for coordinate in chosen.tolist():
            for steps in (-2, -1, 1, 2):
                shifted = pos.clone()
                shifted.view(-1)[coordinate] += steps * step
                displaced.append(with_positions(data, shifted))
        energies = adapter.compute_exact(displaced).energy
        error = (forces[chosen] + energies.view(-1, 4) @ _WEIGHTS / step).abs().max()
        energy = max(energy, float(energies.abs().max()))
        worst, largest = max(worst, float(error)), max(largest, float(forces.abs().max()))
    bound = adapter.tolerance.slope * largest + adapter.rounding * energy / step
    note = "forces must be minus the gradient of the energy; is a gradient detached, or are they predicted?"
    yield CheckResult.measured("forces", "finite differences", worst, bound, "eV/Å", note)


def check_stress(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare stresses with central differences of the energy with respect to strain."""
    crystals = [data for data in samples.crystals if float(data.cell.det().abs()) > 0]
    if not crystals or not adapter.is_potential:
        reason = (
            "there are no crystals with a volume" if adapter.is_potential else "only a Potential has stresses"
        )
        yield CheckResult("stress", "", SKIP, note=reason)
        return
    worst, largest, rounding = 0.0, 1e-2, 0.0
    for data in crystals:
        volume = float(data.cell.det().abs())
        stress = cast(Tensor, adapter.compute_exact([data], stress=True).stress)[0]
        for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
            energies = []
            for sign in (1, -1):
                strain = torch.eye(3, dtype=torch.float64)
                strain[a, b] += sign * _STRAIN / 2  # twice on the diagonal
                strain[b, a] += sign * _STRAIN / 2
                pos = cast(Tensor, data.pos)
                energies.append(with_positions(data, pos @ strain, cell=data.cell @ strain))
            plus, minus = adapter.compute_exact(energies).energy.tolist()
            difference = (plus - minus) / (2 * _STRAIN * volume)
            worst = max(worst, abs(float(stress[a, b]) - difference))
            rounding = max(rounding, adapter.rounding * abs(plus) / (_STRAIN * volume))
        largest = max(largest, float(stress.abs().max()))
    note = "the stress must be the derivative of the energy with respect to strain, divided by the volume"
    yield CheckResult.measured(
        "stress", "finite differences", worst, 1e-6 * largest + rounding, "eV/Å³", note
    )


def check_closed_loop(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Integrate the work of the forces along a closed path of all atoms; conservative forces do none."""
    worst, total = 0.0, 0.0
    for data in samples.structures:
        pos = cast(Tensor, data.pos)
        points = _POINTS[len(pos) > _LARGE]
        angles = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
        cosine, sine = samples.normal(*pos.shape), samples.normal(*pos.shape)
        path = [with_positions(data, pos + _AMPLITUDE * (t.cos() * cosine + t.sin() * sine)) for t in angles]
        tangents = torch.stack([_AMPLITUDE * (t.cos() * sine - t.sin() * cosine) for t in angles])
        forces = adapter.compute_exact(path).forces.view(points, *pos.shape)
        work = (forces * tangents).sum((1, 2)) * (2 * math.pi / points)
        worst, total = max(worst, abs(float(work.sum()))), max(total, float(work.abs().sum()))
    bound = (1e-6 if adapter.dtype == torch.float64 else 1e-3) * max(1.0, total)
    note = (
        "forces that do work on a closed path heat or cool a simulation; are they the gradient of one "
        "energy, and is that continuous (smoothness)?"
    )
    yield CheckResult.measured("loop", "work", worst, bound, "eV", note)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "forces": check_forces,
    "stress": check_stress,
    "loop": check_closed_loop,
}
