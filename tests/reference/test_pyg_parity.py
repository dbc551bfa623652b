import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet

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


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("form", ["state_dict", "file of weights", "file of the model"])
def test_weights_and_files_of_pygs_model_are_taken_over(form, variant, molecules, randomize, tmp_path):
    theirs = torch_geometric.nn.SchNet(8, 6, 2, 11, 4.3, **variant)
    expected = SchNet.from_pyg(randomize(theirs))
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    told = {name: value for name, value in variant.items() if name != "atomref"}
    if form == "state_dict":
        ours = SchNet.from_pyg(theirs.state_dict(), **told)
    elif form == "file of weights":
        torch.save(theirs.state_dict(), tmp_path / "weights.pt")
        ours = SchNet.from_pyg(tmp_path / "weights.pt", **told)
    else:
        torch.save(theirs, tmp_path / "model.pt")
        ours = SchNet.from_pyg(str(tmp_path / "model.pt"))
    assert ours.config == expected.config
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())
    batch = Batch.from_data_list(molecules)
    assert torch.equal(ours(batch.z, batch.pos, batch.batch), expected(batch.z, batch.pos, batch.batch))


def test_what_is_not_of_pygs_schnet_is_refused(randomize, tmp_path):
    theirs = build(randomize)
    with pytest.raises(ValueError, match=r"`readout`.*'mean'"):
        SchNet.from_pyg(theirs, readout="mean")
    with pytest.raises(ValueError, match=r"`model`.*distance_expansion\.offset"):
        SchNet.from_pyg({"weight": torch.ones(1)})
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"`model`.*Sequential"):
        SchNet.from_pyg(tmp_path / "model.pt")
    torch.save(theirs, tmp_path / "model.pt")  # its graph is a function of this file
    with pytest.raises(ValueError, match=r"`model\.interaction_graph`.*PyG's"):
        SchNet.from_pyg(tmp_path / "model.pt")


def test_attributes_have_pygs_names_too():
    ours, theirs = SchNet(8, 6, 2, 11, 4.0), torch_geometric.nn.SchNet(8, 6, 2, 11, 4.0)
    for name in ("hidden_channels", "num_filters", "num_interactions", "num_gaussians", "cutoff", "dipole"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert ours.lin1.weight.shape == theirs.lin1.weight.shape
    assert ours.lin2.weight.shape == theirs.lin2.weight.shape
    assert_close(ours.act(torch.ones(1)), theirs.act(torch.ones(1)), atol=1e-6, rtol=0)
    assert ours.distance_expansion(torch.ones(2)).shape == theirs.distance_expansion(torch.ones(2)).shape


def test_a_subclass_may_have_attributes_of_these_names():
    class Own(SchNet):
        def __init__(self):
            super().__init__(8, 6, 2, 11, 4.0)
            self.cutoff = 7.0
            self.lin1 = torch.nn.Linear(3, 3)

    own = Own()
    assert own.cutoff == 7.0
    assert own.lin1.in_features == 3
    assert own.config.cutoff == 4.0


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


# Both are in float64 here, whatever type PyG's constants were made in; measured 5e-16 and 1e-14.
EXACT = {"energy": 1e-14, "forces": 1e-13}
OURS = {
    "add": {},
    "mean": {"readout": "mean"},
    "mean and deviation": {"mean": -1.7, "std": 2.5},
    "mean alone": {"mean": -1.7},
    "deviation alone": {"std": 2.5, "readout": "sum"},
    "references": {"atomref": ATOMREF},
    "all": {"atomref": ATOMREF, "mean": 0.3, "std": 0.5, "readout": "mean"},
    "dipole": {"dipole": True},
    "said in full": {"last_center": CUTOFF, "gamma": 0.5 / 0.4**2, "zero_output": True},
}
SIZES = {"hidden_channels": 8, "num_filters": 6, "num_interactions": 2, "num_gaussians": 11, "cutoff": CUTOFF}


def build_ours(randomize, **variant):
    return randomize(SchNet(**{**SIZES, **variant}).double())


@pytest.mark.parametrize("variant", OURS.values(), ids=OURS)
def test_pygs_model_of_ours_has_its_energies_and_forces(variant, built_in, molecules, randomize):
    ours = build_ours(randomize, **variant)
    assert_parity(ours, ours.to_pyg(), Batch.from_data_list(molecules), EXACT)


@pytest.mark.parametrize("variant", OURS.values(), ids=OURS)
def test_a_round_trip_over_pyg_changes_no_bit(variant, molecules, randomize):
    ours = build_ours(randomize, **variant, max_num_neighbors=50)
    again = SchNet.from_pyg(ours.to_pyg())
    assert again.interaction_graph is None
    assert again.max_num_neighbors == 50
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())
    batch = Batch.from_data_list(molecules)
    for one, other in zip(energy_and_forces(ours, batch), energy_and_forces(again, batch), strict=True):
        assert torch.equal(one, other)


