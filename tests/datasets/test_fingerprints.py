"""Fingerprints are equal for copies, and for nothing else."""

import torch
from torch_geometric.data import Batch, Data

from pyg_schnet.datasets.splits import fingerprints


def of(*items):
    return fingerprints(Batch.from_data_list(list(items)))


def water(**changes):
    values = {"z": torch.tensor([8, 1, 1]), "pos": torch.eye(3, dtype=torch.float64), **changes}
    return Data(**values)


def test_copies_are_equal_wherever_they_stand():
    methane = Data(z=torch.tensor([6, 1]), pos=torch.ones(2, 3).double())
    first, _, second = of(water(), methane, water())
    assert first == second
    assert of(water()) == first


def test_anything_else_differs():
    pos = torch.eye(3, dtype=torch.float64)
    moved = pos.clone()
    moved[2, 1] = torch.nextafter(moved[2, 1], torch.tensor(2.0).double())
    others = [
        water(pos=moved),
        water(z=torch.tensor([8, 1, 2])),
        water(z=torch.tensor([1, 8, 1]), pos=pos[[1, 0, 2]]),
        water(pos=pos[[0, 2, 1]]),
        water(pos=pos[:, [1, 0, 2]]),
        water(pos=-pos),
        Data(z=torch.tensor([8, 1]), pos=pos[:2]),
    ]
    codes = of(water(), *others)
    assert len(codes.unique()) == len(codes)


def test_negative_zero_is_zero():
    pos = torch.eye(3, dtype=torch.float64)
    assert of(water(pos=pos)) == of(water(pos=torch.where(pos == 0, -0.0, pos)))


def test_a_million_random_structures_have_different_ones():
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(1_000_000, 3, generator=generator)
    batch = Data(z=torch.ones(1_000_000, dtype=torch.long), pos=pos)
    batch.batch, batch.ptr = torch.arange(1_000_000), torch.arange(1_000_001)
    assert len(fingerprints(batch).unique()) == 1_000_000
