"""Compiled potentials of periodic systems compute what the plain network computes from directed edges."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, RadiusGraph, SchNet
from pyg_schnet.compile import program as programs
from pyg_schnet.graph import pair_graph
from pyg_schnet.graph.sites import find_sites
from pyg_schnet.transforms.ase_atoms import from_ase

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}  # of the largest value


@pytest.fixture
def built(randomize, share_programs):
    def build(dtype=torch.float64, **changes):
        model = randomize(SchNet(**{**TINY, **changes}, envelope="polynomial", filters="spline")).to(dtype)
        eager = Potential(model, scale=1.3, atomref=torch.linspace(-1, 1, 100, dtype=torch.float64))
        compiled = copy.deepcopy(eager).compile()
        share_programs(programs.CProgram.__name__)
        return eager, compiled

    return build


def crystal(seed, repeat=(1, 1, 1), a=4.4, pbc=True):
    """Silicon carbide, sheared and shaken; with atoms outside of the cell."""
    rng = np.random.default_rng(seed)
    atoms = bulk("SiC", "zincblende", a=a) * repeat
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    atoms.positions[-1] += 2 * atoms.cell[0] - atoms.cell[2]
    atoms.pbc = pbc
    return from_ase(atoms)


def molecule(water):
    return Data(z=water.z, pos=water.pos, cell=torch.zeros(1, 3, 3).double(), pbc=torch.zeros(1, 3).bool())


def agree(found, expected, tolerance):
    assert set(found) == set(expected)
    for name, value in expected.items():
        bound = tolerance * float(value[value.isfinite()].abs().max())
        assert_close(found[name], value, atol=bound, rtol=0, equal_nan=True)


@pytest.fixture
def plain(monkeypatch):
    """Compute by directed edges."""

    def run(potential, data, **wanted):
        with monkeypatch.context() as patch:
            patch.setattr(pair_graph, "find_sites", lambda *arguments: None)
            return potential(data, **wanted)

    return run


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stress", [True, False])
@pytest.mark.parametrize("repeat", [(1, 1, 1), (3, 2, 1), (5, 5, 5)], ids=str)
def test_crystals_are_computed_alike(built, plain, backend, dtype, stress, repeat):
    eager, compiled = (p.eval() for p in built(dtype))
    data = crystal(0, repeat)
    found = compiled(data, stress=stress)
    assert len(compiled.compiled) > 0, compiled.compiled.failure
    eager.model.filters = "exact"
    agree(found, plain(eager, data, stress=stress), 1e-4 if dtype == torch.float32 else 1e-5)
    eager.model.filters = "spline"
    agree(found, eager(data, stress=stress), TOLERANCE[dtype])
    agree(
        compiled(data, forces=False, stress=stress),
        eager(data, forces=False, stress=stress),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("pbc", [(1, 1, 0), (0, 1, 0)])
def test_slabs_and_wires_are_computed_alike(built, backend, pbc):
    eager, compiled = (p.eval() for p in built())
    data = crystal(1, pbc=pbc)
    agree(compiled(data, stress=True), eager(data, stress=True), 1e-11)


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_of_crystals_and_molecules_are_cut_into_parts_that_find_their_sites(
    built, plain, backend, water, threads
):
    systems = [
        crystal(0, (3, 3, 2)),
        molecule(water),
        *(crystal(k, (2, 2, k)) for k in (1, 2, 3)),
        crystal(5),
    ]
    batch = Batch.from_data_list(systems)
    eager, compiled = (p.eval() for p in built())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = compiled(batch, stress=True)
    finally:
        torch.set_num_threads(before)
    agree(found, eager(batch, stress=True), 1e-11)
    for number, system in enumerate(systems):
        if number != 1:
            alone = compiled(system, stress=True)
            assert_close(found["stress"][number], alone["stress"][0], atol=1e-13, rtol=1e-11)
            assert_close(found["forces"][batch.batch == number], alone["forces"], atol=1e-12, rtol=0)
    assert found["stress"][1].isnan().all()


@pytest.mark.parametrize("stress", [True, False])
def test_gradients_of_weights_are_alike_with_forces_and_stresses_in_the_loss(built, backend, stress):
    batch = Batch.from_data_list([crystal(0, (2, 2, 2)), crystal(1), crystal(2, (2, 1, 3))])
    gradients = []
    for potential in built():
        out = potential.train()(batch, stress=stress)
        loss = sum(((k + 1) * value.sin()).sum() for k, value in enumerate(out.values()))
        gradients.append(torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True))
    for found, expected in zip(*gradients, strict=True):
        if expected is None:
            assert found is None or not found.any()
        else:
            assert_close(found, expected, atol=1e-11 * float(expected.abs().max()), rtol=0)


def test_given_edges_of_a_longer_reach_give_the_same(built):
    eager, compiled = (p.eval() for p in built())
    data = crystal(3, (2, 2, 1))
    expected = eager(data, stress=True)
    graph = RadiusGraph(5.5)(data.clone())
    agree(compiled(graph, stress=True), expected, 1e-11)
    graph.sites = find_sites(graph.edge_index, graph.shift, torch.zeros_like(graph.z))
    agree(compiled(graph, stress=True), expected, 1e-11)


def test_edges_without_their_reverse_run_as_if_not_compiled(built, share_programs):
    eager, compiled = (p.eval() for p in built())
    graph = RadiusGraph(4.0)(crystal(3))
    graph.edge_index, graph.shift = graph.edge_index[:, 1:], graph.shift[1:]
    share_programs()
    assert_close(compiled(graph)["forces"], eager(graph)["forces"], atol=0, rtol=0)
    assert len(compiled.compiled) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update({"z": torch.tensor([6, 100])}), "`z` contains 100"),
        (lambda d: d.pos.__setitem__(0, d.pos[1] + d.cell[0, 2]), "atoms.*point"),
        (lambda d: d.pos.__setitem__((0, 0), torch.nan), "`pos`.*finite"),
        (lambda d: d.cell.__setitem__((0, 1), 2 * d.cell[0, 0]), "independent lattice vectors"),
        (lambda d: d.__delitem__("cell"), "`cell`"),
    ],
)
def test_wrong_crystals_are_told_as_by_the_eager_potential(built, change, message):
    _, compiled = (p.eval() for p in built())
    data = crystal(0)
    change(data)
    with pytest.raises(ValueError, match=message):
        compiled(data)


def test_a_crystal_of_an_element_absent_from_training_is_refused(built):
    _, compiled = (p.eval() for p in built())
    compiled.allowed[14] = False
    with pytest.raises(ValueError, match=r"`z`.*14.*absent.*training"):
        compiled(crystal(0))


def test_atoms_without_any_neighbor_have_their_own_energy(built):
    eager, compiled = (p.eval() for p in built())
    data = crystal(0, a=30.0)
    agree(compiled(data), eager(data), 1e-11)


def test_stress_of_molecules_is_refused_by_a_compiled_potential(built, water):
    _, compiled = (p.eval() for p in built())
    with pytest.raises(ValueError, match=r"`stress`.*periodic"):
        compiled(water, stress=True)


def test_stresses_of_mixed_batches_are_traced_once(built, water, share_programs):
    eager, compiled = (p.eval() for p in built(cutoff=3.9))
    batch = Batch.from_data_list([crystal(0), molecule(water)])
    share_programs()
    agree(compiled(batch, stress=True), eager(batch, stress=True), 1e-11)
    assert len(compiled.compiled) == 1
    assert compiled.compiled.failure is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_forces_that_cancel_are_no_difference(built, training, dtype, share_programs):
    eager, compiled = (p.train(training) for p in built(dtype))
    share_programs()
    data = from_ase(bulk("Si"))
    for found, expected in zip(
        compiled(data, stress=True).values(), eager(data, stress=True).values(), strict=True
    ):
        assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=1e-4)
    assert compiled.compiled.failure is None


def test_a_field_called_sites_is_the_users_own(built):
    eager, compiled = (p.eval() for p in built())
    data = crystal(0)
    data.sites = torch.zeros(3)
    agree(compiled(data), eager(data), 1e-11)
