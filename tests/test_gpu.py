"""The same numbers on a GPU, float32 rounding apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet, neighbor_list, radius_graph
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import DataLoader
from pyg_schnet.potentials.metrics import evaluate

SAMPLE = Path(__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def batch(molecules):
    return Batch.from_data_list(molecules)


def test_edges_are_the_same(batch):
    edge_index = radius_graph(batch.pos, 3.0, batch.batch)
    assert torch.equal(radius_graph(batch.pos.cuda(), 3.0, batch.batch.cuda()).cpu(), edge_index)


@pytest.mark.parametrize("pbc", [(False,) * 3, (True,) * 3, (True, False, True)])
@pytest.mark.parametrize("atoms", [60, 3000, 40_000])
def test_edges_of_large_systems_are_the_same(atoms, pbc):
    generator = torch.Generator().manual_seed(0)
    side = (atoms / 0.1) ** (1 / 3)  # Å, at the density of water
    cell = side * torch.tensor([[1.0, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.2, 1.0]]).double()
    pos = torch.rand(atoms, 3, generator=generator).double() @ cell
    expected = neighbor_list(pos, 5.0, None, cell, torch.tensor(pbc))
    found = neighbor_list(pos.cuda(), 5.0, None, cell.cuda(), torch.tensor(pbc).cuda())
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("model", [SchNet.paper(zero_output=False), SchNet()], ids=["paper", "default"])
def test_energies_and_forces_are_the_same(model, batch):
    potential = Potential(model.double()).eval()
    here = potential(batch)
    there = potential.cuda()(batch.clone().to("cuda"))
    for name in here:  # float64; sums run in another order
        assert_close(there[name].cpu(), here[name], rtol=1e-9, atol=1e-9)


def test_a_step_of_training_changes_all_weights(batch):
    potential = Potential(SchNet.paper(zero_output=False)).cuda().train()
    before = {name: weight.detach().clone() for name, weight in potential.named_parameters()}
    optimizer = torch.optim.Adam(potential.parameters(), fused=True)
    potential(batch.clone().to("cuda"))["forces"].square().sum().backward()
    optimizer.step()
    unchanged = [name for name, weight in potential.named_parameters() if torch.equal(weight, before[name])]
    assert [name for name in unchanged if not name.endswith("dense2.bias")] == []  # forces do not see it


def test_a_data_set_on_the_gpu_is_gathered_and_evaluated_there():
    dataset = AtomsDataset(path=SAMPLE)[:10]
    dataset._data = dataset._data.to("cuda")
    batch = next(iter(DataLoader(dataset, 2)))
    assert isinstance(batch, Data)
    assert batch.pos.is_cuda
    assert evaluate(Potential(SchNet.paper()).cuda(), dataset).n == len(dataset)
