"""The structures that a model is examined on: some of the user's, and a crowd made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

_CROWD = 96  # atoms at least: with three neighbors in 5 Å for each that some programs keep (32)
_CONTACT = 2.0  # Å between molecules of a crowd, as between hydrogen atoms in a liquid


class Samples:
    """Structures, all in float64.

    Args:
        structures: One or more, with ``z``, ``pos`` in Å and, of crystals, ``cell`` and ``pbc``.
        seed: Of random directions.

    Attributes:
        structures: As they came.
        seed: Of random numbers.
        generator: Of random numbers.
    """

    def __init__(self, structures: Sequence[Data], seed: int = 0):
        if not structures:
            raise ValueError("`structures` must hold at least one structure, got none")
        lattice = any(is_periodic(data) for data in structures)  # items of a batch have the same fields
        self.structures = [_bare(data, lattice) for data in structures]
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def molecules(self) -> list[Data]:
        """Those that are not periodic."""
        return [data for data in self.structures if not is_periodic(data)]

    @property
    def crystals(self) -> list[Data]:
        """Those that are periodic."""
        return [data for data in self.structures if is_periodic(data)]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of all structures."""
        return torch.cat([data.z for data in self.structures]).unique().tolist()

    def with_crowd(self) -> list[Data]:
        """Give the structures and a crowd, in which each atom has more neighbors than in any molecule.

        Where all structures are large molecules, the smallest is crowd enough.
        """
        small = any(is_periodic(data) or len(data.z) < _CROWD for data in self.structures)
        return [*self.structures, self.crowd()] if small else list(self.structures)

    def crowd(self) -> Data:
        """Pack copies of the smallest structure until there are a hundred atoms, without a lattice."""
        smallest = min(self.structures, key=lambda data: len(data.z))
        pos = cast(Tensor, smallest.pos)
        one = pos - pos.mean(0)
        generator = torch.Generator().manual_seed(1)
        packed = one
        while len(packed) < _CROWD:
            packed = torch.cat([packed, _touching(one @ rotation(generator), packed, generator)])
        return self.cluster(smallest.z.repeat(len(packed) // len(one)), packed)

    def cluster(self, z: Tensor, pos: Tensor) -> Data:
        """Make a structure that is not periodic, for a batch with the others."""
        own = Data(z=z, pos=pos)
        if "cell" in self.structures[0]:
            own.cell = torch.zeros(1, 3, 3, dtype=torch.float64)
            own.pbc = torch.zeros(1, 3, dtype=torch.bool)
        return own

    def random(self, *shape: int) -> Tensor:
        """Draw normal numbers in float64."""
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)


def rotation(generator: torch.Generator) -> Tensor:
    """Draw a rotation, uniformly: ``pos @ rotation`` turns."""
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    q = q * r.diagonal().sign()
    return q * q.det().sign()


def is_periodic(data: Data) -> bool:
    """Whether any direction is periodic."""
    return "pbc" in data and bool(data.pbc.any())


def moved(data: Data, pos: Tensor, z: Tensor | None = None, cell: Tensor | None = None) -> Data:
    """Give a structure with other positions."""
    own = Data(z=data.z if z is None else z, pos=pos)
    if "cell" in data:
        own.cell = data.cell if cell is None else cell
        own.pbc = data.pbc
    return own


def diameter(pos: Tensor) -> float:
    """Give the largest distance of two atoms, in Å."""
    return float(torch.cdist(pos, pos).max()) if len(pos) > 1 else 0.0


def _bare(data: Data, lattice: bool) -> Data:
    own = Data(z=data.z.long(), pos=cast(Tensor, data.pos).double())
    if lattice:
        known = "cell" in data and "pbc" in data
        none = torch.zeros(1, 3, 3, dtype=torch.float64)
        own.cell = data.cell.double().reshape(1, 3, 3) if known else none
        own.pbc = data.pbc.reshape(1, 3) if known else torch.zeros(1, 3, dtype=torch.bool)
    return own


def _touching(one: Tensor, packed: Tensor, generator: torch.Generator) -> Tensor:
    """Bring a molecule to a cluster along a random line through its middle, until they touch."""
    direction = torch.randn(3, dtype=torch.float64, generator=generator)
    direction = direction / direction.norm()
    # An atom at p + s·direction touches one at q where |p − q + s·direction| is the contact.
    difference = (one[:, None] - packed[None, :]).reshape(-1, 3)
    along = difference @ direction
    beyond = _CONTACT**2 - difference.square().sum(1) + along.square()
    touching = (-along + beyond.clamp(min=0).sqrt())[beyond > 0]
    distance = float(touching.max()) if len(touching) else math.inf
    if not 0 < distance < math.inf:
        distance = diameter(packed) + diameter(one) + _CONTACT
    return one + distance * direction
