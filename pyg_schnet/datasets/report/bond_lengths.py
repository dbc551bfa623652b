"""Bond lengths relative to covalent radii, and stiffness of bonds to hydrogen: evidence for the units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from ase.data import covalent_radii
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import sizes, stream
from pyg_schnet.graph.neighbors import neighbor_list

_MOST = 500  # structures, evenly spaced over the set
_MOST_PAIRS, _MOST_PERIODIC_PAIRS = 2**20, 2**18  # in total; a tenth of a second
_REACH = 10.0  # Å; cutoff of the neighbor search in crystals
_NOBLE = (2, 10, 18, 36, 54, 86)  # not bonded
_SOFT = (
    3,
    4,
    11,
    12,
    19,
    20,
    37,
    38,
    55,
    56,
    87,
    88,
)  # ions and metals, whose distances halve under pressure
_HEAVIEST = 96  # with a covalent radius
_BONDED = (0.68, 1.4)  # of the sum of the radii; N2 has 0.77, lead 1.20; iron in the Earth's core 0.83
_NARROW = 1.7  # ratio of longest to shortest bonds; 1.3 in organic molecules, more in scans of distances
# eV/Å², of the harmonic stretching of C-H, N-H and O-H; 27 to 35, 42 and 34 to 47 in MD at 300 to 500 K.
_STIFFNESS = {6: 31.0, 7: 41.0, 8: 44.0}
_STRETCHED = 1.3  # of the usual length; beyond, the hydrogen is not bonded
_FEWEST_ATOMS, _FEWEST_BONDS, _CORRELATION = 30, 100, -0.8


@dataclass(frozen=True)
class Bonding:
    """Bonds of structures, in the units in which they were read.

    Attributes:
        length: Median distance of an atom to its nearest neighbor, relative to the sum of their covalent
            radii: 0.9 to 1.2 in molecules and solids. ``None`` where it is no evidence: noble gases, hydrogen
            alone, single atoms and dimers.
        is_possible: Whether nearly all atoms can be bonded at such distances; true for few atoms, and if
            ``length`` is ``None``.
        stiffness: Force constant of bonds to hydrogen relative to the usual one, near 1; ``None`` for too few
            bonds or without forces.
    """

    length: float | None
    is_possible: bool
    stiffness: float | None


def measure_bonding(dataset: MoleculeDataset, periodic: Tensor) -> Bonding:
    """Measure distances of nearest neighbors, and forces on hydrogen along its bonds.

    Args:
        dataset: Data set; its ``transform`` is not applied.
        periodic: Which structures are periodic, shape ``(structures,)``.
    """
    parts = [_nearest(data) for data in _sample(dataset, periodic)]
    if not parts:
        return Bonding(None, True, None)
    ratio, is_soft, element, length, force = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(ratio) == 0:
        return Bonding(None, True, None)
    typical = float(ratio.median())
    return Bonding(typical, _is_possible(ratio, is_soft), _stiffness(element, length, force))


def _is_possible(ratio: Tensor, is_soft: Tensor) -> bool:
    if len(ratio) < _FEWEST_ATOMS:
        return True
    lowest, highest = _BONDED
    low, high = _range(ratio)
    if low > highest and high < _NARROW * low:
        return False
    hard = ratio[~is_soft]
    if len(hard) < _FEWEST_ATOMS:
        return True
    low, high = _range(hard)
    return not (high < lowest and high < _NARROW * low)


def _range(ratio: Tensor) -> tuple[float, float]:
    """Return the 10 % and 90 % quantiles."""
    ordered = ratio.sort().values
    return float(ordered[len(ordered) // 10]), float(ordered[(9 * len(ordered)) // 10])


def _stiffness(element: Tensor, length: Tensor, force: Tensor) -> float | None:
    """Fit the force on hydrogen to the length of its bond, for all bonded elements together."""
    lengths, forces = [], []
    for number, usual in _STIFFNESS.items():
        own = element == number
        if int(own.sum()) > 1:
            near = own & (length < _STRETCHED * length[own].median())
            lengths.append(length[near] - length[near].mean())
            forces.append((force[near] - force[near].mean()) / usual)
    if not lengths or sum(map(len, lengths)) < _FEWEST_BONDS:
        return None
    x, y = torch.cat(lengths), torch.cat(forces)
    norm = float(x.norm() * y.norm())
    if norm == 0 or float(x @ y) > _CORRELATION * norm:
        return None
    return -float(x @ y) / float(x @ x)


def _sample(dataset: MoleculeDataset, periodic: Tensor) -> Iterator[Data]:
    """Yield evenly spaced structures, molecules in batches and crystals one by one."""
    size = sizes(dataset)
    for wanted, most in ((~periodic & (size > 2), _MOST_PAIRS), (periodic, _MOST_PERIODIC_PAIRS)):
        numbers = (wanted & (size.square() <= most)).nonzero().flatten()
        pairs = int(size[numbers].square().sum())
        numbers = numbers[:: max(1, -(-len(numbers) // _MOST), -(-pairs // most))]
        parts = numbers.split(1) if wanted is periodic else [numbers]
        for part in parts:
            yield from (batch for _, batch in stream(dataset, ("pos", "forces", "cell", "pbc"), part))


def _nearest(batch: Data) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return ratios of nearest neighbors, which are soft, and element, length and force of bonds to H."""
    z, molecule, pos = (
        cast(Tensor, batch.z).long(),
        cast(Tensor, batch.batch),
        cast(Tensor, batch.pos).double(),
    )
    source, target, vector = _pairs(batch, pos)
    kept = _has_typical_bonds(z, molecule)[molecule[target]]
    source, target, vector = source[kept], target[kept], vector[kept]
    distance = vector.norm(dim=1)
    radius = torch.from_numpy(covalent_radii)[z.clamp(max=_HEAVIEST)]
    ratio = distance / (radius[source] + radius[target])
    least = torch.full((len(z),), float("inf"), dtype=torch.float64).scatter_reduce_(0, target, ratio, "amin")
    near = (ratio == least[target]).nonzero().flatten()
    source, target, ratio = source[near], target[near], ratio[near]
    soft = torch.isin(z, torch.tensor(_SOFT))
    is_soft = soft[source] | soft[target]
    if "forces" not in batch:
        nothing = pos.new_empty(0)
        return ratio, is_soft, nothing.long(), nothing, nothing
    bond = (z[target] == 1) & (z[source] != 1)
    length = distance[near][bond]
    along = (cast(Tensor, batch.forces)[target[bond]] * vector[near][bond]).sum(1) / length
    return ratio, is_soft, z[source[bond]], length, along


