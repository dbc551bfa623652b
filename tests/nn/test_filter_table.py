"""Splines of filters: their error, where they begin and end, and when they are computed anew."""

import copy
import gc
import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.kernels import convolution, without_weight_gradients
from pyg_schnet.nn import CFConv, FilterNetwork, spline
from pyg_schnet.nn.spline import MARGIN, coefficients, evaluate, knot_spacing

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12}
WAYS = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain"])


@pytest.fixture(autouse=True, scope="module")
def shared_programs():
    """Trace networks of one architecture once: their programs hold no weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyg_schnet.compile.compiled.SHARED", {})
        yield


def interpolated(function, distance, spacing, kernels, monkeypatch):
    """The spline of a function, at distances: knots as KnotFeatures places them."""
    if not kernels:
        for module in (spline, convolution):
            monkeypatch.setattr(module, "has_kernels", lambda like: False)
    first, last = (int(float(d) / spacing) for d in distance.aminmax())
    knots = torch.arange(first - MARGIN[0], last + 1 + MARGIN[1], dtype=torch.float64) * spacing
    table = coefficients(function(knots)[:, None])
    return evaluate(table, distance, first, spacing)[:, 0]


@WAYS
@pytest.mark.parametrize("power", range(6))
def test_polynomials_of_degree_five_are_reproduced(power, kernels, monkeypatch):
    distance = torch.linspace(0.7, 3.1, 101, dtype=torch.float64)
    found = interpolated(lambda d: d**power, distance, 0.1, kernels, monkeypatch)
    assert_close(found, distance**power, atol=1e-11, rtol=0)  # 7e-14 was measured, at 3⁵


@WAYS
def test_the_error_of_a_gaussian_falls_with_the_sixth_power_of_the_spacing(kernels, monkeypatch):
    def gaussian(distance):
        return torch.exp(-10 * (distance - 2) ** 2)

    distance = torch.linspace(1.0, 3.0, 1001, dtype=torch.float64)
    spacings = (0.02, 0.01)
    errors = [
        float((interpolated(gaussian, distance, h, kernels, monkeypatch) - gaussian(distance)).abs().max())
        for h in spacings
    ]
    assert 50 < errors[0] / errors[1] < 90  # 2⁶ = 64; 73 was measured


def test_knots_are_a_fraction_of_the_width_of_gaussians_apart():
    assert knot_spacing(10.0) < 0.1 / math.sqrt(10.0)
    assert knot_spacing(40.0) == pytest.approx(knot_spacing(10.0) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frozen", [False, True])
@WAYS
def test_a_distance_at_a_knot_or_just_beside_it_is_within_the_table(frozen, dtype, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(spline, "has_kernels", lambda like: False)
    model = SchNet.paper().to(dtype)
    ends = torch.tensor([-math.inf, math.inf], dtype=dtype)
    wrong = []
    with torch.no_grad():
        for k in range(21, 400, 2):  # the multiples of an even number round as those of its half
            at = torch.tensor([k * knot_spacing(10.0)] * 2, dtype=dtype)
            for distance in (at, at.nextafter(ends[0]), at.nextafter(ends[1])):
                knots = model.filter_tables.features(model).at(distance, frozen)
                table = torch.zeros(len(knots.features) - 8, 8, dtype=dtype)
                pairs = torch.tensor([[0, 0], [1, 1]])
                out = spline.convolve(torch.ones(2, 8, dtype=dtype), table, pairs, knots)
                if bool(out.isnan().any()):
                    wrong.append(float(distance[0]))
    assert wrong == []


def pair_of(arguments, randomize):
    """The same random network with splines and with exact filters."""
    exact = randomize(SchNet(**arguments).double())
    exact.filters = "exact"
    approximate = copy.deepcopy(exact)
    approximate.filters = "spline"
    return approximate, exact


def results(model, batch):
    """Energies, forces, and the gradients of all weights of a loss of both."""
    model.zero_grad()
    out = Potential(model)(batch)
    (out["energy"].square().sum() + out["forces"].square().sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {**{name: value.detach() for name, value in out.items()}, **gradients}


PAPER = {
    **TINY,
    "num_gaussians": 60,
    "cutoff": None,
    "last_center": 6.0,
    "gamma": 10.0,
    "final_activation": True,
}
CONFIGURATIONS = {
    "paper": PAPER,
    "cosine": {**TINY, "cutoff": 4.0},
    "polynomial": {**TINY, "cutoff": 4.0, "envelope": "polynomial"},
    "no envelope": {**TINY, "cutoff": 8.0, "envelope": None},
}
CONFIGURED = pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)


# Relative to the largest value. 7e-9, 3e-7 and 3e-7 were measured at 0.03 Å;
# random filters are rougher than trained ones.
BOUND = {"energy": 1e-7, "forces": 3e-6, "gradients": 3e-6}


@CONFIGURED
def test_energies_forces_and_gradients_are_near_the_exact_ones(arguments, randomize, molecules):
    batch = Batch.from_data_list(molecules)
    found, expected = (results(model, batch) for model in pair_of(arguments, randomize))
    for name, value in expected.items():
        scale = float(value.abs().max())
        bound = BOUND.get(name, BOUND["gradients"])
        assert_close(found[name], value, atol=bound * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.equal(found["energy"], expected["energy"])


@CONFIGURED
def test_kernels_and_plain_torch_agree(arguments, randomize, molecules, monkeypatch):
    batch, model = Batch.from_data_list(molecules), pair_of(arguments, randomize)[0]
    found = results(model, batch)
    monkeypatch.setattr(spline, "has_kernels", lambda like: False)
    for name, value in results(model, batch).items():
        assert_close(found[name], value, atol=1e-10 * float(value.abs().max()), rtol=0)  # 1e-13 measured


def steep(model, factor=20.0):
    """Multiply the weights of filter networks, whose filters are steep then."""
    with torch.no_grad():
        for interaction in model.interactions:
            for parameter in interaction.cfconv.filter_network.parameters():
                parameter.mul_(factor)
    return model


def of_pyg():
    other = torch_geometric.nn.SchNet(8, 8, 2, 12, cutoff=4.0)
    for interaction in other.interactions:
        for layer in (interaction.mlp[0], interaction.mlp[2]):
            layer.weight.data *= 20
    return SchNet.from_pyg(other)


def of_schnetpack():
    with np.load(Path(__file__).parents[1] / "reference" / "schnetpack_schnet.npz") as file:
        arrays = {n.removeprefix("weights/"): file[n] for n in file if n.startswith("weights/")}
    weights = {n: torch.from_numpy(a) * (20 if "filter_network" in n else 1) for n, a in arrays.items()}
    return SchNet.from_schnetpack(weights, activation="shifted_softplus")


STEEP = {
    "2 Gaussians": lambda: SchNet(**{**TINY, "num_gaussians": 2}, cutoff=5.0),
    "2 Gaussians, polynomial": lambda: SchNet(
        **{**TINY, "num_gaussians": 2}, cutoff=10.0, envelope="polynomial"
    ),
    "a cutoff below all distances": lambda: SchNet(**TINY, cutoff=0.5),
    "steep": lambda: steep(SchNet(**TINY, cutoff=5.0)),
    "50 Gaussians, steep": lambda: steep(SchNet(**{**TINY, "num_gaussians": 50}, cutoff=5.0)),
    "paper, steep": lambda: steep(SchNet.paper(**{**TINY, "num_gaussians": 301}, zero_output=False)),
    "from_pyg, steep": of_pyg,
    "from_schnetpack, steep": of_schnetpack,
}


def shaken(molecule):
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(6, *molecule.pos.shape, generator=generator, dtype=torch.float64)
    return Batch.from_data_list([Data(z=molecule.z, pos=molecule.pos + move) for move in noise])


def check_promise(potential, batch):
    """Compare with exact filters: to 1e-6 of the energies' spread, and 1e-5 of the forces."""
    exact = copy.deepcopy(potential)
    exact.model.filters = "exact"
    found, expected = ({n: v.detach() for n, v in p(batch).items()} for p in (potential, exact))
    assert (found["energy"] - expected["energy"]).abs().max() <= 1e-6 * expected["energy"].std()
    size = expected["forces"].square().mean().sqrt()
    assert (found["forces"] - expected["forces"]).abs().max() <= 1e-5 * size


