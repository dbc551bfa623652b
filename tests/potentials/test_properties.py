import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.potentials.targets import Target
from pyg_schnet.simulation import SchNetCalculator
from tests.fixtures import TINY

NAMES = ("U0", "gap", "mu", "r2", "charges")
PER_MOLECULE = NAMES[:4]


def build(readout="add", seed=0):
    torch.manual_seed(seed)
    model = SchNet(**TINY, cutoff=5.0, readout=readout)
    properties = {Target(name): Target(name).readout(8) for name in NAMES}
    return Potential(model, scale=0.5, properties=properties).double().eval()


def structure(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(1, 9, (size,), generator=generator)
    return Data(z=z, pos=2.5 * torch.randn(size, 3, generator=generator, dtype=torch.float64))


def batch_of(*sizes):
    return Batch.from_data_list([structure(size, number) for number, size in enumerate(sizes)])


@pytest.mark.parametrize("readout", ["add", None])
def test_properties_are_invariant_under_rotations_and_translations(readout):
    potential, data = build(readout), batch_of(5, 9)
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q
    moved = data.clone()
    moved.pos = data.pos @ rotation.T + 3.0
    before, after = potential(data), potential(moved)
    for name in NAMES:
        assert_close(after[name], before[name], rtol=1e-9, atol=1e-9)


def test_properties_follow_the_order_of_the_atoms():
    potential, data = build(), structure(7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    before, after = potential(data), potential(Data(z=data.z[order], pos=data.pos[order]))
    for name in PER_MOLECULE:
        assert_close(after[name], before[name], rtol=1e-10, atol=1e-10)
    assert_close(after["charges"], before["charges"][order], rtol=1e-10, atol=1e-10)


def test_values_of_atoms_keep_their_order_where_large_molecules_are_sorted(monkeypatch):
    potential, data = build(), structure(40)
    before = potential(data)
    monkeypatch.setattr("pyg_schnet.potentials.potential.ATOMS_TO_SORT", 10)
    assert potential.build_graph(data).order is not None
    assert_close(potential(data), before, rtol=1e-10, atol=1e-10)


def test_of_two_molecules_far_apart_extensive_properties_add_and_intensive_ones_average():
    potential, one = build(), structure(6)
    far = Data(z=one.z.repeat(2), pos=torch.cat([one.pos, one.pos + 100.0]))
    alone, both = potential(one), potential(far)
    assert_close(both["U0"], 2 * alone["U0"])
    assert_close(both["gap"], alone["gap"])
    assert_close(both["charges"], alone["charges"].repeat(2))


def test_energies_and_forces_are_those_without_properties():
    potential, data = build(), batch_of(5, 8)
    alone, out = Potential(potential.model, scale=0.5).eval()(data), potential(data)
    for name, value in alone.items():
        assert_close(out[name], value, rtol=0, atol=1e-12)


def test_an_ensemble_has_the_mean_and_the_deviation_of_each_property():
    members, data = [build(seed=seed) for seed in range(3)], batch_of(4, 5)
    out, single = Ensemble(members).eval()(data), [member(data) for member in members]
    for name in NAMES:
        values = torch.stack([own[name] for own in single])
        assert_close(out[name], values.mean(0))
        assert_close(out[f"{name}_deviation"], values.std(0))


def test_a_calculator_refuses_a_model_without_energies():
    with pytest.raises(ValueError, match=r"must predict energies.*predicts U0, gap"):
        SchNetCalculator(build(None))


@pytest.mark.process
@pytest.mark.parametrize("readout", ["add", None])
def test_compiled_potentials_have_the_same_results_and_gradients(readout):
    eager, compiled, data = build(readout).float(), build(readout).float(), batch_of(5, 9, 12, 7)
    compiled.model.filters = eager.model.filters = "spline"
    compiled.compile()
    for training in (False, True):
        found, expected = compiled.train(training)(data), eager.train(training)(data)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    gradients = [
        torch.autograd.grad(sum(v.square().mean() for v in out.values()), list(own.parameters()))
        for own, out in ((compiled, found), (eager, expected))
    ]
    for own, other in zip(*gradients, strict=True):
        assert_close(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
    assert len(compiled.compiled) == 2
    assert compiled.compiled.failure is None
