"""Whatever is changed in a potential after it was compiled, its results are those of eager."""

import copy
import sys
import threading

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.kernels import WeightsVersion
from pyg_schnet.nn import AtomicMean, CosineEnvelope, GaussianSmearing, PolynomialEnvelope

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture
def compiled(randomize, water, share_programs):
    """A compiled potential that has run; programs are made once for all tests."""
    share_programs("changes")
    model = randomize(SchNet(**TINY, filters="spline").double())
    potential = Potential(model, atomref=torch.linspace(-1, 1, 100)).eval().compile()
    potential(water)
    return potential


def eager(potential, data):
    own = copy.deepcopy(potential)
    own.compiled = None
    return own(data)


def freeze(potential):
    potential.requires_grad_(False)


CHANGES = {
    "a weight's data": lambda p: p.model.readout.network.dense1.weight.data.mul_(1.3),
    "all weights' data": lambda p: [w.data.mul_(1.3) for w in p.parameters()],
    "the sign of a bias": lambda p: p.model.interactions[0].cfconv.filter_network.dense2.bias.data.neg_(),
    "the order of rows": lambda p: p.model.interactions[0].atomwise2.weight.data.copy_(
        p.model.interactions[0].atomwise2.weight.data.flip(0)
    ),
    "a scale in single precision": lambda p: setattr(p, "scale", torch.tensor(3.0)),
    "references in single precision": lambda p: setattr(p, "atomref", torch.full((100,), -5.0)),
    "references of three elements": lambda p: setattr(p, "atomref", torch.ones(9).double()),
    "another interaction": lambda p: p.model.interactions.__setitem__(
        0, copy.deepcopy(p.model.interactions[1])
    ),
}


def normalize(potential, name="interactions.0.atomwise2"):
    layer = potential.model.get_submodule(name)
    torch.nn.utils.parametrizations.weight_norm(layer).parametrizations.weight.original0.mul_(1.3)


def end_with_activations(potential):
    for interaction in potential.model.interactions:
        interaction.cfconv.filter_network.final_activation = True


def use_narrower_readout(potential):
    network = potential.model.readout.network
    network.dense1, network.dense2 = nn.Linear(8, 2).double(), nn.Linear(2, 1).double()


# Of modules, their settings and hooks: such changes are seen even where weights are promised to stay.
STRUCTURES = {
    "a setting": lambda p: setattr(p.model.readout, "std", 3.0),
    "another envelope": lambda p: setattr(p.model, "envelope", PolynomialEnvelope(4.0)),
    "a shorter envelope": lambda p: setattr(p.model, "envelope", CosineEnvelope(1.5)),
    "no envelope": lambda p: setattr(p.model, "envelope", None),
    "an envelope of another class": lambda p: setattr(p.model, "envelope", nn.Sigmoid()),
    "the cutoff of an envelope": lambda p: setattr(p.model.envelope, "cutoff", 3.0),
    "other Gaussians": lambda p: setattr(p.model, "radial_basis", GaussianSmearing(12, 3.0)),
    "the width of Gaussians": lambda p: setattr(p.model.radial_basis, "gamma", 3.0),
    "activations that end filter networks": end_with_activations,
    "another activation": lambda p: setattr(p.model.readout.network, "activation", nn.Tanh()),
    "an activation with kinks": lambda p: setattr(
        p.model.interactions[0].cfconv.filter_network, "activation", nn.ReLU()
    ),
    "a normalized weight": normalize,
    "a normalized weight of filters": lambda p: normalize(p, "interactions.0.cfconv.filter_network.dense1"),
    "filters without a bias": lambda p: setattr(
        p.model.interactions[0].cfconv.filter_network.dense1, "bias", None
    ),
    "elements' features of bounded length": lambda p: setattr(p.model.embedding, "max_norm", 0.1),
    "fewer interactions": lambda p: p.model.interactions.__delitem__(1),
    "a narrower readout": use_narrower_readout,
    "another readout": lambda p: setattr(p.model, "readout", AtomicMean(p.model.readout.network).double()),
    "an additional bias": lambda p: setattr(
        p.model.interactions[0].atomwise1, "bias", nn.Parameter(torch.ones(8).double())
    ),
    "a hook": lambda p: p.model.interactions[0].register_forward_hook(lambda *a: 1.1 * a[-1]),
    "a hook before": lambda p: p.model.readout.network.register_forward_pre_hook(lambda m, a: 1.1 * a[0]),
    "a hook of messages": lambda p: p.model.interactions[0].cfconv.register_message_forward_hook(
        lambda *a: 1.1 * a[-1]
    ),
    "another forward": lambda p: setattr(p.model.interactions[0], "forward", lambda x, *others: 0.1 * x),
}


