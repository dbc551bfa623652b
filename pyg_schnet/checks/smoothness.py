"""Smoothness: energy and forces are continuous where atoms enter the cutoff."""

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
from pyg_schnet.checks.samples import Samples, diameter, with_positions

_SPACING = 0.05  # Å between the first points of a cluster's path
_PAIR_SPACING = 0.02  # Å; of a pair's path, which costs little
_FINE = 2e-3  # Å; wider intervals need many parts, so that smooth changes do not hide a jump
_PARTS = (32, 4)  # subdivisions of wider and of other intervals
_WORST = 3  # intervals of each path that are refined
_REACH = 15.0  # Å; largest distance if the cutoff is not known
_LARGE = 200  # atoms; of larger structures only the cluster is scanned
_NEAREST = 1.0  # Å
_EXPANSION = 2.0  # Å; growth of the diameter, so that many pairs pass the cutoff


@dataclass(frozen=True)
class ScanPath:
    """A path on which all atoms of a structure move along straight lines.

    Attributes:
        start: Structure at the beginning.
        direction: Displacements per unit of the path, ``(atoms, 3)``.
        length: Length of the path, in multiples of the direction.
        spacing: Distance of the first grid points.
    """

    start: Data
    direction: Tensor
    length: float
    spacing: float = _SPACING

    @property
    def grid(self) -> Tensor:
        """First grid points, ``(points,)``."""
        return torch.linspace(0, self.length, round(self.length / self.spacing) + 1, dtype=torch.float64)

    def structure_at(self, t: float) -> Data:
        """Return the structure at a point of the path."""
        return with_positions(self.start, cast(Tensor, self.start.pos) + t * self.direction)


def check_smoothness(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Separate pairs of atoms through the cutoff and expand a cluster; refine intervals with jumps."""
    width = adapter.tolerance.width
    rows = [(path, _intervals(adapter, path)) for path in _scan_paths(adapter, samples)]
    jumps = {}
    for quantity in ("energy", "forces"):
        suspects = [
            (path, own[k])
            for path, own in rows
            for k in _deviation_from_cubic(_jump(quantity, own)).topk(_WORST).indices.tolist()
        ]
        jumps[quantity] = _refine(adapter, suspects, quantity, width)
    energies, slopes = (torch.cat([own[:, k] for _, own in rows]).abs() for k in (1, 2))
    note = "dynamics does not conserve an energy that jumps; is there an envelope that is 0 at the cutoff?"
    bound = adapter.tolerance.energy + adapter.tolerance.relative * float(energies.max())
    yield CheckResult.measured("smoothness", "energy", jumps["energy"], bound, "eV", note)
    note = "forces must be continuous; the slope of the envelope must be 0 at the cutoff"
    bound = max(1e-6, 1e3 * width) * max(1.0, float(slopes.max()))  # force constants are some 100 eV/Å²
    yield CheckResult.measured("smoothness", "forces", jumps["forces"], bound, "eV/Å", note)


def _scan_paths(adapter: ModelAdapter, samples: Samples) -> Iterator[ScanPath]:
    reach = _REACH if adapter.cutoff is None else adapter.cutoff + 1
    apart = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    for pair in combinations_with_replacement(samples.elements, 2):
        yield ScanPath(
            samples.molecule(torch.tensor(pair), _NEAREST * apart), apart, reach - _NEAREST, _PAIR_SPACING
        )
    if adapter.has_no_cutoff:
        return  # no atom enters a cutoff
    first = samples.structures[0]
    clusters = [samples.dense_cluster()] + [first] * (len(first.z) <= _LARGE)
    for data in clusters:  # a crystal expands without its cell
        pos = cast(Tensor, data.pos)
        yield ScanPath(data, (pos - pos.mean(0)) / diameter(pos) if len(pos) > 1 else pos, _EXPANSION)


def _energies_and_slopes(
    adapter: ModelAdapter, places: list[tuple[ScanPath, float]]
) -> tuple[Tensor, Tensor]:
    """Return energies, and their slopes along the paths from the forces."""
    result = adapter.compute_exact([path.structure_at(t) for path, t in places])
    sizes = [len(path.start.z) for path, _ in places]
    parts = result.forces.split(sizes)
    slopes = [-(f * path.direction).sum() for f, (path, _) in zip(parts, places, strict=True)]
    return result.energy, torch.stack(slopes)


def _intervals(adapter: ModelAdapter, path: ScanPath) -> Tensor:
    """Return position, energy and slope at both ends of each interval of a path, ``(intervals, 6)``."""
    places = path.grid
    points = torch.stack(
        [places, *_energies_and_slopes(adapter, [(path, t) for t in places.tolist()])], dim=1
    )
    return torch.cat([points[:-1], points[1:]], dim=1)


def _jump(quantity: str, rows: Tensor) -> Tensor:
    """Return the change within intervals that smooth functions do not explain.

    Rows ``(…, 6)`` hold position, energy and slope at both ends. For smooth functions the difference of the
    energy and its trapezoidal estimate falls with the third power of the interval, that of the slope with the
    first.
    """
    t0, e0, s0, t1, e1, s1 = rows.unbind(-1)
    if quantity == "forces":
        return s1 - s0
    return e1 - e0 - (t1 - t0) * (s0 + s1) / 2


def _deviation_from_cubic(jumps: Tensor) -> Tensor:
    """Return the deviation of each value from the cubic through its four neighbors, ``(…, intervals)``.

    It falls with the fourth power of the interval for smooth functions, so that steep walls at short
    distances do not hide a jump at a long one. The two values at each end have no such neighbors and get 0.
    """
    a, b, here, c, d = (jumps[..., k : jumps.shape[-1] - 4 + k] for k in range(5))
    return nn.functional.pad((here + (a - 4 * b - 4 * c + d) / 6).abs(), (2, 2))


def _refine(
    adapter: ModelAdapter, intervals: list[tuple[ScanPath, Tensor]], quantity: str, width: float
) -> float:
    """Subdivide intervals, keep the part that differs most from the others, and return the largest jump."""
    paths = [path for path, _ in intervals]
    rows = torch.stack([row for _, row in intervals])
    while (widest := float((rows[:, 3] - rows[:, 0]).max())) > width:
        parts = _subdivide(adapter, paths, rows, _PARTS[0] if widest > _FINE else _PARTS[1])
        jumps = _jump(quantity, parts)
        deviation = (jumps - jumps.median(dim=1, keepdim=True).values).abs()
        rows = parts[torch.arange(len(parts)), deviation.argmax(dim=1)]
    return float(_jump(quantity, rows).abs().max())


def _subdivide(adapter: ModelAdapter, paths: list[ScanPath], rows: Tensor, number: int) -> Tensor:
    """Subdivide intervals ``(intervals, 6)`` equally, ``(intervals, number, 6)``."""
    inner = torch.arange(1, number, dtype=torch.float64) / number
    places = rows[:, :1] + inner * (rows[:, 3:4] - rows[:, :1])
    points_inside = [(path, t) for path, own in zip(paths, places.tolist(), strict=True) for t in own]
    found = torch.stack(
        [places, *(x.view_as(places) for x in _energies_and_slopes(adapter, points_inside))], dim=2
    )
    points = torch.cat([rows[:, None, :3], found, rows[:, None, 3:]], dim=1)
    return torch.cat([points[:, :-1], points[:, 1:]], dim=2)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {"smoothness": check_smoothness}
