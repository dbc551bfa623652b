"""Smoothness: no jump of energy or forces where atoms come into each other's sight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.result import CheckResult
from pyg_schnet.checks.samples import Samples, diameter, moved

_SPACING = 0.05  # Å between the points of a crowd's way, at first
_CLOSE = 0.02  # of a pair's, which costs little
_FINE = 2e-3  # Å; wider intervals need many parts, among which what changes smoothly does not hide a jump
_PARTS = (32, 4)  # of wider intervals, and of others
_WORST = 3  # intervals of each way that are looked at closer
_REACH = 15.0  # Å; how far atoms are drawn apart where the cutoff is not known
_LARGE = 200  # atoms; of more, a crowd alone is looked at
_NEAREST = 1.0  # Å
_SWELLING = 2.0  # Å; by how much a crowd grows, so that many pairs pass the cutoff at once


@dataclass(frozen=True)
class Way:
    """A structure whose atoms move along a line.

    Attributes:
        start: The structure.
        direction: Of all atoms, ``(atoms, 3)``.
        length: In multiples of the direction.
        spacing: Of the places where to look first.
    """

    start: Data
    direction: Tensor
    length: float
    spacing: float = _SPACING

    @property
    def places(self) -> Tensor:
        """Where to look first."""
        return torch.linspace(0, self.length, round(self.length / self.spacing) + 1, dtype=torch.float64)

    def at(self, t: float) -> Data:
        """Give the structure at a place of the way."""
        return moved(self.start, cast(Tensor, self.start.pos) + t * self.direction)


def check_smoothness(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Draw atoms apart through the cutoff, and let a crowd grow; part intervals where something jumps."""
    width = subject.tolerance.width
    rows = [(way, _intervals(subject, way)) for way in _ways(subject, samples)]
    jumps = {}
    for quantity in ("energy", "forces"):
        suspects = [
            (way, own[k])
            for way, own in rows
            for k in _excess(_jump(quantity, own)).topk(_WORST).indices.tolist()
        ]
        jumps[quantity] = _narrowed(subject, suspects, quantity, width)
    energies, slopes = (torch.cat([own[:, k] for _, own in rows]).abs() for k in (1, 2))
    note = "dynamics does not conserve an energy that jumps; is there an envelope that ends at the cutoff?"
    bound = subject.tolerance.energy + subject.tolerance.relative * float(energies.max())
    yield CheckResult.measured("smoothness", "energy", jumps["energy"], bound, "eV", note)
    note = "forces must not jump; an envelope needs no slope at the cutoff"
    bound = max(1e-6, 1e3 * width) * max(1.0, float(slopes.max()))  # forces change by some 100 eV/Å² anyway
    yield CheckResult.measured("smoothness", "forces", jumps["forces"], bound, "eV/Å", note)


def _ways(subject: ModelAdapter, samples: Samples) -> Iterator[Way]:
    reach = _REACH if subject.cutoff is None else subject.cutoff + 1
    apart = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    for pair in combinations_with_replacement(samples.elements, 2):
        yield Way(samples.cluster(torch.tensor(pair), _NEAREST * apart), apart, reach - _NEAREST, _CLOSE)
    if subject.connects_all:
        return  # where all atoms see each other anyway, there is nothing to come into sight of
    first = samples.structures[0]
    crowds = [samples.crowd()] + [first] * (len(first.z) <= _LARGE)
    for data in crowds:  # a crystal breathes without its cell
        pos = cast(Tensor, data.pos)
        yield Way(data, (pos - pos.mean(0)) / diameter(pos) if len(pos) > 1 else pos, _SWELLING)


def _along(subject: ModelAdapter, places: list[tuple[Way, float]]) -> tuple[Tensor, Tensor]:
    """Give energies and their slopes along the ways, from the forces."""
    result = subject.exact([way.at(t) for way, t in places])
    sizes = [len(way.start.z) for way, _ in places]
    parts = result.forces.split(sizes)
    slopes = [-(f * way.direction).sum() for f, (way, _) in zip(parts, places, strict=True)]
    return result.energy, torch.stack(slopes)


def _intervals(subject: ModelAdapter, way: Way) -> Tensor:
    """Give place, energy and slope of both ends of each interval of a way, ``(intervals, 6)``."""
    places = way.places
    points = torch.stack([places, *_along(subject, [(way, t) for t in places.tolist()])], dim=1)
    return torch.cat([points[:-1], points[1:]], dim=1)


def _jump(quantity: str, rows: Tensor) -> Tensor:
    """Say by how much more changes between two places than smooth functions do.

    Rows ``(…, 6)`` are place, energy and slope, of both ends. Where both are smooth, what the slopes leave
    unexplained of the energy falls with the third power of the interval, the slope's change with the first.
    """
    t0, e0, s0, t1, e1, s1 = rows.unbind(-1)
    if quantity == "forces":
        return s1 - s0
    return e1 - e0 - (t1 - t0) * (s0 + s1) / 2


def _excess(jumps: Tensor) -> Tensor:
    """Say how far each, ``(…, intervals)``, is from the cubic through the two on its either side.

    It falls with the fourth power of the interval where they are smooth, so that steep walls at short
    distances do not hide a jump at a long one. The two at each end have no such neighbors, and get zero.
    """
    a, b, here, c, d = (jumps[..., k : jumps.shape[-1] - 4 + k] for k in range(5))
    return nn.functional.pad((here + (a - 4 * b - 4 * c + d) / 6).abs(), (2, 2))


def _narrowed(
    subject: ModelAdapter, intervals: list[tuple[Way, Tensor]], quantity: str, width: float
) -> float:
    """Part intervals, each time keeping the part that is unlike the others; give the largest jump left."""
    ways = [way for way, _ in intervals]
    rows = torch.stack([row for _, row in intervals])
    while (widest := float((rows[:, 3] - rows[:, 0]).max())) > width:
        parts = _parted(subject, ways, rows, _PARTS[0] if widest > _FINE else _PARTS[1])
        jumps = _jump(quantity, parts)
        unlike = (jumps - jumps.median(dim=1, keepdim=True).values).abs()
        rows = parts[torch.arange(len(parts)), unlike.argmax(dim=1)]
    return float(_jump(quantity, rows).abs().max())


def _parted(subject: ModelAdapter, ways: list[Way], rows: Tensor, number: int) -> Tensor:
    """Part intervals ``(intervals, 6)`` into equal ones, ``(intervals, number, 6)``."""
    inner = torch.arange(1, number, dtype=torch.float64) / number
    places = rows[:, :1] + inner * (rows[:, 3:4] - rows[:, :1])
    there = [(way, t) for way, own in zip(ways, places.tolist(), strict=True) for t in own]
    found = torch.stack([places, *(x.view_as(places) for x in _along(subject, there))], dim=2)
    points = torch.cat([rows[:, None, :3], found, rows[:, None, 3:]], dim=1)
    return torch.cat([points[:, :-1], points[:, 1:]], dim=2)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {"smoothness": check_smoothness}
