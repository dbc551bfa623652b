"""Tapes: the same numbers from C as from the program in Python, whatever the threads and the memory."""

import copy
import ctypes
import dataclasses

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile import machine as machines
from pyg_schnet.compile import trace as tracing
from pyg_schnet.compile.inputs import find_inputs
from pyg_schnet.compile.operation import Unsupported
from pyg_schnet.compile.tape import Tape
from pyg_schnet.compile.weights import Weights

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def potential(request, randomize):
    model = randomize(SchNet(**TINY, filters="spline")).to(request.param)
    return Potential(model, scale=1.3).compile()


@pytest.fixture
def large(molecules):
    """So many pairs that the batch is run in parts."""
    return Batch.from_data_list([*molecules, molecules[2]] * 24)


def gradients(potential, batch):
    out = potential(batch)
    loss = out["energy"].square().sum() + out["forces"].square().sum()
    found = torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)
    return [*(value.detach() for value in out.values()), *(g for g in found if g is not None)]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_c_and_python_run_the_same_program(potential, large, threads, number):
    threads(number)
    found = gradients(potential, large)
    ((key, programs),) = potential.compiled._programs.items()
    assert programs.machine is not None
    potential.compiled._programs[key] = dataclasses.replace(programs, machine=None)
    # Sums of 4,000 pairs in another order: 1e-14 and 5e-6 were measured, relative to the largest value.
    tolerance = 1e-11 if potential.model.embedding.weight.dtype == torch.float64 else 2e-4
    for value, expected in zip(found, gradients(potential, large), strict=True):
        assert_close(value, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


def test_memory_is_used_again_by_smaller_and_larger_batches(potential, large, water):
    potential(large)
    machine = next(iter(potential.compiled._programs.values())).machine
    first = [gradients(potential, batch) for batch in (large, water)]
    for _ in range(3):
        again = [gradients(potential, batch) for batch in (large, water)]
        for values, expected in zip(again, first, strict=True):
            assert all(torch.equal(*two) for two in zip(values, expected, strict=True))
    assert len(machine._arenas) > 0


def test_results_do_not_depend_on_what_was_in_memory_before(potential, water):
    expected = gradients(potential, water)
    machine = next(iter(potential.compiled._programs.values())).machine
    for arena in machine._arenas:
        arena.fill_(255)  # NaN, in both types
    assert all(torch.equal(*two) for two in zip(gradients(potential, water), expected, strict=True))


def test_results_of_one_call_are_not_the_memory_of_another(potential, molecules):
    potential.eval()
    first = potential(molecules[1])
    kept = copy.deepcopy(first)
    potential(molecules[2])
    assert all(torch.equal(first[name], value) for name, value in kept.items())


def test_nan_weights_give_nan_and_no_crash(potential, large):
    gradients(potential, large)
    with torch.no_grad():
        potential.model.embedding.weight.fill_(float("nan"))
    energy, forces, *_ = gradients(potential, large)
    assert bool(energy.isnan().all())
    assert bool(forces.isnan().any())


def numbers_out_of_range(weights, inputs):
    z, pos, batch, pairs, *knots = inputs
    for place, changed in ((3, pairs + 1), (3, -pairs), (2, batch - 1), (2, batch + 1), (0, z + 99)):
        yield weights, [changed if k == place else tensor for k, tensor in enumerate(inputs)]
    crossed = pairs.clone()
    crossed[1, 0] = len(z) - 1  # of another molecule, which another part of the batch has
    yield weights, [z, pos, batch, crossed, *knots]


def other_sizes(weights, inputs):
    for place, weight in enumerate(weights):
        if weight.dtype.is_floating_point and len(weight.shape):
            yield [w[:-1] if k == place else w for k, w in enumerate(weights)], inputs
    for place in range(len(inputs)):
        yield weights, [t[:-1] if k == place else t for k, t in enumerate(inputs)]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (numbers_out_of_range, "numbers.*atoms"),
        (other_sizes, "tensors of other sizes"),
    ],
)
def test_a_tape_reads_nothing_that_is_not_there(potential, large, wrong, text):
    potential.eval()(large)
    (programs,) = potential.compiled._programs.values()
    machine = programs.machine
    model = potential.model
    graph = model.build_pairs(large.z, large.pos, large.batch, num_molecules=large.num_graphs)
    inputs = find_inputs(model, model.filter_tables.features(model), graph)
    blocks = potential.model.interactions
    tables = [b.filter_table.coefficients(b.cfconv.filter_network, inputs.knots).detach() for b in blocks]
    weights = [*(w.detach() for w in Weights(potential).tensors()), *tables]

    def run(weights, tensors):
        results = [torch.empty(graph.num_molecules).double(), torch.empty_like(graph.pos)]
        machine.forward(machine.bind(weights), tensors, results, inputs.sizes(), inputs.knots.start)
        return results

    assert torch.equal(run(weights, inputs.tensors())[0], potential(large)["energy"])
    tried = 0
    for arguments in wrong(weights, inputs.tensors()):
        with pytest.raises(RuntimeError, match=text):
            run(*arguments)
        tried += 1
    assert tried > 5


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x.sin(), "aten.sin"),
        (lambda x: x.unsqueeze(2).expand(-1, -1, 2), "3 dimensions"),
        (lambda x: x.half(), "torch.float16"),
        (lambda x: x.sum(dim=1), "aten.sum"),
        (lambda x: x.t() + x.t(), "add of a view"),
    ],
    ids=["operation", "dimensions", "type", "sum", "view"],
)
def test_what_a_tape_does_not_know_is_refused(function, text):
    graph = make_fx(function, tracing_mode="symbolic")(torch.zeros(7, 5)).graph
    (argument,) = (node for node in graph.nodes if node.op == "placeholder")
    body = [node for node in graph.nodes if node.op == "call_function"]
    external = [(argument, tracing.External(tracing.ATOMS, 20))]
    with pytest.raises(Unsupported, match=text):
        Tape(
            external,
            body,
            [],
            [(body[-1], 0)],
            [],
            {7: (tracing.ATOMS, 0)},
            argument,
            argument,
            None,
            torch.float32,
        )


def test_torchs_own_products_keep_their_threads(potential, water, threads):
    limit = machines._functions(torch.float32).limit
    if limit is None:
        pytest.skip("this torch has no limit of its own for matrix products")
    threads(2)
    set_limit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(limit)
    before = set_limit(2)
    gradients(potential, water)  # small, so that products run on one thread
    assert set_limit(before) == 2