@pytest.mark.parametrize("make", STEEP.values(), ids=STEEP)
@pytest.mark.parametrize("way", ["eager", "compiled", "training"])
def test_there_are_as_many_knots_as_filters_need(make, way, ethanol):
    torch.manual_seed(1)
    model = make().double()
    model.filters = "spline"
    potential = Potential(model).train(way == "training")
    if way == "compiled":
        potential.compile(constant=True)
    check_promise(potential, shaken(ethanol))


@pytest.mark.parametrize("way", ["eager", "compiled", "constant"])
def test_knots_follow_weights_that_become_steep(model, ethanol, way):
    potential, batch = Potential(model).eval().requires_grad_(way != "constant"), shaken(ethanol)
    if way != "eager":
        potential.compile(constant=way == "constant")
    potential(batch)
    steep(model)
    check_promise(potential, batch)


def test_knots_follow_weights_in_training(model, ethanol):
    potential, batch = Potential(model), shaken(ethanol)
    for _ in range(3):
        results(model, batch)
        steep(model, 20 ** (1 / 3))
    for _ in range(4):  # not measured at each step
        steep(model, 1.0)
        potential(batch)
    check_promise(potential, batch)


def test_usual_filters_have_the_usual_knots(molecules):
    batch = Batch.from_data_list(molecules)
    for model in (SchNet(), SchNet.paper(zero_output=False), steep(SchNet.paper(zero_output=False), 2.0)):
        model.filters = "spline"
        graph = model.double().build_pairs(batch.z, batch.pos, batch.batch)
        _, knots, *_ = model.edge_features(graph)
        assert knots.spacing == knot_spacing(model.radial_basis.gamma)


