"""Compiled potentials compute what eager ones compute, whatever runs the programs."""

import copy
import itertools
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile import program as programs
from pyg_schnet.graph.pair_graph import spatial_order

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}
PAPER = {
    **TINY,
    **{"num_gaussians": 60, "cutoff": None, "last_center": 6.0, "gamma": 10.0, "final_activation": True},
}
CONFIGURATIONS = {
    "default": TINY,
    "paper": PAPER,
    "polynomial": {**TINY, "envelope": "polynomial"},
    "mean": {**TINY, "readout": "mean"},
    "dipole": {**TINY, "dipole": True},
    "scaled": {**TINY, "mean": 0.3, "std": 1.7},
    "wide": {**TINY, "hidden_channels": 12, "num_filters": 16},
    "silu": {**TINY, "readout_activation": "silu"},
    "tanh": {**TINY, "readout_activation": "tanh"},
}
# Relative to the largest value: the same sums in another order; 1e-14 and 1e-5 were measured.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}


@pytest.fixture
def built(randomize, share_programs):
    """An eager potential and its compiled twin, in training mode.

    Twins of one architecture share programs, which hold no weights, unless they are to be ``fresh``: tracing
    takes a second.
    """

    def build(arguments=TINY, dtype=torch.float64, fresh=False, **others):
        atomref = torch.linspace(-1, 1, 100, dtype=torch.float64)
        model = randomize(SchNet(**arguments, filters="spline")).to(dtype)
        eager = Potential(model, scale=1.3, atomref=atomref, **others)
        compiled = copy.deepcopy(eager).compile()
        share_programs(None if fresh else programs.CProgram.__name__)
        return eager, compiled

    return build


@pytest.fixture
def batch(molecules):
    return Batch.from_data_list(molecules)


def loss_of(out):
    generator = torch.Generator().manual_seed(0)
    return sum(
        (value * torch.randn(value.shape, generator=generator).to(value)).sum() + value.square().sum()
        for value in out.values()
    )


def results(potential, batch, forces=True):
    """Energies, forces and, in training mode, the gradient of a loss for each parameter."""
    potential.zero_grad()
    out = potential(batch, forces)
    if potential.training:
        loss_of(out).backward()
    gradients = {name: p.grad for name, p in potential.named_parameters() if p.grad is not None}
    return {**{name: value.detach() for name, value in out.items()}, **gradients}


