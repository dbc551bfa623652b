import inspect
import math

import numpy as np
import pytest
import torch
import torch_geometric
from ase.cell import Cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, reject
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch, Data

from pyg_schnet import RadiusGraph, neighbor_list, radius_graph
from pyg_schnet.graph import neighbors

seeds = st.integers(0, 2**32 - 1)
sizes = st.lists(st.integers(0, 6), min_size=1, max_size=5)
cutoffs = st.floats(0.5, 6.0)
dtypes = st.sampled_from([torch.float32, torch.float64])


def edge_set(edge_index, shift=None) -> set[tuple[int, ...]]:
    rows = edge_index.T if shift is None else torch.cat([edge_index.T, shift], dim=1)
    edges = {tuple(row) for row in rows.tolist()}
    assert len(edges) == len(rows), "an edge was found twice"
    return edges


def ase_edges(pos, cutoff, cell=None, pbc=(False,) * 3) -> set[tuple[int, ...]]:
    """ASE's neighbors: source, target and shift. No pair may be so near the cutoff that rounding decides."""
    cell = Cell.new(np.zeros(3) if cell is None else cell).complete().array
    pos = np.asarray(pos, dtype=np.float64)
    i, j, d, shift = primitive_neighbor_list("ijdS", np.array(pbc), cell, pos, cutoff + 1e-4)
    if len(d) and abs(d - cutoff).min() < 1e-5:  # float32 resolves 1e-6 Å here
        reject()
    keep = d < cutoff
    return {(int(b), int(a), *map(int, s)) for a, b, s in zip(i[keep], j[keep], shift[keep], strict=True)}