@pytest.mark.parametrize("kind", ["constant", "a copy"])
@pytest.mark.parametrize("change", STRUCTURES.values(), ids=STRUCTURES)
def test_a_change_of_structure_is_seen(compiled, water, change, kind):
    freeze(compiled)
    compiled.compiled.constant = kind == "constant"
    before = compiled(water)
    changed = copy.deepcopy(compiled) if kind == "a copy" else compiled
    with torch.no_grad():
        change(changed)
    found, expected = changed(water), eager(changed, water)
    assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(found["energy"], before["energy"])
    changed.model.filters = "exact"
    exact = eager(changed, water)
    for name, value in exact.items():  # filters of splines are right to 1e-6 of them
        assert_close(found[name], value, atol=1e-5 * float(value.abs().max()), rtol=1e-5)
    if kind == "a copy":
        assert torch.equal(compiled(water)["energy"], before["energy"])


def test_hooks_of_backward_are_called(compiled, water):
    compiled.train()
    compiled(water)["energy"].sum().backward()
    calls = []
    compiled.model.readout.register_full_backward_pre_hook(lambda *_: calls.append("before"))
    compiled.model.interactions[0].register_full_backward_hook(lambda *_: calls.append("after"))
    compiled(water, forces=False)["energy"].sum().backward()
    assert calls == ["before", "after"]
    assert "hooks" in compiled.why_eager()


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
def test_a_loaded_state_is_used_though_weights_are_constant(compiled, water, assign):
    freeze(compiled.compile(constant=True))
    compiled(water)
    halves = {name: value / 2 if "model" in name else value for name, value in compiled.state_dict().items()}
    compiled.load_state_dict(halves, assign=assign)
    assert_close(compiled(water), eager(compiled, water), atol=1e-9, rtol=1e-9)


def test_weights_that_are_trained_again_have_programs(compiled, water, share_programs):
    share_programs()
    freeze(compiled.compile().train())
    compiled(water)
    compiled.requires_grad_(True)
    compiled(water)
    assert len(compiled.compiled) == 1


def test_equal_models_share_programs_and_others_do_not(compiled, water):
    def made(**changes):
        other = Potential(SchNet(**{**TINY, "filters": "spline", **changes}).double()).eval().compile()
        other(water)
        return len(other.compiled), other.compiled.seconds

    count, seconds = made()
    assert count > 0
    assert seconds == 0
    assert made(std=2.0)[1] > 0


def test_a_module_at_two_places_is_not_taken_for_two(compiled, water):
    compiled(water)
    both = copy.deepcopy(compiled)
    both.model.interactions[1] = both.model.interactions[0]
    assert_close(both(water), eager(both, water), atol=1e-9, rtol=1e-9)


def test_an_interrupted_first_call_leaves_later_ones_compiled(compiled, water, share_programs, monkeypatch):
    share_programs()
    compiled.compile()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyg_schnet.compile.program.trace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compiled(water)
    assert_close(compiled(water), eager(compiled, water), atol=1e-9, rtol=1e-9)
    assert len(compiled.compiled) == 1


@pytest.mark.parametrize("training", [True, False])
def test_a_network_in_double_precision_takes_positions_in_single(compiled, water, training):
    water.pos = water.pos.float()
    found, expected = compiled.train(training)(water), eager(compiled, water)
    assert compiled.compiled.failure is None
    for name, value in expected.items():  # forces come back in single precision
        assert_close(found[name], value, atol=1e-6 * float(value.detach().abs().max()), rtol=1e-6)
    if training:
        found["forces"].square().sum().backward()


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "to train"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(compiled, water, change, frozen):
    if frozen:
        freeze(compiled)
    before = compiled(water)
    with torch.no_grad():
        change(compiled)
    found, expected = compiled(water), eager(compiled, water)
    assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert not torch.equal(found["energy"], before["energy"])


