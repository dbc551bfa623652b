"""Programs: their text, when they are compiled, and when they are rejected."""

import copy
import logging
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile import compiled as module
from pyg_schnet.compile.c_backend import CProgram
from pyg_schnet.compile.python_backend import PythonProgram
from pyg_schnet.compile.trace import splines_of

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture
def model(randomize):
    return randomize(SchNet(**TINY, filters="spline").double())


@pytest.fixture
def pair(model):
    """An eager potential and its compiled twin."""
    eager = Potential(model)
    return eager, copy.deepcopy(eager).compile()


def programs_of(potential):
    return list(potential.compiled._programs.values())


@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_a_python_program_is_text_without_branches(pair, water, backend):
    _, compiled = pair
    compiled(water)
    (program,) = programs_of(compiled)
    for function in (program.forward_function, program.backward_function):
        assert function.source.startswith("def run(")
        assert not re.search(r"\b(if|for|while)\b", function.source)


@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_a_python_program_drops_what_it_no_longer_needs(pair, water, backend):
    compiled = pair[1].eval()
    compiled(water)
    (program,) = programs_of(compiled)
    source = program.forward_function.source
    assigned = re.findall(r"^    (\w+) = ", source, re.M)
    dropped = re.findall(r"^    del (.+)$", source, re.M)
    assert len(", ".join(dropped).split(", ")) >= len(assigned) - 2  # energy and forces stay


def test_each_kind_of_call_has_its_program(pair, water):
    compiled = pair[1]
    for _ in range(2):
        for training in (True, False):
            for forces in (True, False):
                compiled.train(training)(water, forces)
    assert len(compiled.compiled) == 4
    assert compiled.compiled.seconds > 0


def test_an_operation_that_the_c_backend_lacks_runs_in_python(pair, molecules, caplog):
    gradients, batch = [], Batch.from_data_list(molecules)
    for potential in pair:
        potential.model.interactions[0].activation = nn.SiLU()
        with caplog.at_level(logging.INFO):
            out = potential(batch)
        gradients.append(
            torch.autograd.grad(
                out["forces"].square().sum(),
                list(potential.parameters()),
                allow_unused=True,
                materialize_grads=True,
            )
        )
    assert [type(program) for program in programs_of(pair[1])] == [PythonProgram]
    assert "a program runs in Python: aten.silu" in caplog.text
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, atol=1e-11 * float(expected.abs().max()), rtol=0)


def spoil_gradient(monkeypatch):
    backward = module._ProgramFunction.backward

    def wrong(ctx, *gradients):
        found = list(backward(ctx, *gradients))
        found[4] = found[4] * 1.01
        return tuple(found)

    monkeypatch.setattr(module._ProgramFunction, "backward", staticmethod(wrong))


def spoil_result(number):
    def spoil(monkeypatch):
        forward = CProgram.forward

        def wrong(*arguments, **options):
            results, *others = forward(*arguments, **options)
            results[number] *= 1.001
            return results, *others

        monkeypatch.setattr(CProgram, "forward", wrong)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_gradient, r"the compiled gradient of [\w.]+ differs from eager; running eagerly"),
        (spoil_result(0), "the compiled energy differs from eager; running eagerly"),
        (spoil_result(1), "the compiled forces differ from eager; running eagerly"),
    ],
    ids=["gradient", "energy", "forces"],
)
def test_a_wrong_program_is_noticed_told_once_and_not_used(pair, water, monkeypatch, caplog, spoil, text):
    eager, compiled = pair
    spoil(monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = [compiled(water), compiled(water)]
    (record,) = caplog.records
    assert re.fullmatch(text, record.message)
    assert compiled.compiled.failure == record.message
    for out in found:
        assert all(torch.equal(out[name], value) for name, value in eager(water).items())
    assert len(compiled.compiled) == 0


def test_a_first_batch_that_gives_nan_spoils_nothing(pair, water):
    eager, compiled = pair
    with torch.no_grad():
        kept = compiled.model.embedding.weight.clone()
        compiled.model.embedding.weight.fill_(float("nan"))
        assert bool(compiled(water)["energy"].isnan().all())
        compiled.model.embedding.weight.copy_(kept)
    assert compiled.why_eager() is None
    assert compiled.compiled.failure is None
    assert_close(compiled(water)["energy"], eager(water)["energy"], atol=1e-11, rtol=0)


def test_only_schnet_is_compiled(water):
    class Constant(nn.Module):
        def forward(self, z, pos, batch, **others):
            return pos.square().sum().reshape(1, 1)

    potential = Potential(Constant()).eval().compile()
    assert potential.why_eager() == "only SchNet is compiled, not Constant"
    assert float(potential(water)["energy"]) == pytest.approx(float(water.pos.square().sum()))


def test_why_a_potential_runs_eagerly_is_told(model):
    potential = Potential(model)
    assert potential.why_eager() == "compile() was not called"
    assert potential.compile() is potential
    assert potential.why_eager() is None
    model.filters = "exact"
    assert potential.why_eager() == "filters='exact' is not compiled"
    model.filters = "auto"
    assert potential.why_eager() == (
        "filters='auto' is exact in torch.float64, which is not compiled; use filters='spline'"
    )
    model.float()
    assert potential.why_eager() is None
    model.bfloat16()
    assert "bfloat16" in potential.why_eager()


@pytest.mark.parametrize("reach", [6.0, 3.0], ids=["no pair within the cutoff", "a pair"])
def test_shifts_without_periodicity_are_computed_as_in_eager_mode(pair, water, reach):
    eager, compiled = (potential.eval() for potential in pair)
    water.cell = reach * torch.eye(3, dtype=torch.float64)
    water.edge_index = torch.tensor([[0, 1], [1, 0]])
    water.shift = torch.tensor([[1, 0, 0], [-1, 0, 0]])
    assert_close(compiled(water), eager(water), atol=1e-12, rtol=0)


@pytest.mark.parametrize("pos", [[[0.0, 0, 0]], [[0.0, 0, 0], [30.0, 0, 0]]], ids=["one atom", "no pairs"])
def test_batches_without_pairs_run_eagerly(pair, water, pos):
    eager, compiled = (potential.eval() for potential in pair)
    water.z, water.pos = water.z[: len(pos)], torch.tensor(pos, dtype=torch.float64)
    assert_close(compiled(water), eager(water), atol=1e-12, rtol=0)


def test_given_edges_are_used(pair, benzene):
    eager, compiled = (potential.eval() for potential in pair)
    benzene.edge_index = torch.tensor([[0, 1, 5, 3], [1, 0, 3, 5]])
    assert_close(compiled(benzene), eager(benzene), atol=1e-11, rtol=0)
    assert len(compiled.compiled) == 1


def test_autocast_does_not_spoil_later_calls(pair, water):
    compiled = pair[1].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled(water)
    compiled(water)
    assert compiled.why_eager() is None
    assert compiled.compiled.failure is None


def test_tracing_leaves_no_tables_behind(pair, water):
    compiled = pair[1].eval()
    compiled(water)
    assert all(spline.given is None for spline in splines_of(compiled.model))
