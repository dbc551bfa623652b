"""Structures that a model is checked on: some of the user's, and a dense cluster of copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

_CLUSTER = 96  # atoms at least: within 5 Å, three times the 32 neighbors that some programs keep
_CONTACT = 2.0  # Å between molecules of the cluster, as between hydrogen atoms in a liquid


class Samples:
    """Structures, all in float64.

    Args:
        structures: One or more, with ``z``, ``pos`` in Å and, for crystals, ``cell`` and ``pbc``.
        seed: Seed of random directions, orders and velocities.

    Attributes:
        structures: The structures in the given order.
        seed: Seed of random numbers.
        generator: Generator of random numbers.
    """

    def __init__(self, structures: Sequence[Data], seed: int = 0):
        if not structures:
            raise ValueError("`structures` must hold at least one structure, got none")
        lattice = any(is_periodic(data) for data in structures)  # items of a batch have the same fields
        self.structures = [_required_fields(data, lattice) for data in structures]
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def molecules(self) -> list[Data]:
        """Structures that are not periodic."""
        return [data for data in self.structures if not is_periodic(data)]

    @property
    def crystals(self) -> list[Data]:
        """Structures that are periodic."""
        return [data for data in self.structures if is_periodic(data)]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of all structures."""
        return torch.cat([data.z for data in self.structures]).unique().tolist()

    def with_cluster(self) -> list[Data]:
        """Return the structures and a dense cluster, whose atoms have more neighbors than in any molecule.

        Without the cluster if all structures are large molecules.
        """
        small = any(is_periodic(data) or len(data.z) < _CLUSTER for data in self.structures)
        return [*self.structures, self.dense_cluster()] if small else list(self.structures)

    def dense_cluster(self) -> Data:
        """Pack copies of the smallest structure into a cluster of about a hundred atoms, without a cell."""
        smallest = min(self.structures, key=lambda data: len(data.z))
        pos = cast(Tensor, smallest.pos)
        one = pos - pos.mean(0)
        generator = torch.Generator().manual_seed(1)
        packed = one
        while len(packed) < _CLUSTER:
            packed = torch.cat(
                [packed, _moved_to_contact(one @ random_rotation(generator), packed, generator)]
            )
        return self.molecule(smallest.z.repeat(len(packed) // len(one)), packed)

    def molecule(self, z: Tensor, pos: Tensor) -> Data:
        """Build a structure that is not periodic, with the fields of the others, for batches with them."""
        own = Data(z=z, pos=pos)
        if "cell" in self.structures[0]:
            own.cell = torch.zeros(1, 3, 3, dtype=torch.float64)
            own.pbc = torch.zeros(1, 3, dtype=torch.bool)
        return own

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers in float64."""
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)


def random_rotation(generator: torch.Generator) -> Tensor:
    """Draw a uniformly random rotation matrix, to be applied as ``pos @ rotation``."""
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    q = q * r.diagonal().sign()
    return q * q.det().sign()


def is_periodic(data: Data) -> bool:
    """Return whether any direction is periodic."""
    return "pbc" in data and bool(data.pbc.any())


def with_positions(data: Data, pos: Tensor, z: Tensor | None = None, cell: Tensor | None = None) -> Data:
    """Return a copy of a structure with other positions and, if given, atomic numbers or cell."""
    own = Data(z=data.z if z is None else z, pos=pos)
    if "cell" in data:
        own.cell = data.cell if cell is None else cell
        own.pbc = data.pbc
    return own


def diameter(pos: Tensor) -> float:
    """Return the largest distance of two atoms, in Å."""
    return float(torch.cdist(pos, pos).max()) if len(pos) > 1 else 0.0


def _required_fields(data: Data, lattice: bool) -> Data:
    own = Data(z=data.z.long(), pos=cast(Tensor, data.pos).double())
    if lattice:
        known = "cell" in data and "pbc" in data
        none = torch.zeros(1, 3, 3, dtype=torch.float64)
        own.cell = data.cell.double().reshape(1, 3, 3) if known else none
        own.pbc = data.pbc.reshape(1, 3) if known else torch.zeros(1, 3, dtype=torch.bool)
    return own


def _moved_to_contact(one: Tensor, packed: Tensor, generator: torch.Generator) -> Tensor:
    """Move a molecule along a random line through the center of a cluster until they touch."""
    direction = torch.randn(3, dtype=torch.float64, generator=generator)
    direction = direction / direction.norm()
    # An atom at p + s·direction touches one at q if |p − q + s·direction| is the contact distance.
    difference = (one[:, None] - packed[None, :]).reshape(-1, 3)
    along = difference @ direction
    beyond = _CONTACT**2 - difference.square().sum(1) + along.square()
    touching = (-along + beyond.clamp(min=0).sqrt())[beyond > 0]
    distance = float(touching.max()) if len(touching) else math.inf
    if not 0 < distance < math.inf:
        distance = diameter(packed) + diameter(one) + _CONTACT
    return one + distance * direction