def test_constant_weights_are_not_looked_at_again(compiled, water):
    freeze(compiled.compile(constant=True))
    before = compiled(water)
    CHANGES["the sign of a bias"](compiled)  # of a filter network, whose spline is kept
    assert torch.equal(compiled(water)["energy"], before["energy"])


def test_constant_weights_that_may_be_trained_are_looked_at(compiled, water):
    compiled.compile(constant=True)
    before = compiled(water)
    CHANGES["the sign of a bias"](compiled)
    assert not torch.equal(compiled(water)["energy"], before["energy"])


class Shifted(SchNet):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) + 1.0


class Expanded(SchNet):
    def _expand(self, *args):
        return super()._expand(*args)


class Doubled(Potential):
    def scaled(self, *args):
        return 2 * super().scaled(*args)


def test_models_that_compute_in_their_own_way_are_not_compiled(water):
    model = Shifted(**TINY, filters="spline").double()
    potential = Potential(model, atomref=torch.full((100,), -1000.0)).eval().compile()
    assert potential.why_eager() == "Shifted computes in a way of its own, which is not compiled"
    assert_close(potential(water), eager(potential, water))
    reason = Potential(Expanded(**TINY, filters="spline").double()).compile().why_eager()
    assert reason == "Expanded computes in a way of its own, which is not compiled"
    reason = Doubled(SchNet(**TINY, filters="spline").double()).compile().why_eager()
    assert reason == "Doubled computes in a way of its own, which is not compiled"


def test_weights_that_are_not_finite_leave_no_program(compiled, water, share_programs):
    share_programs()
    weight = compiled.model.embedding.weight
    kept = weight.detach().clone()
    compiled.compile()
    weight.data.fill_(torch.nan)
    assert compiled(water)["energy"].isnan().all()
    assert len(compiled.compiled) == 0
    weight.data.copy_(kept)
    assert_close(compiled(water), eager(compiled, water), atol=1e-9, rtol=1e-9)
    assert len(compiled.compiled) == 1


def test_two_threads_may_make_the_first_call(compiled, water):
    compiled.compile()
    expected, results, barrier = eager(compiled, water), [], threading.Barrier(2)

    def call():
        barrier.wait()
        results.append(compiled(water))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results:
        assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert len(results) == 2
    assert type(compiled.model.embedding.weight) is torch.nn.Parameter


def test_a_default_device_is_not_that_of_buffers(compiled, water):
    expected = eager(compiled, water)
    with torch.device("meta"):
        found = compiled(water)
    assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("search", [10, 1000], ids=["by cells", "by comparing all"])
def test_errors_name_the_callers_atoms_however_these_are_sorted(compiled, monkeypatch, search):
    monkeypatch.setattr("pyg_schnet.potentials.potential.ATOMS_TO_SORT", 10)
    monkeypatch.setattr("pyg_schnet.graph.pair_graph._ATOMS_TO_COMPARE", search)
    pos = 6 * torch.rand(30, 3, generator=torch.Generator().manual_seed(0)).double()
    pos[17] = pos[5]
    with pytest.raises(ValueError, match="got atoms 5 and 17"):
        compiled(Data(z=torch.ones(30).long(), pos=pos))


@pytest.mark.parametrize("kernels", [True, False])
def test_a_fingerprint_tells_changes_that_cancel_in_sums(monkeypatch, kernels):
    if not kernels:
        monkeypatch.setattr(sys.modules["pyg_schnet.kernels.c.library"], "library", lambda dtype: None)
    a = torch.tensor([1.0, -1.0, -1.0, 1.0] * 4)
    marks = {
        WeightsVersion().read([t]) for t in (a, -a, a.flip(0) * 2, a.roll(1), a[:-1], torch.cat([a, a[:1]]))
    }
    assert len(marks) == 6
    assert WeightsVersion().read([a]) == WeightsVersion().read([a.clone()])
    assert WeightsVersion().read([a, 2 * a]) != WeightsVersion().read([2 * a, a])
    watch, square = WeightsVersion(), torch.randn(300, 300)
    first = watch.read([square, a])
    assert watch.read([square, a]) == first
    assert watch.read([square.T, a]) != first  # at the same place
    square[7, 7] += 1.0
    assert watch.read([square, a]) != first
    assert WeightsVersion().read([torch.tensor(1.0)]) != WeightsVersion().read([torch.tensor(2.0)])
