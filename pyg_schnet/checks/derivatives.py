"""Derivatives: forces and stresses are those of the energy, and do no work on a closed way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.result import SKIP, CheckResult
from pyg_schnet.checks.samples import Samples, moved

_COORDINATES = 24  # of each structure, drawn by chance
# Points of a closed way, for few atoms and for many: the sum over a period converges faster than any power of
# their distance.
_POINTS, _LARGE = (64, 16), 200
_AMPLITUDE = 0.05  # Å
_STRAIN = 1e-5
_WEIGHTS = torch.tensor([1, -8, 8, -1], dtype=torch.float64) / 12  # of a slope from four points


def check_forces(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare forces with differences of the energy, of four points: N2's bond is too stiff for two."""
    step, worst, largest, energy = subject.tolerance.step, 0.0, 1.0, 0.0
    for data in samples.structures:
        pos = cast(Tensor, data.pos)
        forces = subject.exact([data]).forces.flatten()
        chosen = torch.randperm(pos.numel(), generator=samples.generator)[:_COORDINATES]
        displaced = []
        for coordinate in chosen.tolist():
            for steps in (-2, -1, 1, 2):
                there = pos.clone()
                there.view(-1)[coordinate] += steps * step
                displaced.append(moved(data, there))
        energies = subject.exact(displaced).energy
        error = (forces[chosen] + energies.view(-1, 4) @ _WEIGHTS / step).abs().max()
        energy = max(energy, float(energies.abs().max()))
        worst, largest = max(worst, float(error)), max(largest, float(forces.abs().max()))
    bound = subject.tolerance.slope * largest + subject.rounding * energy / step
    note = "forces must be minus the slope of the energy; is a gradient cut, or are they predicted apart?"
    yield CheckResult.measured("forces", "finite differences", worst, bound, "eV/Å", note)


def check_stress(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare stresses with central differences of the energy by strain."""
    crystals = [data for data in samples.crystals if float(data.cell.det().abs()) > 0]
    if not crystals or not subject.is_ours:
        reason = "there are no crystals with a volume" if subject.is_ours else "only a Potential has stresses"
        yield CheckResult("stress", "", SKIP, note=reason)
        return
    worst, largest, rounding = 0.0, 1e-2, 0.0
    for data in crystals:
        volume = float(data.cell.det().abs())
        stress = cast(Tensor, subject.exact([data], stress=True).stress)[0]
        for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
            energies = []
            for sign in (1, -1):
                strain = torch.eye(3, dtype=torch.float64)
                strain[a, b] += sign * _STRAIN / 2  # both, so that the diagonal gets all
                strain[b, a] += sign * _STRAIN / 2
                pos = cast(Tensor, data.pos)
                energies.append(moved(data, pos @ strain, cell=data.cell @ strain))
            plus, minus = subject.exact(energies).energy.tolist()
            difference = (plus - minus) / (2 * _STRAIN * volume)
            worst = max(worst, abs(float(stress[a, b]) - difference))
            rounding = max(rounding, subject.rounding * abs(plus) / (_STRAIN * volume))
        largest = max(largest, float(stress.abs().max()))
    note = "the stress must be the slope of the energy by strain"
    yield CheckResult.measured(
        "stress", "finite differences", worst, 1e-6 * largest + rounding, "eV/Å³", note
    )


def check_closed_loop(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Add up the work of the forces around a closed way of all atoms; without a curl they do none."""
    worst, way = 0.0, 0.0
    for data in samples.structures:
        pos = cast(Tensor, data.pos)
        points = _POINTS[len(pos) > _LARGE]
        angles = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
        out, back = samples.random(*pos.shape), samples.random(*pos.shape)
        ways = [moved(data, pos + _AMPLITUDE * (t.cos() * out + t.sin() * back)) for t in angles]
        slopes = torch.stack([_AMPLITUDE * (t.cos() * back - t.sin() * out) for t in angles])
        forces = subject.exact(ways).forces.view(points, *pos.shape)
        work = (forces * slopes).sum((1, 2)) * (2 * math.pi / points)
        worst, way = max(worst, abs(float(work.sum()))), max(way, float(work.abs().sum()))
    bound = 1e-6 * max(1.0, way) if subject.dtype == torch.float64 else 1e-3 * max(1.0, way)
    note = (
        "forces that do work on a closed way heat or cool a simulation; do they come from one energy, and "
        "one that does not jump (smoothness)?"
    )
    yield CheckResult.measured("loop", "work", worst, bound, "eV", note)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "forces": check_forces,
    "stress": check_stress,
    "loop": check_closed_loop,
}
