"""Programs for accelerators sum by compressed rows: the same numbers, few launches, no atomic operations."""

import copy
import logging

import pytest
import torch
from ase.build import bulk
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import Potential, RadiusGraph, SchNet
from pyg_schnet.compile.c_backend import CProgram
from pyg_schnet.compile.python_backend import PythonProgram
from pyg_schnet.transforms.ase_atoms import from_ase
from tests.gpu_like import LaunchCounter, gpu_like

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 3, "num_gaussians": 12, "cutoff": 4.0}
PAPER = {**TINY, "cutoff": None, "last_center": 6.0, "gamma": 10.0, "final_activation": True}
ATOMICS = ("index_add", "embedding_dense_backward", "scatter", "index_put", "index_copy")


@pytest.fixture
def batch(molecules):
    return Batch.from_data_list(molecules)


@pytest.fixture
def crystals():
    """Two crystals of silicon, the atoms displaced."""
    crystals = []
    for seed, repeat in enumerate([(1, 1, 1), (2, 1, 1)]):
        atoms = bulk("Si", cubic=True) * repeat
        atoms.rattle(0.1, seed=seed)
        crystals.append(from_ase(atoms))
    return Batch.from_data_list(crystals)


@pytest.fixture
def system(request):
    """The architecture of a network, and a batch that it evaluates."""
    name, arguments = {
        "molecules": ("batch", PAPER),
        "crystals": ("crystals", {**TINY, "envelope": "polynomial"}),
        "means": ("batch", {**TINY, "readout": "mean", "mean": 0.3}),
        "dipoles": ("batch", {**TINY, "dipole": True}),
    }[request.param]
    return arguments, request.getfixturevalue(name)


@pytest.fixture
def built(randomize):
    def build(arguments, dtype=torch.float64):
        model = randomize(SchNet(**arguments, filters="spline")).to(dtype)
        return Potential(model, scale=1.3, atomref=torch.linspace(-1, 1, 100, dtype=torch.float64))

    return build


def graph_of(potential, batch):
    """Build the pairs as on an accelerator."""
    given = {name: batch[name] for name in ("cell", "pbc") if name in batch}
    graph = potential.model.build_pairs(
        batch.z, batch.pos, batch.batch, num_molecules=batch.num_graphs, **given
    )
    assert graph.csr is not None
    return graph


def loss_of(out):
    return sum(value.sin().sum() for value in out.values())


def results(potential, batch, graph=None):
    out = potential(batch, stress="cell" in batch, graph=graph)
    found = {name: value.detach() for name, value in out.items()}
    if potential.training:
        names, parameters = zip(*potential.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss_of(out), parameters, allow_unused=True)
        found |= {n: g for n, g in zip(names, gradients, strict=True) if g is not None}
    return found


def program_of(potential):
    (program,) = potential.compiled._programs.values()
    return program


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_pairs_beyond_the_cutoff_add_nothing(built, crystals, training):
    eager = built({**TINY, "num_interactions": 1}).train(training)
    expected = results(eager, crystals)
    longer = RadiusGraph(TINY["cutoff"] + 1.0)(crystals.clone())  # as a Verlet list
    with gpu_like():
        compiled = copy.deepcopy(eager).compile(backend="python")
        found = results(compiled, longer)
    assert compiled.compiled.failure is None
    assert len(compiled.compiled) == 1
    for name, value in expected.items():  # the same sums in another order
        assert_close(found[name], value, atol=1e-11 * float(value.abs().max()), rtol=0, msg=name)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "system",
    ["molecules", "crystals", *(pytest.param(n, marks=pytest.mark.process) for n in ("means", "dipoles"))],
    indirect=True,
)
def test_sums_by_rows_change_no_number(built, system, training):
    arguments, batch = system
    eager = built({**arguments, "num_interactions": 1}).train(training)
    expected = results(eager, batch)
    with gpu_like():
        compiled = copy.deepcopy(eager).compile(backend="python")
        found = results(compiled, batch, graph_of(compiled, batch))
    assert compiled.compiled.failure is None
    assert type(program_of(compiled)) is PythonProgram
    assert found.keys() == expected.keys()
    for name, value in expected.items():  # the same sums in another order
        assert_close(found[name], value, atol=1e-11 * float(value.abs().max()), rtol=0, msg=name)


# With three interactions, as in the paper: 227 to 230 and 69 to 71 launches. Inductor needs fewer.
@pytest.mark.parametrize(("training", "bound"), [(True, 250), (False, 120)], ids=["training", "evaluation"])
@pytest.mark.parametrize("system", ["molecules", "crystals"], indirect=True)
def test_a_program_launches_little_and_needs_no_atomic_operations(built, system, training, bound):
    arguments, batch = system
    with gpu_like():
        compiled = built(arguments, torch.float32).train(training).compile(backend="python")
        compiled.requires_grad_(training)
        graph = graph_of(compiled, batch)
        compiled(batch, graph=graph)
        with LaunchCounter() as counter:
            out = compiled(batch, graph=graph)
        if training:
            cotangents = [torch.ones_like(value) for value in out.values()]
            with counter:
                torch.autograd.grad(
                    list(out.values()), [*compiled.parameters()], cotangents, allow_unused=True
                )
    assert type(program_of(compiled)) is PythonProgram
    assert counter.launches <= bound, counter.report()
    assert not counter.synchronizations, counter.report()
    source = program_of(compiled).forward_function.source
    if training:
        source += program_of(compiled).backward_function.source
    assert not [name for name in ATOMICS if name in source]


@pytest.mark.parametrize("system", ["molecules"], indirect=True)
def test_changes_that_autograd_counts_are_seen_on_accelerators(built, system):
    arguments, batch = system
    with gpu_like():
        compiled = built(arguments).eval().compile(backend="python")
        graph = graph_of(compiled, batch)
        before = compiled(batch, graph=graph)
        with torch.no_grad():
            compiled.model.interactions[0].cfconv.filter_network.dense1.weight.mul_(1.3)
        found = compiled(batch, graph=graph)
    compiled.compiled = None
    assert_close(found, compiled(batch), atol=1e-11, rtol=1e-11)
    assert not torch.allclose(found["energy"], before["energy"])


@pytest.mark.parametrize("system", ["molecules"], indirect=True)
def test_programs_in_c_are_for_cpus(built, system, caplog):
    arguments, batch = system
    compiled = built(arguments).eval().compile(backend="c")
    expected = compiled(batch)
    assert type(program_of(compiled)) is CProgram
    compiled.compile(backend="c")
    with gpu_like(), caplog.at_level(logging.INFO):
        found = compiled(batch, graph=graph_of(compiled, batch))
    assert "a program runs in Python: programs in C are for CPUs" in caplog.text
    assert_close(found, expected, atol=1e-11, rtol=0)


def test_an_unknown_backend_is_refused(built):
    with pytest.raises(ValueError, match=r"`backend`.*'inductor'.*got 'cuda'"):
        built(TINY).compile(backend="cuda")
