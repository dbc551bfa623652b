"""What does not fit into the memory is told by the name of the structure, and batches are cut before."""

import math

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import nn

from pyg_schnet import Potential, SchNet
from pyg_schnet.graph.memory import describe_out_of_memory, max_pairs
from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.loader.sampler import bound_edges, count_edges, split_by_edges
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.simulation import StructureError, predict

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


class Greedy(nn.Module):
    """Takes more memory than there is, of more than so many atoms."""

    def __init__(self, most):
        super().__init__()
        self.most, self.weight = most, nn.Parameter(torch.ones(()))

    def forward(self, z, pos, batch):
        if len(z) > self.most:
            raise RuntimeError(ALLOCATOR)
        return self.weight * torch.zeros(int(batch.max()) + 1).index_add(0, batch, pos.square().sum(1))


def test_pairs_of_a_crystal_are_fewer_than_the_bound():
    for spacing in (1.8, 3.0):
        cell = spacing * torch.eye(3, dtype=torch.float64)
        edges, _ = neighbor_list(torch.zeros(1, 3, dtype=torch.float64), 6.0, cell=cell, pbc=True)
        assert 0 < edges.size(1) < 1.3 * max_pairs(1, 6.0, periodic=True)
    assert max_pairs(100, math.inf) == max_pairs(100, 1000.0) == 9900


def test_a_batch_of_too_many_pairs_is_cut_where_it_must_be():
    edges = torch.tensor([5.0, 5.0, 20.0, 1.0, 1.0])
    parts = split_by_edges(torch.tensor([4, 0, 1, 2, 3]), edges, max_edges=10)
    assert [part.tolist() for part in parts] == [[4, 0], [1], [2], [3]]
    assert len(split_by_edges(torch.arange(5), edges, max_edges=32)) == 1


def test_a_batch_that_is_cut_gives_what_its_structures_give_alone():
    torch.manual_seed(0)
    options = {"hidden_channels": 4, "num_filters": 4, "num_interactions": 1, "num_gaussians": 4}
    potential = Potential(SchNet(**options, cutoff=None, last_center=10.0), elements=[1]).double()
    frames = [Atoms("H800", torch.rand(800, 3).numpy() * 30) for _ in range(3)]  # 1.9 million pairs
    together = [frame.get_potential_energy() for frame in predict(potential, frames, forces=False)]
    alone = [next(iter(predict(potential, [x], forces=False))).get_potential_energy() for x in frames]
    assert together == pytest.approx(alone, rel=1e-12)


def test_a_molecule_whose_pairs_fit_into_no_memory_is_named_at_once():
    potential = Potential(SchNet.paper(), elements=[1])
    frames = [molecule("H2"), Atoms("H1000000", torch.rand(10**6, 3).numpy())]
    found = predict(potential, frames)
    assert len(next(found)) == 2
    with pytest.raises(StructureError, match=r"structure.*1.*1,000,000.*atoms.*999,999,000,000.*pairs"):
        next(found)


def test_a_structure_that_the_allocator_refuses_is_named_and_the_others_are_predicted():
    potential = Potential(Greedy(4), elements=[1, 6, 8])
    refused = []
    frames = [molecule(name) for name in ("H2O", "CH4", "H2")]
    assert len(list(predict(potential, frames, on_refused=refused.append))) == 2
    assert [(error.number, error.reason[:11]) for error in refused] == [(1, "its 5 atoms")]


def test_an_evaluation_that_the_allocator_refuses_names_the_structure(tmp_path):
    from pyg_schnet.datasets import AtomsDataset

    path = tmp_path / "a.xyz"
    path.write_text("2\nenergy=1\nH 0 0 0\nH 0 0 1\n3\nenergy=2\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    with pytest.raises(MemoryError, match="structure 1: its 3 atoms"):
        evaluate(Potential(Greedy(2), elements=[1, 8]), AtomsDataset(path=path), batch_size=1)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), describe_out_of_memory(lambda: "too large"):
        raise RuntimeError("shapes do not match")


def test_bounds_are_above_the_numbers_of_edges(tmp_path):
    from pyg_schnet.datasets import AtomsDataset

    path = tmp_path / "a.xyz"
    path.write_text("2\nenergy=1\nH 0 0 0\nH 0 0 1\n3\nenergy=2\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    dataset = AtomsDataset(path=path)
    for part in (dataset, dataset[1:]):
        for cutoff in (3.0, math.inf):
            assert (bound_edges(part, cutoff) >= count_edges(part, cutoff)).all()