def random_molecules(rng, sizes, dtype):
    """Positions in a box where most cutoffs have neighbors on both sides; batch numbers may be skipped."""
    pos = torch.tensor(rng.uniform(-2.5, 2.5, (sum(sizes), 3)), dtype=dtype)
    return pos, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def random_cell(rng, smallest_height):
    while True:
        cell = rng.uniform(-1, 1, (3, 3)) + np.diag(rng.uniform(1, 4, 3))
        if (1 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min() > smallest_height:
            return cell


@given(seeds, sizes, cutoffs, dtypes)
def test_molecules_have_the_neighbors_that_ase_finds(seed, sizes, cutoff, dtype):
    pos, batch = random_molecules(np.random.default_rng(seed), sizes, dtype)
    expected = set()
    for molecule in range(len(sizes)):
        atoms = (batch == molecule).nonzero().flatten()
        if len(atoms):
            first = int(atoms[0])
            found = ase_edges(pos[atoms], cutoff)
            expected |= {(source + first, target + first) for source, target, *_ in found}
    assert edge_set(radius_graph(pos, cutoff, batch)) == expected


@given(seeds, cutoffs)
def test_neighbors_do_not_change_under_rigid_motion(seed, cutoff):
    rng = np.random.default_rng(seed)
    pos, batch = random_molecules(rng, [5, 4], torch.float64)
    moved = pos @ torch.from_numpy(Rotation.random(None, rng).as_matrix()) + torch.from_numpy(
        rng.normal(size=3)
    )
    assert torch.equal(radius_graph(moved, cutoff, batch), radius_graph(pos, cutoff, batch))


@given(seeds, cutoffs)
def test_neighbors_are_numbered_as_the_atoms_are(seed, cutoff):
    rng = np.random.default_rng(seed)
    pos, _ = random_molecules(rng, [8], torch.float64)
    order = torch.from_numpy(rng.permutation(8))
    renamed = {(int(order[s]), int(order[t])) for s, t in edge_set(radius_graph(pos[order], cutoff))}
    assert renamed == edge_set(radius_graph(pos, cutoff))


@given(seeds, st.integers(1, 5), st.floats(0.5, 5.0), st.tuples(*[st.booleans()] * 3), dtypes)
def test_crystals_have_the_neighbors_that_ase_finds(seed, atoms, cutoff, pbc, dtype):
    # Cells of 1 to 4 Å are smaller than most cutoffs; positions lie up to two cells outside.
    rng = np.random.default_rng(seed)
    cell = torch.tensor(random_cell(rng, 0.8), dtype=dtype)
    pos = torch.tensor(rng.uniform(-2, 3, (atoms, 3)), dtype=dtype) @ cell
    found = neighbor_list(pos, cutoff, cell=cell, pbc=torch.tensor(pbc))
    assert edge_set(*found) == ase_edges(pos, cutoff, cell.double().numpy(), pbc)


@given(seeds, st.sampled_from([(True, True, False), (False, True, False), (True, False, True)]))
def test_a_slab_needs_no_lattice_vector_in_its_open_directions(seed, pbc):
    rng = np.random.default_rng(seed)
    cell = random_cell(rng, 1.0)
    cell[~np.array(pbc)] = 0
    pos = rng.uniform(-4, 4, (4, 3))
    edges = neighbor_list(torch.from_numpy(pos), 3.5, cell=torch.from_numpy(cell), pbc=torch.tensor(pbc))
    assert edge_set(*edges) == ase_edges(pos, 3.5, cell, pbc)


# 1e-12: positions reach 20 Å.
@given(seeds, st.tuples(*[st.booleans()] * 3))
def test_the_vector_of_an_edge_is_shorter_than_the_cutoff(seed, pbc):
    rng = np.random.default_rng(seed)
    cell = torch.from_numpy(random_cell(rng, 0.8))
    pos = torch.from_numpy(rng.uniform(-2, 3, (4, 3))) @ cell
    (source, target), shift = neighbor_list(pos, 3.0, cell=cell, pbc=torch.tensor(pbc))
    vector = pos[source] - pos[target] + shift.double() @ cell
    assert (vector.norm(dim=1) < 3.0 + 1e-12).all()


def test_each_molecule_of_a_batch_has_its_own_cell_and_periodicity():
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(np.stack([random_cell(rng, 1.0) for _ in range(3)]))
    pbc = torch.tensor([[True] * 3, [False] * 3, [True, False, True]])
    pos = torch.from_numpy(rng.uniform(0, 4, (6, 3)))
    batch = torch.tensor([0, 0, 1, 1, 2, 2])
    expected = set()
    for m in range(3):
        found = ase_edges(pos[batch == m], 3.0, cells[m].numpy(), tuple(pbc[m].tolist()))
        expected |= {(s + 2 * m, t + 2 * m, *shift) for s, t, *shift in found}
    assert edge_set(*neighbor_list(pos, 3.0, batch, cells, pbc)) == expected


def test_crystals_without_atoms_are_skipped():
    cells = torch.eye(3).expand(5, 3, 3) * torch.tensor([2.0, 2.5, 3.0, 3.5, 4.0]).view(5, 1, 1)
    pos, pbc = torch.zeros(2, 3), torch.tensor([[True] * 3]).expand(5, 3)
    edge_index, _ = neighbor_list(pos, 3.2, torch.tensor([1, 3]), cells, pbc)
    # Of cubic lattices within 3.2 Å: 6 neighbors at 2.5 Å in the second, none at 3.5 Å in the fourth.
    assert edge_index.tolist() == [[0] * 6, [0] * 6]


def test_one_flag_and_one_cell_hold_for_all_molecules():
    pos, batch = torch.zeros(2, 3), torch.tensor([0, 1])
    edge_index, _ = neighbor_list(pos, 1.1, batch, torch.eye(3), True)
    assert torch.bincount(edge_index[1]).tolist() == [6, 6]


def test_an_open_system_with_a_cell_has_shifts_of_zero():
    edge_index, shift = neighbor_list(torch.eye(3), 2.0, cell=torch.eye(3))
    assert (edge_index.size(1), shift.tolist()) == (6, [[0, 0, 0]] * 6)


def test_edges_are_sorted_by_target_then_source():
    pos, batch = random_molecules(np.random.default_rng(1), [7, 0, 1, 9], torch.float64)
    edges = [(t, s) for s, t in radius_graph(pos, 3.0, batch).T.tolist()]
    assert edges == sorted(edges)


def test_periodic_edges_are_sorted_by_target_then_source():
    rng = np.random.default_rng(2)
    pos, cell = torch.from_numpy(rng.uniform(0, 3, (4, 3))), torch.from_numpy(random_cell(rng, 1.0))
    edge_index, _ = neighbor_list(pos, 4.0, cell=cell, pbc=True)
    edges = [(t, s) for s, t in edge_index.T.tolist()]
    assert edges == sorted(edges)


@pytest.mark.parametrize("block", [1, 5, 17, 100])
def test_blocks_of_any_size_find_the_same_edges(monkeypatch, block):
    pos, batch = random_molecules(np.random.default_rng(3), [5, 0, 1, 8, 3], torch.float64)
    expected = radius_graph(pos, 3.0, batch)
    monkeypatch.setattr(neighbors, "_BLOCK", block)
    assert torch.equal(radius_graph(pos, 3.0, batch), expected)


@pytest.mark.parametrize("block", [1, 40, 1000])
def test_blocks_of_any_size_find_the_same_periodic_edges(monkeypatch, block):
    rng = np.random.default_rng(4)
    pos, cell = torch.from_numpy(rng.uniform(0, 3, (4, 3))), torch.from_numpy(random_cell(rng, 1.0))
    expected = edge_set(*neighbor_list(pos, 4.0, cell=cell, pbc=True))
    monkeypatch.setattr(neighbors, "_BLOCK", block)
    assert edge_set(*neighbor_list(pos, 4.0, cell=cell, pbc=True)) == expected


def test_an_infinite_radius_connects_all_pairs_of_a_molecule():
    pos, batch = random_molecules(np.random.default_rng(5), [3, 4], torch.float64)
    edge_index = radius_graph(1e6 * pos, math.inf, batch)
    assert edge_index.size(1) == 3 * 2 + 4 * 3


def test_a_pair_at_the_radius_is_not_connected():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    assert radius_graph(pos, 1.0).size(1) == 0


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_points_may_have_any_dimension(dimensions):
    pos = torch.from_numpy(np.random.default_rng(6).uniform(-1, 1, (9, dimensions)))
    near = (torch.cdist(pos, pos) < 0.8) & ~torch.eye(9, dtype=torch.bool)
    assert torch.equal(radius_graph(pos, 0.8), near.nonzero().T.flip(0))


def test_a_loop_makes_each_point_its_own_neighbor():
    pos = torch.tensor([[0.0, 0], [1, 0], [9, 9]])
    assert radius_graph(pos, 2.0, loop=True).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 1, 2]]


