"""Neighbor searches on accelerators: the edges of CPUs, and never all pairs of many atoms."""

import pytest
import torch
import vesin
from ase.build import bulk
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyg_schnet import neighbor_list, radius_graph
from tests.gpu_like import gpu_like

CUTOFF = 4.0


class LargestTensor(TorchDispatchMode):
    """The number of entries of the largest tensor that was made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.entries = max(
            [self.entries, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))]
        )
        return out


@pytest.fixture(params=["on the device", "on the host"])
def place(request, monkeypatch):
    """Where cell lists are; vesin refuses a device without NVIDIA's run-time compiler."""
    tensors, compute = [], vesin.NeighborList.compute

    def computed(self, points, *args, **kwargs):
        if isinstance(points, torch.Tensor):
            tensors.append(points)
            if request.param == "on the host":
                raise RuntimeError("Failed to load NVRTC")
        return compute(self, points, *args, **kwargs)

    monkeypatch.setattr(vesin.NeighborList, "compute", computed)
    yield request.param
    assert tensors  # the device was tried


def droplet(atoms, seed=0):
    """Atoms at the density of water."""
    generator = torch.Generator().manual_seed(seed)
    side = (atoms / 0.1) ** (1 / 3)
    return side * torch.rand(atoms, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_molecules_have_the_edges_of_cpus(place, dtype):
    pos = torch.cat([droplet(1500), droplet(1600, seed=1)]).to(dtype)
    batch = torch.tensor([0] * 1500 + [1] * 1600)
    expected = radius_graph(pos, CUTOFF, batch)
    with gpu_like():
        assert torch.equal(radius_graph(pos, CUTOFF, batch), expected)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_large_crystals_have_the_edges_of_cpus(place, pbc):
    atoms = bulk("Si") * (8, 7, 6)  # triclinic
    atoms.rattle(0.1, seed=0)
    pos, cell = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array)
    expected = neighbor_list(pos, CUTOFF, None, cell, torch.tensor(pbc))
    with gpu_like():
        found = neighbor_list(pos, CUTOFF, None, cell, torch.tensor(pbc))
    assert all(map(torch.equal, found, expected))


# 27 atoms are within the cutoff, and cell lists propose pairs within it: 3 entries for each of 27 edges.
@pytest.mark.parametrize("pbc", [False, True])
def test_memory_is_linear_in_the_number_of_atoms(place, pbc):
    pos = droplet(6000)
    cell = torch.eye(3, dtype=torch.float64) * (6000 / 0.1) ** (1 / 3)
    with gpu_like(), LargestTensor() as largest:
        edges, _ = neighbor_list(pos, CUTOFF, None, cell, torch.tensor(pbc))
    assert largest.entries <= 3 * 1.01 * edges.size(1)


def test_small_systems_are_compared_on_the_device(monkeypatch):
    monkeypatch.delattr(vesin, "NeighborList")
    pos = droplet(300)
    with gpu_like():
        assert radius_graph(pos, CUTOFF).size(1) > 0
        assert neighbor_list(pos[:64], CUTOFF, None, 9 * torch.eye(3).double(), True)[0].size(1) > 0