def assert_same(found, expected, dtype=torch.float64):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        bound = TOLERANCE[dtype] * float(value.abs().max())
        assert_close(found[name], value, atol=bound, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def kinds_of_calls():
    """All kinds of calls of the usual network and of a dipole; training on forces of the others in C."""
    found = []
    for name in CONFIGURATIONS:
        for backend, forces, training in itertools.product(("c", "python"), (True, False), (True, False)):
            if name in ("default", "dipole") or (backend == "c" and forces and training):
                words = (
                    name,
                    backend,
                    "forces" if forces else "energy",
                    "training" if training else "evaluation",
                )
                found.append(
                    pytest.param(CONFIGURATIONS[name], backend, forces, training, id="-".join(words))
                )
    return found


@pytest.mark.parametrize(
    ("arguments", "backend", "forces", "training"), kinds_of_calls(), indirect=["backend"]
)
def test_results_and_gradients_equal_eager_ones(built, batch, arguments, backend, forces, training):
    eager, compiled = built(arguments, fresh=True)
    expected, found = (results(p.train(training), batch, forces) for p in (eager, compiled))
    assert compiled.why_eager() is None
    assert compiled.compiled.failure is None
    assert len(compiled.compiled) == 1
    assert_same(found, expected)


@pytest.mark.parametrize("positions", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("arguments", [TINY, PAPER], ids=["default", "paper"])
def test_results_in_float32_equal_eager_ones(built, batch, arguments, training, positions, backend):
    eager, compiled = built(arguments, torch.float32)
    batch.pos = batch.pos.to(positions)
    expected, found = (results(p.train(training), batch) for p in (eager, compiled))
    assert compiled.why_eager() is None
    assert compiled.compiled.failure is None
    assert found["forces"].dtype == positions
    assert_same(found, expected, torch.float32)


# With few Gaussians, their number is also that of dimensions of space, or of rows of pairs.
@pytest.mark.parametrize("gaussians", [2, 3, 4, 5, 8, 9])
def test_equal_extents_are_not_confused(built, molecules, gaussians):
    eager, compiled = built({**TINY, "num_gaussians": gaussians})
    for molecule in molecules:
        assert_same(results(compiled, molecule), results(eager, molecule))
    # Of two Gaussians, one would remain, whose columns broadcast.
    assert (compiled.compiled.failure is None) == (gaussians > 2)


def lone(z):
    return Data(z=torch.tensor([z]), pos=torch.zeros(1, 3, dtype=torch.float64))


BATCHES = {
    "one": ["water"],
    "as many atoms as channels": ["water", "water", 1, 1],
    "as many molecules as channels": ["water"] * 8,
    "lone atoms between": [1, "water", 8, 1, "ethanol", 6],
    "many": ["benzene", "ethanol"] * 20,
    "many with lone atoms": ["benzene", 1, 1] * 30,
}


def batches(molecules):
    named = dict(zip(("water", "ethanol", "benzene"), molecules, strict=True))
    for parts in BATCHES.values():
        yield Batch.from_data_list([named[part] if isinstance(part, str) else lone(part) for part in parts])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_program_serves_batches_of_any_size(built, molecules, backend, threads, number):
    eager, compiled = built(fresh=True)
    for batch in batches(molecules):
        threads(1)
        expected = results(eager, batch)
        threads(number)
        assert_same(results(compiled, batch), expected)
    assert len(compiled.compiled) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_results_are_the_same_bits_in_each_run(built, molecules, backend, threads, number):
    threads(number)
    compiled = built(dtype=torch.float32)[1]
    batch = list(batches(molecules))[-1]
    first = results(compiled, batch)
    for _ in range(5):
        again = results(compiled, batch)
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_a_batch_with_molecules_without_atoms_has_their_energies(built, water, backend):
    eager, compiled = built()
    water.batch = torch.tensor([2, 2, 2])
    assert_same(results(compiled, water), results(eager, water))


def test_twenty_steps_of_training_equal_eager_ones(built, molecules, backend):
    weights = []
    data = list(batches(molecules))
    for potential in built():
        optimizer = torch.optim.Adam(potential.parameters(), lr=1e-3)
        for step in range(20):
            optimizer.zero_grad()
            loss_of(potential(data[step % 4])).backward()
            optimizer.step()
        weights.append(dict(potential.named_parameters()))
    for name, value in weights[0].items():
        # Adam turns the rounding of gradients near zero into steps: 1e-9 was measured
        assert_close(weights[1][name], value, atol=1e-7, rtol=0)


def test_weights_may_change_between_calls(built, batch, backend):
    eager, compiled = built()
    for training in (True, False):
        for factor in (0.9, 1.2):
            for potential in (eager, compiled):
                with torch.no_grad():
                    for parameter in potential.parameters():
                        parameter.mul_(factor)
            assert_same(*(results(p.train(training), batch) for p in (compiled, eager)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["same order", "reversed"])
def test_two_calls_before_their_backwards_do_not_mix(built, molecules, order, backend):
    gradients = []
    for potential in built():
        parameters, found = list(potential.parameters()), []
        for _ in range(3):  # the first leaves memory behind, or none
            losses = [loss_of(potential(molecule)) for molecule in molecules[:2]]
            found += [torch.autograd.grad(losses[k], parameters, allow_unused=True) for k in order]
        gradients.append([g for gs in found for g in gs if g is not None])
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, atol=1e-11 * float(expected.abs().max()), rtol=0)


def test_a_second_backward_is_refused_as_torch_refuses_it(built, water, backend):
    loss = loss_of(built()[1](water))
    loss.backward()
    with pytest.raises(RuntimeError, match=r"backward.*graph"):
        loss.backward()


def test_a_kept_graph_gives_the_same_gradients_again(built, batch, backend):
    compiled = built()[1]
    loss = loss_of(compiled(batch))
    first, second = (
        torch.autograd.grad(loss, list(compiled.parameters()), retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_kept_graph_survives_another_call(built, molecules, backend):
    compiled = built()[1]
    loss = loss_of(compiled(molecules[2]))
    first = torch.autograd.grad(loss, list(compiled.parameters()), retain_graph=True)
    loss_of(compiled(molecules[0])).backward()
    second = torch.autograd.grad(loss, list(compiled.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_step_between_call_and_backward_is_refused(built, water, backend):
    compiled = built()[1]
    loss = loss_of(compiled(water))
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.mul_(0.5)
    with pytest.raises(RuntimeError, match=r"modified (by an )?in-?place"):
        loss.backward()


@pytest.mark.parametrize("result", ["energy", "forces"])
def test_a_loss_of_one_result_has_its_gradients(built, batch, result, backend):
    eager, compiled = built()
    gradients = [
        torch.autograd.grad(
            p(batch)[result].sum() if result == "energy" else p(batch)[result].square().sum(),
            list(p.parameters()),
            allow_unused=True,
            materialize_grads=True,
        )
        for p in (compiled, eager)
    ]
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, atol=1e-11 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("some", [True, False], ids=["embedding", "all"])
def test_weights_that_are_not_trained_have_no_gradients(built, water, some, backend):
    found = []
    for potential in built(fresh=True):
        for name, parameter in potential.named_parameters():
            parameter.requires_grad_(some and "embedding" not in name)
        out = potential(water)
        found.append({name: value.detach() for name, value in out.items()})
        if some:
            loss_of(out).backward()
            found[-1] |= {n: p.grad for n, p in potential.named_parameters() if p.grad is not None}
    assert_same(found[1], found[0])


@pytest.mark.parametrize("training", [True, False])
def test_positions_that_are_differentiated_run_eagerly(built, water, training):
    eager, compiled = built(fresh=True)
    gradients = []
    for potential in (eager.train(training), compiled.train(training)):
        data = water.clone()
        data.pos = data.pos.clone().requires_grad_()
        out = potential(data)
        gradients.append([out["forces"].detach()])
        if training:
            gradients[-1] += torch.autograd.grad(out["energy"].sum(), data.pos)
    assert len(compiled.compiled) == 0
    assert_close(gradients[1], gradients[0])


def test_weights_that_lie_by_columns_are_taken_as_they_are(built, water, backend):
    eager, compiled = built()
    layer = compiled.model.interactions[0].atomwise2
    layer.weight.data = layer.weight.data.t().contiguous().t()
    assert_same(results(compiled, water), results(eager, water))


def test_copies_share_programs_but_not_weights(built, water, backend):
    compiled = built(fresh=True)[1].eval()
    expected = results(compiled, water)
    copied = copy.deepcopy(compiled)
    assert len(copied.compiled) == 1
    assert_same(results(copied, water), expected)
    with torch.no_grad():
        copied.model.embedding.weight.mul_(2)
    assert not torch.allclose(results(copied, water)["energy"], expected["energy"])
    assert_same(results(compiled, water), expected)


def test_a_pickled_potential_makes_its_programs_again(built, water):
    compiled = built(fresh=True)[1].eval()
    expected = results(compiled, water)
    loaded = pickle.loads(pickle.dumps(compiled))
    assert len(loaded.compiled) == 0
    assert_same(results(loaded, water), expected)
    assert len(loaded.compiled) == 1


@pytest.mark.parametrize("training", [True, False])
def test_without_gradients_the_numbers_are_the_same(built, water, training, backend):
    eager, compiled = (potential.train(training) for potential in built())
    with torch.no_grad():
        expected, found = eager(water), compiled(water)
    assert_close(found, {name: value.detach() for name, value in expected.items()}, atol=1e-11, rtol=0)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("grouped", [True, False], ids=["batch of one", "no batch"])
@pytest.mark.parametrize("forces", [True, False], ids=["forces", "energy"])
def test_a_large_system_in_any_order_has_its_results(built, grouped, training, forces, monkeypatch):
    monkeypatch.setattr("pyg_schnet.potentials.potential.ATOMS_TO_SORT", 50)
    sorted_systems = []
    monkeypatch.setattr(
        "pyg_schnet.graph.pair_graph.spatial_order",
        lambda pos: sorted_systems.append(len(pos)) or spatial_order(pos, width=2.0),  # not the order given
    )
    generator = torch.Generator().manual_seed(0)
    pos = 1.6 * torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64, generator=generator)].double()
    system = Data(
        z=torch.randint(1, 9, (64,), generator=generator), pos=pos + 0.1 * torch.rand(64, 3).double()
    )
    kept = system.clone()
    eager, compiled = built()
    given = Batch.from_data_list([system]) if grouped else system
    expected, found = (results(p.train(training), given, forces) for p in (eager, compiled))
    assert sorted_systems == [64, 64]
    assert_same(found, expected)
    assert torch.equal(system.pos, kept.pos)
    assert torch.equal(system.z, kept.z)


def test_unsorted_molecules_are_refused_however_many_atoms_there_are(built, monkeypatch):
    monkeypatch.setattr("pyg_schnet.potentials.potential.ATOMS_TO_SORT", 3)
    data = Data(z=torch.ones(4).long(), pos=torch.rand(4, 3), batch=torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"`batch`.*sorted"):
        built()[1](data)
