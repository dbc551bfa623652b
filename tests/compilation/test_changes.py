"""Whatever is changed in a potential after it was compiled, its results are those of eager."""

import copy
import sys
import threading

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.native import Watch

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}
PROGRAMS = {}


@pytest.fixture
def compiled(randomize, water):
    """A compiled potential that has run; programs are made once for all tests."""
    model = randomize(SchNet(**TINY, filters="spline").double())
    potential = Potential(model, atomref=torch.linspace(-1, 1, 100)).eval().compile()
    potential.compiled._programs = dict(PROGRAMS)
    potential(water)
    PROGRAMS.update(potential.compiled._programs)
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
    "a hook": lambda p: p.model.interactions[0].register_forward_hook(lambda *a: 1.1 * a[-1]),
}


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


class Doubled(Potential):
    def scaled(self, *args):
        return 2 * super().scaled(*args)


def test_models_that_compute_in_their_own_way_are_not_compiled(water):
    model = Shifted(**TINY, filters="spline").double()
    potential = Potential(model, atomref=torch.full((100,), -1000.0)).eval().compile()
    assert potential.why_eager() == "Shifted computes in a way of its own, which is not compiled"
    assert_close(potential(water), eager(potential, water))
    reason = Doubled(SchNet(**TINY, filters="spline").double()).compile().why_eager()
    assert reason == "Doubled computes in a way of its own, which is not compiled"


def test_weights_that_are_not_finite_leave_no_program(compiled, water):
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


def test_a_default_device_is_not_that_of_the_machines_memory(compiled, water):
    expected = eager(compiled, water)
    with torch.device("meta"):
        found = compiled(water)
    assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("search", [10, 1000], ids=["by cells", "by comparing all"])
def test_errors_name_the_callers_atoms_however_these_are_sorted(compiled, monkeypatch, search):
    monkeypatch.setattr("pyg_schnet.ordering._ATOMS_TO_ORDER", 10)
    monkeypatch.setattr("pyg_schnet.compilation.inputs._ATOMS_TO_COMPARE", search)
    pos = 6 * torch.rand(30, 3, generator=torch.Generator().manual_seed(0)).double()
    pos[17] = pos[5]
    with pytest.raises(ValueError, match="got atoms 5 and 17"):
        compiled(Data(z=torch.ones(30).long(), pos=pos))


@pytest.mark.parametrize("kernels", [True, False])
def test_a_fingerprint_tells_changes_that_cancel_in_sums(monkeypatch, kernels):
    if not kernels:
        monkeypatch.setattr(sys.modules["pyg_schnet.native.library"], "library", lambda dtype: None)
    a = torch.tensor([1.0, -1.0, -1.0, 1.0] * 4)
    marks = {Watch().look([t]) for t in (a, -a, a.flip(0) * 2, a.roll(1), a[:-1], torch.cat([a, a[:1]]))}
    assert len(marks) == 6
    assert Watch().look([a]) == Watch().look([a.clone()])
    assert Watch().look([a, 2 * a]) != Watch().look([2 * a, a])
    watch, square = Watch(), torch.randn(300, 300)
    first = watch.look([square, a])
    assert watch.look([square, a]) == first
    assert watch.look([square.T, a]) != first  # at the same place
    square[7, 7] += 1.0
    assert watch.look([square, a]) != first
    assert Watch().look([torch.tensor(1.0)]) != Watch().look([torch.tensor(2.0)])
