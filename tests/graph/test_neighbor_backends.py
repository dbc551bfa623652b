"""The two searches give the same edges in the same order, and those are ASE's."""

import math
import time

import numpy as np
import pytest
import torch
from ase.cell import Cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, reject
from hypothesis import strategies as st

from pyg_schnet import neighbor_list, radius_graph
from pyg_schnet.graph import neighbors
from pyg_schnet.graph.cell_list import fits_cell_list
from pyg_schnet.graph.pair_graph import spatial_order

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
flags = st.tuples(*[st.booleans()] * 3)


def random_cell(rng):
    """A cell of 0.8 Å or more between its faces, of either hand."""
    while True:
        cell = rng.uniform(-1.5, 1.5, (3, 3)) + np.diag(rng.uniform(1, 6, 3))
        if (1 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min() > 0.8:
            return rng.permutation(cell)


def assert_backends_agree(pos, cutoff, *arguments):
    edge_index, shift = neighbor_list(pos, cutoff, *arguments, backend="torch")
    found = neighbor_list(pos, cutoff, *arguments, backend="vesin")
    assert torch.equal(found[0], edge_index)
    assert torch.equal(found[1], shift)
    assert found[0].dtype == found[1].dtype == torch.int64
    rows = torch.cat([edge_index.flip(0), shift.T]).T.tolist()
    assert rows == sorted(rows)
    assert len(set(map(tuple, rows))) == len(rows)
    return rows


@given(seeds, st.integers(1, 12), st.floats(0.5, 6.0), flags, dtypes, st.booleans())
def test_both_searches_find_what_ase_finds(seed, atoms, cutoff, pbc, dtype, inside):
    rng = np.random.default_rng(seed)
    cell = torch.tensor(random_cell(rng), dtype=dtype)
    low, high = (0, 1) if inside else (-2, 3)
    pos = torch.tensor(rng.uniform(low, high, (atoms, 3)), dtype=dtype) @ cell
    box = Cell.new(cell.double().numpy()).complete().array
    i, j, d, shift = primitive_neighbor_list("ijdS", np.array(pbc), box, pos.double().numpy(), cutoff + 1e-3)
    if len(d) and abs(d - cutoff).min() < 1e-5:  # there rounding decides
        reject()
    expected = [(int(a), int(b), *map(int, n)) for a, b, n in zip(i, j, shift, strict=True)]
    expected = sorted(row for row, near in zip(expected, d < cutoff, strict=True) if near)
    rows = assert_backends_agree(pos, cutoff, None, cell, torch.tensor(pbc))
    assert [tuple(row) for row in rows] == expected


shears = st.tuples(*[st.integers(-7, 7)] * 3)


def sheared(cell, shear, pbc=(True, True, True)):
    """Other lattice vectors of the same lattice: periodic ones are added to those behind them."""
    basis = np.eye(3)
    basis[[1, 2, 2], [0, 0, 1]] = shear
    basis *= np.outer(pbc, pbc) | np.eye(3, dtype=bool)
    return basis.astype(int), basis @ cell


def vectors(pos, cell, edge_index, shift):
    source, target = edge_index
    vector = pos[source] - pos[target] + shift.to(pos.dtype) @ cell
    rows = torch.cat([edge_index.T.double(), (1e6 * vector).round() + 0.0], dim=1)
    return sorted(map(tuple, rows.tolist()))


@given(seeds, st.integers(1, 4), st.floats(1.0, 4.0), flags, shears)
def test_very_skewed_vectors_of_a_lattice_have_its_neighbors(seed, atoms, cutoff, pbc, shear):
    rng = np.random.default_rng(seed)
    cell = random_cell(rng)
    _, skewed = sheared(cell, shear, pbc)
    pos = torch.from_numpy(rng.uniform(-1, 2, (atoms, 3)) @ cell)
    cell, skewed, periodic = torch.from_numpy(cell), torch.from_numpy(skewed), torch.tensor(pbc)
    expected = vectors(pos, cell, *neighbor_list(pos, cutoff, None, cell, periodic))
    assert_backends_agree(pos, cutoff, None, skewed, periodic)
    assert vectors(pos, skewed, *neighbor_list(pos, cutoff, None, skewed, periodic)) == expected


@given(seeds, st.integers(1, 4), st.floats(1.0, 4.0), flags)
def test_edges_and_shifts_do_not_change_when_a_crystal_is_turned_mirrored_and_moved(seed, atoms, cutoff, pbc):
    rng = np.random.default_rng(seed)
    cell = random_cell(rng)
    pos = rng.uniform(-1, 2, (atoms, 3)) @ cell
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # of either hand
    systems = [(pos, cell), (pos @ turn + rng.uniform(-30, 30, 3), cell @ turn)]
    (edges, shifts), (turned, turned_shifts) = (
        neighbor_list(torch.from_numpy(p), cutoff, None, torch.from_numpy(c), torch.tensor(pbc))
        for p, c in systems
    )
    assert torch.equal(turned, edges)
    assert torch.equal(turned_shifts, shifts)


# Moves of a million cells leave 1e-9 Å of float64; float32 has 1e-4 Å left at 300 cells.
@given(seeds, st.integers(1, 4), flags, st.sampled_from([(torch.float64, 10**6), (torch.float32, 300)]))
def test_atoms_that_wandered_many_cells_away_have_shifts_that_bring_them_back(seed, atoms, pbc, kind):
    dtype, cells = kind
    rng = np.random.default_rng(seed)
    cell = torch.from_numpy(random_cell(rng)).to(dtype).double()
    pos = torch.from_numpy(rng.uniform(0, 1, (atoms, 3))) @ cell
    periodic = torch.tensor(pbc)
    away = torch.from_numpy(rng.integers(-cells, cells, (atoms, 3))) * periodic
    moved = (pos + away.double() @ cell).to(dtype)
    if torch.cdist(pos, pos).fill_diagonal_(9).min() < 0.1:
        reject()
    for distance in (2.99, 3.01):  # nothing may lie where rounding decides
        if len(neighbor_list(pos, distance, None, cell, periodic)[1]) != len(
            neighbor_list(pos, 3.0, None, cell, periodic)[1]
        ):
            reject()
    edge_index, shift = neighbor_list(pos, 3.0, None, cell, periodic)
    found, brought_back = neighbor_list(moved, 3.0, None, cell.to(dtype), periodic)
    brought_back = brought_back + away[found[0]] - away[found[1]]
    rows = [torch.cat([e.T, s], dim=1).tolist() for e, s in ((edge_index, shift), (found, brought_back))]
    assert sorted(rows[1]) == sorted(rows[0])


@pytest.mark.parametrize("backend", ["torch", "vesin"])
@pytest.mark.parametrize("thin", [0.3, 0.02])
def test_cells_much_thinner_than_the_cutoff_are_exact(backend, thin):
    cell = torch.diag(torch.tensor([thin, 3.0, 3.0], dtype=torch.float64))
    edge_index, shift = neighbor_list(torch.zeros(1, 3).double(), 2.0, None, cell, True, backend)
    each = math.ceil(2.0 / thin) - 1  # on either side, along a wire
    assert sorted(shift[:, 0].tolist()) == [n for n in range(-each, each + 1) if n]
    assert not shift[:, 1:].any()
    assert edge_index.tolist() == [[0] * 2 * each] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
@pytest.mark.parametrize("spacing", [0.1, 0.7, 1.1])
def test_pairs_at_the_cutoff_are_decided_alike(dtype, pbc, spacing):
    # A lattice of whole multiples, where hundreds of distances equal the cutoff but for rounding.
    grid = torch.cartesian_prod(*[torch.arange(5.0, dtype=dtype)] * 3) * spacing + 0.3
    cell = torch.eye(3, dtype=dtype) * 5 * spacing
    for cutoff in (1.0, math.sqrt(2), 2.0, math.sqrt(5), 3.0):
        assert_backends_agree(grid, cutoff * spacing, None, cell, torch.tensor(pbc))
        near = cutoff * spacing
        assert torch.equal(
            radius_graph(grid, near, backend="vesin"), radius_graph(grid, near, backend="torch")
        )


@given(seeds, st.lists(st.integers(0, 9), min_size=1, max_size=5), st.floats(0.5, 5.0), dtypes)
def test_batches_of_crystals_slabs_and_molecules_agree(seed, sizes, cutoff, dtype):
    rng = np.random.default_rng(seed)
    pos = torch.tensor(rng.uniform(-4, 9, (sum(sizes), 3)), dtype=dtype)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    cell = torch.tensor(np.stack([random_cell(rng) for _ in sizes]), dtype=dtype)
    pbc = torch.from_numpy(rng.random((len(sizes), 3)) < 0.5)
    molecules = int(batch[-1]) + 1 if len(batch) else 0
    assert_backends_agree(pos, cutoff, batch, cell[:molecules], pbc[:molecules])


@given(seeds, st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 3), dtypes)
def test_molecules_agree_in_up_to_three_dimensions(seed, sizes, dimensions, dtype):
    rng = np.random.default_rng(seed)
    pos = torch.tensor(rng.uniform(-3, 3, (sum(sizes), dimensions)), dtype=dtype)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    expected = radius_graph(pos, 2.0, batch, backend="torch")
    assert torch.equal(radius_graph(pos, 2.0, batch, backend="vesin"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_molecules_agree_in_half_precision(dtype):
    pos = torch.tensor(np.random.default_rng(0).uniform(0, 8, (40, 3)), dtype=dtype).unique(dim=0)
    expected = radius_graph(pos, 3.0, backend="torch")
    assert torch.equal(radius_graph(pos, 3.0, backend="vesin"), expected)


@pytest.mark.parametrize("block", [1000, 100_000])
@pytest.mark.parametrize("pbc", [True, False])
def test_large_systems_agree_in_blocks_of_any_size(monkeypatch, block, pbc):
    pos = torch.from_numpy(np.random.default_rng(1).uniform(-5, 15, (600, 3))).float()
    monkeypatch.setattr(neighbors, "_BLOCK", block)
    assert_backends_agree(pos, 4.0, None, torch.eye(3) * 20, pbc)


@pytest.mark.parametrize("backend", ["torch", "vesin"])
@pytest.mark.parametrize("pbc", [None, True, (True, False, False)])
def test_coincident_atoms_are_refused_by_both(backend, pbc):
    pos = torch.from_numpy(np.random.default_rng(2).uniform(0, 9, (100, 3)))
    pos[[70, 90]] = pos[[30, 20]]
    with pytest.raises(ValueError, match=r"atoms.*20.*90.*distance.*0"):
        neighbor_list(pos, 2.0, None, 9 * torch.eye(3), pbc, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "vesin"])
def test_cells_that_span_no_volume_are_refused_by_both(backend):
    with pytest.raises(ValueError, match=r"`cell`.*independent.*lattice.*vectors"):
        neighbor_list(torch.eye(3), 2.0, cell=torch.ones(3, 3), pbc=True, backend=backend)


# vesin 0.6.2 divides by zero cells here and stops the process.
@pytest.mark.parametrize("distance", [1e4, 1e6, 1e9, 1e15])
@pytest.mark.parametrize("pbc", [None, (False, True, True)])
def test_an_atom_very_far_away_is_no_obstacle(distance, pbc):
    pos = torch.zeros(3, 3, dtype=torch.float64)
    pos[1, 0], pos[2, 0] = 1.0, distance
    edge_index, _ = neighbor_list(pos, 1.5, cell=4 * torch.eye(3), pbc=pbc, backend="vesin")
    assert edge_index.tolist() == [[1, 0], [0, 1]]


def test_a_large_slab_is_searched_in_linear_time_whatever_is_far_above_it():
    # 10 s with vesin 0.6.2 and an open direction; 0.01 s with a vacuum instead.
    pos = torch.from_numpy(np.random.default_rng(0).uniform(0, 12, (100, 3)))
    pos[0, 2] = 1e4
    start = time.process_time()
    edge_index, _ = neighbor_list(pos, 3.0, None, 12 * torch.eye(3), (True, True, False), "vesin")
    assert time.process_time() - start < 1
    expected = neighbor_list(pos[1:], 3.0, None, 12 * torch.eye(3), (True, True, False), "torch")[0]
    assert torch.equal(edge_index, expected + 1)


@pytest.mark.parametrize("side", [1e3, 1e6])
def test_a_long_cell_is_no_obstacle(side):
    cell = torch.diag(torch.tensor([side, 4.0, 4.0]))
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    edge_index, _ = neighbor_list(pos, 1.5, cell=cell, pbc=True, backend="vesin")
    assert edge_index.tolist() == [[1, 0], [0, 1]]


def test_boxes_that_cells_cannot_divide_are_recognized():
    assert fits_cell_list([80.0, 80.0, 80.0], 5.0)
    assert fits_cell_list([1e3, 1e3, 1e3], 5.0)
    assert not fits_cell_list([1e7, 5.0, 5.0], 5.0)
    assert not fits_cell_list([1e300, 1e300, 1e300], 1e-5)


def test_points_in_more_than_three_dimensions_have_no_cell_list():
    with pytest.raises(ValueError, match=r"`pos`.*3.*dimensions.*`backend='vesin'`.*5"):
        radius_graph(torch.eye(5), 2.0, backend="vesin")


def test_an_infinite_radius_connects_all_pairs_with_either_search():
    pos = torch.rand(70, 3, generator=torch.Generator().manual_seed(0))
    assert radius_graph(pos, math.inf, backend="vesin").size(1) == 70 * 69


@pytest.mark.parametrize("atoms", [[20] * 3, [200], [0, 300, 1]])
def test_the_faster_search_is_exact(atoms):
    rng = np.random.default_rng(4)
    pos = torch.from_numpy(rng.uniform(0, 10, (sum(atoms), 3)))
    batch = torch.repeat_interleave(torch.arange(len(atoms)), torch.tensor(atoms))
    assert torch.equal(radius_graph(pos, 3.0, batch), radius_graph(pos, 3.0, batch, backend="torch"))


def test_spatial_order_takes_every_atom_once_and_near_ones_together():
    pos = 40 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    order = spatial_order(pos)
    assert torch.equal(order.sort().values, torch.arange(2000))
    steps = [(p[1:] - p[:-1]).norm(dim=1).mean() for p in (pos[order], pos)]
    assert steps[0] < steps[1] / 2


def test_the_spatial_order_of_one_atom_is_itself():
    assert spatial_order(torch.ones(1, 3)).tolist() == [0]