def _has_typical_bonds(z: Tensor, molecule: Tensor) -> Tensor:
    """Return which structures have bonds that covalent radii describe."""
    structures = int(molecule[-1]) + 1
    is_odd = torch.isin(z, torch.tensor(_NOBLE)) | (z < 1) | (z > _HEAVIEST)
    odd, heavy = (torch.bincount(molecule[which], minlength=structures) for which in (is_odd, z > 1))
    return (odd == 0) & (heavy > 0)


def _pairs(batch: Data, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges between possible nearest neighbors, and the vectors from source to target."""
    if "pbc" in batch and bool(batch.pbc.any()):
        cell = batch.cell.double()
        room = 2 * (float(cell[0].det().abs()) / len(pos)) ** (
            1 / 3
        )  # in crystals, half of it is the nearest
        reach = min(room or _REACH, _REACH)
        (source, target), shift = neighbor_list(pos, reach, batch.batch, cell, batch.pbc)
        return source, target, pos[target] - pos[source] - shift.double() @ cell[0]
    ptr, pairs = cast(Tensor, batch.ptr), []
    for size in ptr.diff().unique().tolist():
        first = ptr[:-1][ptr.diff() == size]
        own = (~torch.eye(size, dtype=torch.bool)).nonzero().T  # (2, pairs of a molecule)
        pairs.append((first[:, None] + own[:, None]).flatten(1))
    source, target = torch.cat(pairs, dim=1)
    return source, target, pos[target] - pos[source]