def test_the_other_flow_exchanges_the_rows():
    pos, batch = random_molecules(np.random.default_rng(7), [5, 4], torch.float64)
    flipped = radius_graph(pos, 2.0, batch, flow="target_to_source")
    assert torch.equal(flipped.flip(0), radius_graph(pos, 2.0, batch))


def test_a_bound_on_neighbors_that_holds_changes_nothing():
    pos = torch.tensor([[0.0], [1], [2], [3]])
    assert torch.equal(radius_graph(pos, 1.5, max_num_neighbors=2), radius_graph(pos, 1.5))


def test_a_bound_on_neighbors_that_fails_is_an_error_with_the_true_number():
    pos = torch.tensor([[0.0], [1], [2], [3]])
    with pytest.raises(ValueError, match=r"`max_num_neighbors`.*1.*point.*2.*neighbors.*1.5"):
        radius_graph(pos, 1.5, max_num_neighbors=1)


@pytest.mark.parametrize("r", [1.0, math.inf])
def test_no_points_have_no_edges(r):
    assert radius_graph(torch.empty(0, 3), r, torch.empty(0, dtype=torch.long)).shape == (2, 0)


@pytest.mark.parametrize("pbc", [None, torch.tensor([True] * 3), torch.tensor([[True] * 3])])
def test_no_atoms_have_no_edges_and_no_shifts(pbc):
    edge_index, shift = neighbor_list(torch.empty(0, 3), 1.0, cell=torch.eye(3), pbc=pbc)
    assert (edge_index.shape, shift.shape) == ((2, 0), (0, 3))


