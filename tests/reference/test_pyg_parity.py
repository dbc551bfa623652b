import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import SchNet

CUTOFF = 4.0
# PyG holds log 2, γ and the Gaussians' centers in float32, unless it is built in float64: then it differs
# by rounding alone. Relative to the largest value; measured 3e-9 and 2e-7, 2e-16 and 8e-15.
PRECISION = {
    torch.float32: {"energy": 1e-7, "forces": 2e-6},
    torch.float64: {"energy": 1e-14, "forces": 1e-13},
}


def all_neighbors(pos, batch):
    """PyG's own graph needs pyg-lib and drops neighbors beyond 32."""
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    near = (distance < CUTOFF) & (batch[:, None] == batch[None, :])
    target, source = (near & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().T
    return torch.stack([source, target]), (pos[source] - pos[target]).norm(dim=1)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["built in float32", "built in float64"])
def built_in(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


ATOMREF = torch.linspace(-3, 1, 100)[:, None]
VARIANTS = {
    "add": {},
    "mean": {"readout": "mean"},
    "standardized": {"mean": -1.7, "std": 2.5},
    "standardized mean": {"mean": -1.7, "std": 2.5, "readout": "mean"},
    "mean without deviation": {"mean": -1.7},
    "references": {"atomref": ATOMREF},
    "all": {"atomref": ATOMREF, "mean": 0.3, "std": 0.5, "readout": "mean"},
    "dipole": {"dipole": True},
}


def energy_and_forces(model, batch):
    pos = batch.pos.clone().requires_grad_()
    energy = model(batch.z, pos, batch.batch)
    (gradient,) = torch.autograd.grad(energy.sum(), pos)
    return energy.detach(), -gradient


def build(randomize, scale=None, **variant):
    model = torch_geometric.nn.SchNet(
        hidden_channels=8,
        num_filters=6,
        num_interactions=2,
        num_gaussians=11,
        cutoff=CUTOFF,
        interaction_graph=all_neighbors,
        **variant,
    )
    atomref = None if model.atomref is None else model.atomref.weight.detach().clone()
    randomize(model)
    if atomref is not None:
        model.atomref.weight.data.copy_(atomref)
    model.scale = scale
    return model.double()


def assert_parity(ours, theirs, batch, relative):
    for name, own, their in zip(
        ("energy", "forces"),
        energy_and_forces(ours, batch),
        energy_and_forces(theirs, batch),
        strict=True,
    ):
        bound = relative[name] * float(their.abs().max())
        assert_close(own, their, atol=bound, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_energies_and_forces_equal_pygs_with_its_weights(variant, built_in, molecules, randomize):
    theirs = build(randomize, **variant)
    ours = SchNet.from_pyg(theirs)
    ours.interaction_graph = None  # our own neighbor search
    assert_parity(ours, theirs, Batch.from_data_list(molecules), PRECISION[built_in])


@pytest.mark.parametrize("variant", ["add", "dipole", "all"])
def test_the_scale_of_pygs_pretrained_models_is_taken_over(variant, built_in, molecules, randomize):
    theirs = build(randomize, scale=27.2, **VARIANTS[variant])
    ours = SchNet.from_pyg(theirs)
    assert_parity(ours, theirs, Batch.from_data_list(molecules), PRECISION[built_in])


def test_a_custom_graph_is_taken_over(randomize):
    assert SchNet.from_pyg(build(randomize)).interaction_graph is all_neighbors


def test_pygs_own_graph_is_replaced_by_ours():
    theirs = torch_geometric.nn.SchNet(hidden_channels=8, num_filters=6, num_interactions=1)
    assert SchNet.from_pyg(theirs).interaction_graph is None


def test_pygs_model_is_not_changed(randomize):
    theirs = build(randomize)
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    with torch.no_grad():
        for parameter in SchNet.from_pyg(theirs).parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())