def test_pairs_beyond_the_cutoff_that_the_user_gives_add_nothing(randomize, benzene):
    model = pair_of({**TINY, "cutoff": 3.0}, randomize)[0]
    edge_index = (~torch.eye(12, dtype=torch.bool)).nonzero().T.contiguous()
    given = model(benzene.z, benzene.pos, edge_index=edge_index)
    assert_close(given, model(benzene.z, benzene.pos), atol=1e-12, rtol=0)


def test_a_molecule_of_six_hundred_angstroms_has_exact_filters(randomize):
    approximate, exact = pair_of(PAPER, randomize)
    z, pos = torch.tensor([1, 1, 8]), torch.tensor([[0, 0, 0], [0.9, 0, 0], [600.0, 0, 0]]).double()
    assert torch.equal(approximate(z, pos), exact(z, pos))


@pytest.fixture
def model(randomize):
    return pair_of({**TINY, "cutoff": 5.0}, randomize)[0]


@pytest.fixture
def networks(monkeypatch):
    """Count how often filter networks run."""
    calls, forward = [], FilterNetwork.forward

    def counted(self, expansion):
        calls.append(1)
        return forward(self, expansion)

    monkeypatch.setattr(FilterNetwork, "forward", counted)
    return calls


def test_a_frozen_table_is_computed_once(model, networks, molecules):
    potential = Potential(model).eval()
    potential(molecules[0])
    once = len(networks)  # to measure the error of the splines, and for the tables
    for molecule in molecules:
        potential(molecule)
    assert once == len(networks) == 2 * len(model.interactions)


def fresh(model, data):
    """What a model computes that has seen nothing yet."""
    new = SchNet(**{**TINY, "cutoff": model.config.cutoff, "last_center": model.config.last_center})
    new = new.to(model.embedding.weight.dtype)
    new.load_state_dict(model.state_dict())
    new.filters = "spline"
    return Potential(new).eval()(data)


def step(model, data):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(data.z, data.pos).sum().backward()
    optimizer.step()


def load(model, data):
    model.load_state_dict({name: 0.5 * value for name, value in model.state_dict().items()})


def assign(model, data):
    halves = {name: 0.5 * value for name, value in model.state_dict().items()}
    model.load_state_dict(halves, assign=True)


def change_data(model, data):
    for parameter in model.parameters():
        parameter.data.mul_(0.5)


def replace_data_twice(model, data):
    for _ in range(2):  # the second time, memory of the first may be used again
        for parameter in model.parameters():
            parameter.data = 0.5 * parameter.data


def fill_vector(model, data):
    vector = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.nn.utils.vector_to_parameters(0.5 * vector.detach(), model.parameters())


def convert(model, data):
    model.float()


CHANGES = [step, load, assign, change_data, replace_data_twice, fill_vector, convert]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_frozen_table_follows_the_weights(model, ethanol, change, compiled):
    potential = Potential(model).eval()
    if compiled:
        potential.compile()
    before = potential(ethanol)
    change(model, ethanol)
    found, expected = potential(ethanol), fresh(model, ethanol)
    assert_close(
        found, expected, atol=1e-5 if change is convert else 1e-10, rtol=1e-5 if change is convert else 0
    )
    assert change is convert or not torch.allclose(found["energy"], before["energy"])