def test_edges_are_integers_of_64_bits():
    edge_index, shift = neighbor_list(torch.eye(3), 2.0, cell=5 * torch.eye(3), pbc=True)
    assert (edge_index.dtype, shift.dtype) == (torch.int64, torch.int64)


def test_positions_are_not_modified():
    pos = torch.eye(3).requires_grad_()
    before = pos.detach().clone()
    neighbor_list(pos, 2.0, cell=5 * torch.eye(3), pbc=True)
    assert torch.equal(pos, before)


class TestRadiusGraph:
    def test_it_adds_edges(self, water):
        assert torch.equal(RadiusGraph(1.2)(water).edge_index, radius_graph(water.pos, 1.2))

    def test_it_leaves_its_input_alone(self, water):
        RadiusGraph(1.2)(water)
        assert water.edge_index is None

    def test_it_adds_no_shift_without_a_cell(self, water):
        assert "shift" not in RadiusGraph(1.2)(water)

    def test_it_adds_shifts_with_a_cell(self, water):
        water.cell, water.pbc = 4 * torch.eye(3).double()[None], torch.tensor([[True] * 3])
        graph = RadiusGraph(3.0)(water)
        edge_index, shift = neighbor_list(water.pos, 3.0, cell=water.cell, pbc=water.pbc)
        assert edge_set(graph.edge_index, graph.shift) == edge_set(edge_index, shift)

    def test_graphs_can_be_batched(self, water):
        water.cell, water.pbc = 4 * torch.eye(3).double()[None], torch.tensor([[True] * 3])
        graph = RadiusGraph(3.0)(water)
        batch = Batch.from_data_list([graph, graph])
        found = neighbor_list(batch.pos, 3.0, batch.batch, batch.cell, batch.pbc)
        assert edge_set(batch.edge_index, batch.shift) == edge_set(*found)

    def test_it_turns_a_batch_into_graphs(self, molecules):
        batch = Batch.from_data_list(molecules)
        graph = RadiusGraph(2.0)(batch)
        assert torch.equal(graph.edge_index, radius_graph(batch.pos, 2.0, batch.batch))

    def test_its_text_tells_the_radius(self):
        assert repr(RadiusGraph(5.0)) == "RadiusGraph(r=5.0)"
        text = "RadiusGraph(r=5.0, loop=True, flow='target_to_source')"
        assert repr(RadiusGraph(5.0, loop=True, flow="target_to_source")) == text

    def test_it_takes_the_arguments_of_pygs(self, water):
        options = {"loop": True, "max_num_neighbors": 32, "flow": "target_to_source", "num_workers": 1}
        torch_geometric.transforms.RadiusGraph(1.2, **options)  # they exist there
        edges = RadiusGraph(1.2, **options)(water).edge_index
        assert torch.equal(edges, radius_graph(water.pos, 1.2, loop=True, flow="target_to_source"))

    def test_periodic_graphs_have_the_same_arguments(self, water):
        water.cell, water.pbc = 4 * torch.eye(3).double()[None], torch.tensor([[True] * 3])
        plain = RadiusGraph(3.0)(water)
        graph = RadiusGraph(3.0, loop=True, flow="target_to_source")(water)
        own = torch.arange(3)
        edges = torch.cat([plain.edge_index, own.expand(2, -1)], dim=1)
        shift = torch.cat([plain.shift, torch.zeros(3, 3, dtype=torch.long)])
        assert edge_set(graph.edge_index.flip(0), graph.shift) == edge_set(edges, shift)
        assert bool((graph.edge_index[0].diff() >= 0).all())  # sorted by target
        with pytest.raises(ValueError, match="`max_num_neighbors` is 2, but"):
            RadiusGraph(3.0, max_num_neighbors=2)(water)

    @pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
    def test_points_are_of_any_dimension(self, dimensions):
        pos = torch.rand(20, dimensions, generator=torch.Generator().manual_seed(0))
        graph = RadiusGraph(0.4)(Data(pos=pos))
        assert torch.equal(graph.edge_index, radius_graph(pos, 0.4))

    def test_features_of_earlier_edges_are_removed(self, water):
        water.edge_index, water.edge_attr = torch.tensor([[0], [1]]), torch.ones(1, 4)
        graph = RadiusGraph(1.2)(water)
        assert "edge_attr" not in graph
        assert "edge_attr" in water

    def test_a_direction_that_does_not_exist_is_refused(self):
        with pytest.raises(ValueError, match="`flow` must be"):
            RadiusGraph(1.2, flow="both")

    @pytest.mark.parametrize("r", [-5.0, 0.0, math.nan])
    def test_a_radius_that_is_not_positive_is_refused(self, r):
        with pytest.raises(ValueError, match=rf"`r`.*positive.*{r}"):
            RadiusGraph(r)

    def test_data_without_positions_are_refused(self):
        with pytest.raises(ValueError, match=r"`data`.*`pos`.*positions"):
            RadiusGraph(3.0)(Data(z=torch.ones(3)))

    def test_periodicity_without_a_cell_is_refused(self):
        data = Data(pos=torch.eye(3), pbc=torch.tensor([[True] * 3]))
        with pytest.raises(ValueError, match=r"`cell`.*`pbc`"):
            RadiusGraph(3.0)(data)


