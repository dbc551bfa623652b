"""C programs compute what the traced graph computes, whatever the threads and the memory."""

import copy
import ctypes
import logging
import os
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile.c_backend import CProgram
from pyg_schnet.compile.comparison import with_nonzero_weights
from pyg_schnet.compile.inputs import find_inputs
from pyg_schnet.compile.passes import simplify
from pyg_schnet.compile.trace import trace
from pyg_schnet.compile.weights import Weights

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def potential(request, randomize, share_programs):
    share_programs("c")  # each kind of call is traced once in this module
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


def program_of(potential):
    """The program of energies and forces in the mode that the potential is in."""
    programs = potential.compiled._programs.items()
    (program,) = [
        program
        for (forces, trained, *_), program in programs
        if (forces, trained) == (True, potential.training)
    ]
    assert type(program) is CProgram
    return program


def inputs_of(potential, batch):
    model = potential.model
    graph = model.build_pairs(batch.z, batch.pos, batch.batch, num_molecules=batch.num_graphs)
    return find_inputs(model, model.filter_tables.features(model), graph)


@pytest.mark.parametrize("simplified", [False, True], ids=["as traced", "simplified"])
def test_c_computes_what_the_traced_graph_computes(potential, large, threads, simplified):
    own = with_nonzero_weights(potential)
    traced = trace(own, inputs_of(own, large), forces=True, trained=True)
    if simplified:
        simplify(traced.graph)
    module = torch.fx.GraphModule(torch.nn.Module(), traced.graph)
    parameters = [p for p in potential.parameters() if p.requires_grad]
    weights = [weight.detach() for weight in Weights(potential).tensors()]
    inputs = inputs_of(potential, large)
    torch.manual_seed(0)
    cotangents = [torch.randn_like(value) for value in potential(large).values()]
    expected = torch.fx.Interpreter(module).run(*weights, *inputs.values(), *cotangents)
    # Sums of 4,000 pairs in another order: 1e-14 and 5e-6 were measured, relative to the largest value.
    tolerance = 1e-11 if potential.model.embedding.weight.dtype == torch.float64 else 2e-4
    for number in (1, 2, 3, 5):
        threads(number)
        out = potential(large)
        gradients = torch.autograd.grad(list(out.values()), parameters, cotangents, allow_unused=True)
        for value, other in zip([*out.values(), *gradients], expected, strict=True):
            if other is not None:
                assert_close(value, other, atol=tolerance * float(other.abs().max()), rtol=0)
    assert type(program_of(potential)) is CProgram


@pytest.mark.parametrize("training", [True, False])
def test_results_are_the_same_bits_for_any_number_of_threads(potential, large, threads, training):
    potential.train(training)

    def results():
        return gradients(potential, large) if training else list(potential(large).values())

    threads(1)
    expected = results()
    for number in (2, 3, 5):
        threads(number)
        assert all(torch.equal(*two) for two in zip(results(), expected, strict=True))


def test_a_program_names_weights_and_shapes(potential, large):
    potential(large)
    source = program_of(potential).source
    assert "interactions_0_cfconv_filter_network_dense1_weight" in source
    assert re.search(r"real \*addmm = .*; /\* \(knots, 8\) \*/", source)
    assert max(map(len, source.splitlines())) <= 120


def test_memory_is_used_again_by_smaller_and_larger_batches(potential, large, water):
    potential(large)
    program = program_of(potential)
    first = [gradients(potential, batch) for batch in (large, water)]
    for _ in range(3):
        again = [gradients(potential, batch) for batch in (large, water)]
        for values, expected in zip(again, first, strict=True):
            assert all(torch.equal(*two) for two in zip(values, expected, strict=True))
    assert len(program._arenas) > 0


def test_results_do_not_depend_on_what_was_in_memory_before(potential, water):
    expected = gradients(potential, water)
    for arena in program_of(potential)._arenas:
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
def test_a_program_reads_nothing_out_of_range(potential, large, wrong, text):
    potential.eval()(large)
    program, inputs = program_of(potential), inputs_of(potential, large)
    blocks = potential.model.interactions
    tables = [b.filter_table.coefficients(b.cfconv.filter_network, inputs.knots).detach() for b in blocks]
    weights = [*(w.detach() for w in Weights(potential).tensors()), *tables]

    def run(weights, tensors):
        results = [torch.empty(inputs.graph.num_molecules).double(), torch.empty_like(inputs.graph.pos)]
        program.execute(program.bind(weights), tensors, results, inputs.sizes(), inputs.knots.start)
        return results

    assert torch.equal(run(weights, inputs.tensors())[0], potential(large)["energy"])
    tried = 0
    for arguments in wrong(weights, inputs.tensors()):
        with pytest.raises(RuntimeError, match=text):
            run(*arguments)
        tried += 1
    assert tried > 5


@pytest.mark.parametrize(
    ("activation", "text"),
    [
        (torch.sin, "aten.sin"),
        (lambda x: x.unsqueeze(2).expand(-1, -1, 2).sum(2), "3 dimensions"),
        (lambda x: x + 0 * x.half().to(x.dtype), "torch.float16"),
        (lambda x: x * x.sum(dim=1, keepdim=True), "aten.sum"),
        (lambda x: (x.t() * x.t()).t(), "mul of a view"),
    ],
    ids=["operation", "dimensions", "type", "sum", "view"],
)
def test_operations_that_the_c_backend_lacks_are_named(
    potential, water, activation, text, monkeypatch, caplog, share_programs
):
    share_programs()
    monkeypatch.setattr(
        type(potential.model.readout.network.activation), "forward", lambda _, x: activation(x)
    )
    with caplog.at_level(logging.INFO), torch.no_grad():
        potential.eval()(water, forces=False)
    assert f"a program runs in Python: {text}" in caplog.text


def test_products_of_torch_keep_their_threads(potential, water, threads):
    torchs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if not hasattr(torchs, "MKL_Set_Num_Threads_Local"):
        pytest.skip("this torch has no limit of its own for matrix products")
    threads(2)
    set_limit = torchs.MKL_Set_Num_Threads_Local
    before = set_limit(2)
    gradients(potential, water)  # small, so that products run on one thread
    assert set_limit(before) == 2


def test_programs_are_compiled_once(potential, water, monkeypatch, tmp_path, share_programs):
    share_programs()
    real = os.environ.get("CC") or "cc"
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\necho x >> {tmp_path}/calls\nexec {real} "$@"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("PYG_SCHNET_CACHE", str(tmp_path / "cache"))
    first = potential(water)
    potential.compile()
    assert torch.equal(potential(water)["energy"], first["energy"])
    assert (tmp_path / "calls").read_text() == "x\n"
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name.startswith("program-")


def test_without_a_compiler_programs_run_in_python(
    potential, water, monkeypatch, tmp_path, caplog, share_programs
):
    share_programs()
    monkeypatch.setenv("CC", str(tmp_path / "missing"))
    monkeypatch.setenv("PYG_SCHNET_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO):
        found = potential(water)
    assert "a program runs in Python: no C compiler was found" in caplog.text
    potential.compiled = None
    assert_close(found, potential(water), atol=1e-4, rtol=1e-4)


def test_a_trace_that_depends_on_a_size_is_rejected(potential, water, monkeypatch, share_programs):
    share_programs()
    network = potential.model.readout.network
    monkeypatch.setattr(type(network.activation), "forward", lambda _, x: x + 1 if len(x) == 21 else x - 1)
    potential.eval()(water)
    assert (
        potential.compiled.failure
        == "it cannot be traced: its operations depend on the number of atoms; running eagerly"
    )
