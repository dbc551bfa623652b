"""The two searches give the same edges in the same order, and those are ASE's."""

import math

import numpy as np
import pytest
import torch
from ase.cell import Cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, reject
from hypothesis import strategies as st

from pyg_schnet import neighbor_list, neighbors, radius_graph
from pyg_schnet.cell_list import fits_cell_list, spatial_order

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
    with pytest.raises(ValueError, match="got atoms 20 and 90 at distance 0"):
        neighbor_list(pos, 2.0, None, 9 * torch.eye(3), pbc, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "vesin"])
def test_cells_that_span_no_volume_are_refused_by_both(backend):
    with pytest.raises(ValueError, match="`cell` must have independent lattice vectors"):
        neighbor_list(torch.eye(3), 2.0, cell=torch.ones(3, 3), pbc=True, backend=backend)


# vesin 0.6.2 divides by zero cells here and stops the process.
@pytest.mark.parametrize("distance", [1e4, 1e6, 1e9, 1e15])
@pytest.mark.parametrize("pbc", [None, (False, True, True)])
def test_an_atom_very_far_away_is_no_obstacle(distance, pbc):
    pos = torch.zeros(3, 3, dtype=torch.float64)
    pos[1, 0], pos[2, 0] = 1.0, distance
    edge_index, _ = neighbor_list(pos, 1.5, cell=4 * torch.eye(3), pbc=pbc, backend="vesin")
    assert edge_index.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("side", [1e3, 1e6])
def test_a_long_cell_is_no_obstacle(side):
    cell = torch.diag(torch.tensor([side, 4.0, 4.0]))
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    edge_index, _ = neighbor_list(pos, 1.5, cell=cell, pbc=True, backend="vesin")
    assert edge_index.tolist() == [[1, 0], [0, 1]]


def test_boxes_that_cells_cannot_divide_are_recognised():
    assert fits_cell_list([80.0, 80.0, 80.0], 5.0)
    assert fits_cell_list([1e3, 1e3, 1e3], 5.0)
    assert not fits_cell_list([1e7, 5.0, 5.0], 5.0)
    assert not fits_cell_list([1e300, 1e300, 1e300], 1e-5)


def test_points_in_more_than_three_dimensions_have_no_cell_list():
    with pytest.raises(ValueError, match="`pos` must have at most 3 dimensions for `backend='vesin'`, got 5"):
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