POS = torch.eye(3)
TWICE = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"r": -5.0}, ValueError, "`r`.*positive.*-5.0"),
        ({"r": math.nan}, ValueError, "`r`.*positive.*nan"),
        ({"pos": POS / 0}, ValueError, r"`pos`.*finite.*\[inf, nan, nan\].*atom.*0"),
        ({"pos": TWICE}, ValueError, "`pos`.*atoms.*0.*2.*distance.*0"),
        ({"batch": torch.tensor([0, 1, 0])}, ValueError, "`batch`.*sorted.*torch.argsort"),
        (
            {"flow": "up"},
            ValueError,
            "`flow`.*'source_to_target'.*'target_to_source'.*'up'",
        ),
        (
            {"backend": "ase"},
            ValueError,
            "`backend`.*torch_cluster.*'ase'",
        ),
    ],
)
def test_wrong_arguments_of_radius_graph_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        radius_graph(**{"pos": POS, "r": 2.0, **arguments})


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"pos": torch.ones(3)},
            ValueError,
            r"`pos`.*shape.*\(points, dimensions\).*\(3,\)",
        ),
        (
            {"pos": torch.eye(3).long()},
            TypeError,
            "`pos`.*torch.int64",
        ),
        (
            {"batch": torch.tensor([0, 1])},
            ValueError,
            r"`batch`.*3.*atoms.*shape.*\(2,\)",
        ),
    ],
)
def test_arguments_of_the_wrong_shape_or_type_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        radius_graph(**{"pos": POS, "r": 2.0, **arguments})


@pytest.mark.usefixtures("without_shape_checks")
def test_atoms_in_the_plane_are_refused():
    with pytest.raises(ValueError, match=r"`pos`.*shape.*\(atoms, 3\).*\(9, 2\)"):
        neighbor_list(torch.ones(9, 2), 2.0)


