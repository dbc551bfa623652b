"""Large systems may be sorted in memory; results, fields and features of atoms keep the caller's order."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

MANY = 4001  # above which systems are sorted


@pytest.fixture
def large():
    """A system in random order, with a number for each atom."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(16)] * 3)[torch.randperm(16**3, generator=generator)]
    pos = 3.0 * grid[:MANY].double() + 0.3 * torch.rand(MANY, 3, generator=generator).double()
    z = torch.randint(1, 9, (MANY,), generator=generator)
    return Data(z=z, pos=pos, x=torch.rand(MANY, generator=generator).double())


class Springs(nn.Module):
    """Atoms at springs of their own strengths, which are a field of the data."""

    def forward(self, z, pos, batch, x):
        return (x * pos.square().sum(1)).sum()[None]


class OwnSprings(nn.Module):
    """The same, with strengths of the model's own."""

    def __init__(self, x):
        super().__init__()
        self.register_buffer("x", x)

    def forward(self, z, pos, batch):
        return (self.x * pos.square().sum(1)).sum()[None]


class SchNetWithCharges(SchNet):
    """A SchNet that reads another field of the atoms."""

    def forward(self, z, pos, batch=None, x=None):
        return super().forward(z, pos, batch) + (x * pos.square().sum(1)).sum()


@pytest.mark.parametrize("own", [False, True], ids=["a field", "a buffer"])
def test_what_a_model_reads_for_each_atom_belongs_to_that_atom(large, own):
    out = Potential(OwnSprings(large.x) if own else Springs()).eval()(large)
    assert_close(out["energy"], (large.x * large.pos.square().sum(1)).sum()[None], rtol=1e-12, atol=0)
    assert_close(out["forces"], -2 * large.x[:, None] * large.pos, rtol=1e-12, atol=1e-12)


@pytest.fixture
def arguments():
    return {"hidden_channels": 4, "num_filters": 4, "num_interactions": 1, "num_gaussians": 8, "cutoff": 4.0}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_schnet_that_reads_another_field_has_its_own_energy_in_large_systems(
    large, arguments, randomize, compiled
):
    model = randomize(SchNetWithCharges(**arguments).double())
    potential = Potential(model).eval()
    found = (potential.compile() if compiled else potential)(large, forces=False)["energy"]
    with torch.no_grad():
        expected = model(large.z, large.pos, None, large.x)[0]
    assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_hooks_see_features_of_atoms_in_the_callers_order(large, arguments, randomize, compiled):
    potential = Potential(randomize(SchNet(**arguments, filters="spline"))).eval()
    seen = []
    potential.model.embedding.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    (potential.compile() if compiled else potential)(large, forces=False)
    assert all(torch.equal(z, large.z) for z in seen if len(z) == MANY)
    assert seen


def test_an_own_graph_names_the_callers_atoms_in_large_systems(large, arguments, randomize):
    plain = randomize(SchNet(**arguments).double())
    batch = torch.zeros_like(large.z)
    edges, _ = plain.build_pairs(large.z, large.pos, batch).edges()

    def known_graph(pos, batch):
        return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=1)

    own = SchNet(**arguments, interaction_graph=known_graph).double()
    own.load_state_dict(plain.state_dict())
    found, expected = (Potential(model).eval()(large, forces=False)["energy"] for model in (own, plain))
    assert_close(found, expected, rtol=1e-10, atol=0)