def test_a_frozen_table_grows_with_longer_distances(randomize, water, benzene):
    approximate, _ = pair_of(PAPER, randomize)
    potential = Potential(approximate).eval()
    potential(water)
    found = potential(benzene)["energy"]
    assert_close(found, Potential(copy.deepcopy(approximate)).eval()(benzene)["energy"], atol=1e-12, rtol=0)
    assert bool(found.isfinite().all())


def copied(model):
    return copy.deepcopy(model)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copied, pickled, saved])
def test_a_model_with_a_frozen_table_can_be_copied(model, ethanol, way):
    potential = Potential(model).eval()
    expected = potential(ethanol)
    other = way(potential)
    assert_close(other(ethanol), expected, atol=1e-12, rtol=0)
    load(other.model, ethanol)
    assert not torch.allclose(other(ethanol)["energy"], expected["energy"])
    assert_close(potential(ethanol), expected, atol=0, rtol=0)


def test_a_model_in_evaluation_mode_gives_gradients_to_its_weights(model, ethanol):
    model.eval()
    with without_weight_gradients():
        Potential(model).eval()(ethanol)  # freezes a table
    model(ethanol.z, ethanol.pos).sum().backward()
    assert all(bool(p.grad.any()) for name, p in model.named_parameters() if "filter_network" in name)


def test_other_weights_for_one_call_are_used_in_that_call(model, ethanol):
    potential = Potential(model).eval()
    for k in range(1, 5):
        weights = {name: p.detach() * (1 + k / 10) for name, p in potential.named_parameters()}
        found = torch.func.functional_call(potential, weights, (ethanol,))["energy"]
        other = copy.deepcopy(potential)
        other.load_state_dict(weights, strict=False)
        assert_close(found, other(ethanol)["energy"], atol=1e-12, rtol=0)
        del weights, other
        gc.collect()


def test_gradients_by_torch_func_equal_autograds(model, ethanol):
    def energy(pos):
        return model(ethanol.z, pos).sum()

    pos = ethanol.pos.clone().requires_grad_()
    (expected,) = torch.autograd.grad(energy(pos), pos)
    scale = float(expected.abs().max())
    found = torch.func.grad(energy)(ethanol.pos)
    assert_close(found, expected, atol=BOUND["forces"] * scale, rtol=0)  # transforms see exact filters


def test_gradients_of_weights_by_torch_func_equal_autograds(model, ethanol):
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def energy(weights):
        return torch.func.functional_call(model, weights, (ethanol.z, ethanol.pos)).sum()

    model(ethanol.z, ethanol.pos).sum().backward()
    found = torch.func.grad(energy)(weights)
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert_close(found[name], parameter.grad, atol=BOUND["gradients"] * scale, rtol=0)


def test_autocast_runs_exact_filters(model, ethanol):
    model = model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(ethanol.z, ethanol.pos)
    assert_close(found.float(), model(ethanol.z, ethanol.pos), atol=0.05, rtol=0.05)  # bfloat16 has 3 digits


def test_a_convolution_with_knots_equals_one_with_features_of_each_pair(model, benzene):
    block = model.interactions[0]
    x = torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = model.build_pairs(benzene.z, benzene.pos)
    pairs, knots, *_ = model.edge_features(graph)
    found = block.filter_table.convolve(block.cfconv.filter_network, x, pairs, knots)
    model.filters = "exact"
    edges, features, envelope, pair = model.edge_features(graph)
    expected = block.cfconv(x, edges, features, edge_weight=envelope, pair=pair)
    assert_close(found, expected, atol=1e-5 * float(expected.detach().abs().max()), rtol=0)


class Doubled(CFConv):
    def forward(self, *arguments, **named):
        return 2 * super().forward(*arguments, **named)


def hook(block):
    block.cfconv.register_forward_hook(lambda module, arguments, out: 2 * out)


def replace_forward(block):
    forward = block.cfconv.forward
    block.cfconv.forward = lambda *arguments, **named: 2 * forward(*arguments, **named)


def replace_convolution(block):
    block.cfconv = Doubled(block.cfconv.filter_network)


@pytest.mark.parametrize("change", [hook, replace_forward, replace_convolution])
def test_a_convolution_of_the_users_own_is_called(model, ethanol, change):
    expected = copy.deepcopy(model)
    for block in expected.interactions:  # twice the filters are twice the result
        for parameter in block.cfconv.filter_network.dense2.parameters():
            parameter.data *= 2
    model(ethanol.z, ethanol.pos)
    for block in model.interactions:
        change(block)
    found, value = (one(ethanol.z, ethanol.pos).detach() for one in (model, expected))
    assert_close(found, value, atol=1e-6 * float(value.abs().max()), rtol=0)