PERIODIC = {"cell": torch.eye(3), "pbc": torch.tensor([True] * 3)}
FLAT = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cutoff": 0.0}, ValueError, "`cutoff`.*positive.*0.0"),
        ({"pos": TWICE}, ValueError, "atoms.*0.*2.*distance.*0"),
        (
            {**PERIODIC, "pos": torch.diag(torch.tensor([0.0, 1.0, 0.5]))},
            ValueError,
            "atoms.*0.*1",
        ),
        (
            {**PERIODIC, "cell": None},
            ValueError,
            "`cell`.*`pbc`",
        ),
        (
            {**PERIODIC, "cutoff": math.inf},
            ValueError,
            "`cutoff`.*finite.*periodic",
        ),
        (
            {**PERIODIC, "cell": torch.zeros(3, 3)},
            ValueError,
            "`cell`.*`pbc`",
        ),
        (
            {**PERIODIC, "cell": torch.eye(3) * math.nan},
            ValueError,
            r"`cell`.*finite.*lattice.*vector.*\[nan, nan, nan\]",
        ),
        (
            {**PERIODIC, "cell": torch.eye(3) * 0.02},
            ValueError,
            "`cell`.*cutoff.*2.0.*0.02.*0.02.*0.02",
        ),
        (
            {**PERIODIC, "pos": POS * 1e6},
            ValueError,
            r"`pos`.*atom.*1.0e\+06.*torch.float32",
        ),
        ({**PERIODIC, "cell": FLAT}, ValueError, "`cell`.*`pbc`"),
        (
            {"cell": FLAT * 0, "pbc": torch.tensor([True, True, False])},
            ValueError,
            "`cell`.*`pbc`",
        ),
        (
            {**PERIODIC, "backend": "ase"},
            ValueError,
            "`backend`.*'ase'",
        ),
        (
            {"cell": torch.eye(3).expand(2, 3, 3), "pbc": True, "batch": torch.tensor([0, 1, 2])},
            ValueError,
            r"`cell`.*shape.*\(3, 3, 3\).*molecule.*\(2, 3, 3\)",
        ),
        (
            {"cell": torch.eye(3), "pbc": torch.ones(2, 3), "batch": torch.tensor([0, 1, 2])},
            ValueError,
            r"`pbc`.*shape.*\(3, 3\).*molecule.*\(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_of_neighbor_list_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        neighbor_list(**{"pos": POS, "cutoff": 2.0, **arguments})


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        (
            torch.tensor([[5.0, 5, 5]]),
            ValueError,
            r"`cell`.*lattice.*vectors.*\(1, 3\)",
        ),
        (torch.tensor([5.0, 5, 5, 90, 90, 90]), ValueError, r"`cell`.*\(6,\)"),
        (torch.eye(3).long(), TypeError, "`cell`.*torch.int64"),
        (np.eye(3), TypeError, "`cell`"),
    ],
)
def test_cells_in_another_form_are_refused(cell, error, message):
    with pytest.raises(error, match=message):
        neighbor_list(POS, 2.0, cell=cell, pbc=True)


def test_atoms_a_lattice_vector_apart_in_an_open_direction_do_not_coincide():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    edge_index, _ = neighbor_list(pos, 1.1, cell=torch.eye(3), pbc=torch.tensor([False, True, True]))
    assert torch.bincount(edge_index[1]).tolist() == [5, 5]


def test_a_missing_torch_cluster_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(neighbors, "_HAS_TORCH_CLUSTER", False)
    with pytest.raises(ImportError, match=r"install.*--no-build-isolation"):
        radius_graph(POS, 2.0, backend="torch_cluster")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_cluster_finds_the_same_edges(dtype):
    pytest.importorskip("torch_cluster")
    pos, batch = random_molecules(np.random.default_rng(8), [50, 0, 1, 200], dtype)
    expected = radius_graph(pos, 1.5, batch, backend="torch")
    assert torch.equal(radius_graph(pos, 1.5, batch, backend="torch_cluster"), expected)


def test_radius_graph_takes_pyg_s_arguments_in_pyg_s_order():
    from torch_geometric.nn import radius_graph as theirs

    names = list(inspect.signature(theirs).parameters)
    assert list(inspect.signature(radius_graph).parameters)[: len(names)] == ["pos", *names[1:]]