def test_weights_alone_in_a_new_model_of_pyg_are_off_by_its_float32_constants(molecules, randomize):
    ours = build_ours(randomize)
    theirs = torch_geometric.nn.SchNet(**SIZES, interaction_graph=ours.to_pyg().interaction_graph).double()
    theirs.load_state_dict(ours.to_pyg().state_dict())
    assert_parity(ours, theirs, Batch.from_data_list(molecules), PRECISION[torch.float32])
    with pytest.raises(AssertionError):
        assert_parity(ours, theirs, Batch.from_data_list(molecules), EXACT)


@pytest.fixture
def ball():
    """A drop of 90 atoms, most of which have more than PyG's 32 neighbors within 4 Å."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.stack(torch.meshgrid(*3 * [torch.arange(5.0, dtype=torch.float64)], indexing="ij"), -1)
    pos = 1.6 * grid.reshape(-1, 3)
    pos = pos + 0.2 * torch.rand(pos.shape, generator=generator, dtype=torch.float64)
    z = torch.tensor([1, 6, 8]).repeat(42)[: len(pos)]
    return Data(z=z, pos=pos)


def test_no_neighbor_is_dropped_beyond_the_32nd(ball, randomize):
    ours = build_ours(randomize)
    theirs = ours.to_pyg()
    edges, _ = theirs.interaction_graph(ball.pos, torch.zeros_like(ball.z))
    assert edges[1].bincount().max() > 60
    assert_parity(ours, theirs, Batch.from_data_list([ball]), EXACT)


def test_a_bound_on_neighbors_stays_an_error(ball, randomize):
    theirs = build_ours(randomize, max_num_neighbors=32).to_pyg()
    with pytest.raises(ValueError, match="max_num_neighbors"):
        theirs(ball.z, ball.pos)


def test_a_custom_graph_goes_to_pyg_as_it_is(randomize):
    assert build_ours(randomize, interaction_graph=all_neighbors).to_pyg().interaction_graph is all_neighbors


@pytest.mark.parametrize("readout", ["add", "mean"])
def test_the_unit_of_a_potential_comes_along(readout, molecules, randomize):
    model = build_ours(randomize, readout=readout, atomref=ATOMREF, mean=0.3)
    references = 100 * ATOMREF[:, 0].double() if readout == "add" else None
    potential = Potential(model, scale=0.7, atomref=references).eval()
    theirs = model.to_pyg(potential.scale, references)
    batch = Batch.from_data_list(molecules)
    out, (energy, forces) = potential(batch), energy_and_forces(theirs, batch)
    assert_close(out["energy"], energy[:, 0], atol=0, rtol=1e-14)
    assert_close(out["forces"], forces, atol=1e-13 * float(forces.abs().max()), rtol=0)


def test_the_unit_of_a_dipole_comes_along(molecules, randomize):
    ours = build_ours(randomize, dipole=True)
    batch = Batch.from_data_list(molecules)
    expected = 4.8 * ours(batch.z, batch.pos, batch.batch)
    assert_close(ours.to_pyg(4.8)(batch.z, batch.pos, batch.batch), expected, rtol=1e-12, atol=0)


def test_pygs_model_is_whole_and_its_own(molecules, randomize, tmp_path):
    ours = build_ours(randomize, atomref=ATOMREF).eval()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    theirs = ours.to_pyg()
    assert not theirs.training
    batch = Batch.from_data_list(molecules)
    expected = theirs(batch.z, batch.pos, batch.batch)
    torch.save(theirs, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(again(batch.z, batch.pos, batch.batch), expected)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_no_random_number_is_used_up(randomize):
    ours = build_ours(randomize)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    ours.to_pyg()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_activation": True}, "`final_activation` must be False: PyG's filter network has none"),
        ({"cutoff": None, "last_center": 5.0}, "`cutoff` must be a distance in Å: .*; got None"),
        ({"envelope": "polynomial"}, "`envelope` must be 'cosine', PyG's only one; got 'polynomial'"),
        ({"envelope": None}, "`envelope` must be 'cosine', PyG's only one; got None"),
        ({"last_center": 3.0}, r"`last_center` must be the cutoff, 4\.0 Å, where PyG has it; got 3\.0"),
        ({"gamma": 10.0}, r"`gamma` must be None or 3\.125 Å⁻², PyG's for these centers; got 10\.0"),
    ],
)
def test_what_pyg_cannot_hold_is_refused_with_a_way_out(changes, message, randomize):
    with pytest.raises(ValueError, match=message + ".*keep this class"):
        build_ours(randomize, **changes).to_pyg()


def test_references_of_what_does_not_add_up_are_refused(randomize):
    with pytest.raises(ValueError, match=r"`readout`.*'add'.*`atomref`"):
        build_ours(randomize, readout="mean").to_pyg(atomref=ATOMREF)
    with pytest.raises(ValueError, match=r"`dipole`.*`atomref`"):
        build_ours(randomize, dipole=True).to_pyg(atomref=ATOMREF)


def test_a_readout_of_the_users_own_is_refused(randomize):
    ours = build_ours(randomize)
    ours.readout = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"`readout`.*sum.*mean.*atoms.*dipole.*Identity"):
        ours.to_pyg()
