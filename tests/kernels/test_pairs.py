"""Pairs of atoms, their distances and the checks beside them, against plain loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyg_schnet.kernels import find_pairs, pair_distances
from pyg_schnet.kernels.c import pairs as module

ALLOWED = torch.tensor([False, True, False, False, False, False, True, False, True])  # H, C, O


def atoms(counts, dtype=torch.float64, seed=0):
    """Molecules of so many atoms each, all in the same few Å: z, positions, batch."""
    total, generator = sum(counts), torch.Generator().manual_seed(seed)
    pos = 3 * torch.rand(total, 3, generator=generator, dtype=torch.float64)
    z = torch.tensor([1, 6, 8])[torch.randint(3, (total,), generator=generator)]
    return z, pos.to(dtype), torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def loop(pos, batch, cutoff):
    limit = math.inf if cutoff is None else cutoff
    number = range(len(pos))
    batch = [0] * len(pos) if batch is None else batch.tolist()
    return [
        (i, j)
        for i in number
        for j in number
        if i < j and batch[i] == batch[j] and math.dist(pos[i].tolist(), pos[j].tolist()) < limit
    ]


def listed(pairs):
    return [tuple(pair) for pair in pairs.t().tolist()]


def pairs_of(pos, batch):
    return torch.tensor(loop(pos, batch, None), dtype=torch.long).view(-1, 2).t().contiguous()


def edges_of(pairs):
    return torch.cat([pairs, pairs.flip(0)], dim=1)


COUNTS = [[1], [2], [5], [3, 1, 4], [1, 1, 1], [0, 3, 0, 0, 2, 0], [40, 7]]


@pytest.mark.parametrize("change", ["strided", "tracked"])
def test_unusual_tensors_give_the_same_pairs(change):
    z, pos, batch = atoms([5, 4])
    expected, *_ = find_pairs(z, ALLOWED, pos, batch, 2.0, None)
    pos = torch.stack([pos, -pos], dim=2)[:, :, 0] if change == "strided" else pos.requires_grad_()
    assert torch.equal(find_pairs(z, ALLOWED, pos, batch, 2.0, None)[0], expected)


def test_atoms_of_two_molecules_may_be_at_one_point():
    z, pos, batch = atoms([3, 4])
    pos[6] = pos[0]
    assert listed(find_pairs(z, ALLOWED, pos, batch, None, None)[0]) == loop(pos, batch, None)


def test_too_many_pairs_are_left_to_others(monkeypatch):
    monkeypatch.setattr(module, "_MOST_PAIRS", 9)
    for counts, found in (([5], False), ([3], True)):
        z, pos, _ = atoms(counts)
        assert (find_pairs(z, ALLOWED, pos, None, None, None) is not None) is found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
@pytest.mark.parametrize("cutoff", [None, 0.5, 1.7, 100.0])
@pytest.mark.parametrize("counts", [c for c in COUNTS if max(c) > 1], ids=str)
def test_a_prepared_batch_has_the_pairs_of_the_loop_and_their_reach(counts, cutoff, given, dtype):
    z, pos, batch = atoms(counts, dtype)
    edge_index = edges_of(pairs_of(pos, batch)) if given else None
    expected = loop(pos, batch, cutoff)
    found = find_pairs(z, ALLOWED, pos, batch, cutoff, edge_index)
    if not expected:
        assert found is None
        return
    pairs, low, high = found
    assert listed(pairs) == expected
    assert pairs.is_contiguous()
    lengths = [math.dist(pos[i].tolist(), pos[j].tolist()) for i, j in expected]
    assert (low, high) == pytest.approx((min(lengths), max(lengths)), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_a_prepared_batch_leaves_out_a_pair_at_the_cutoff(given, dtype):
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0], [1.0, 0.0, 0.0]], dtype=dtype)  # 5 Å, 1 Å, √26 Å
    edge_index = edges_of(pairs_of(pos, None)) if given else None
    pairs, low, high = find_pairs(torch.ones(3).long(), ALLOWED, pos, None, 5.0, edge_index)
    assert listed(pairs) == [(0, 2)]
    assert (low, high) == (1.0, 1.0)


def test_pairs_keep_the_order_of_given_edges():
    z, pos, _ = atoms([4])
    edge_index = torch.tensor([[2, 3, 0, 1, 2, 1], [3, 2, 1, 0, 1, 2]])
    assert listed(find_pairs(z, ALLOWED, pos, None, None, edge_index)[0]) == [(2, 3), (0, 1), (1, 2)]


def wrong_batches():
    def case(name, **changes):
        z, pos, batch = atoms([3, 2])
        given = {"z": z, "allowed": ALLOWED, "pos": pos, "batch": batch, "cutoff": None, "edge_index": None}
        return pytest.param({**given, **changes}, id=name)

    def edges(*pairs):
        return torch.tensor(pairs).t().contiguous()

    _, pos, _ = atoms([3, 2])
    nan, coincident = pos.clone(), pos.clone()
    nan[1, 2], coincident[1] = math.nan, coincident[0]
    yield case("unknown element", z=torch.tensor([1, 1, 1, 1, 7]))
    yield case("element beyond the table", z=torch.tensor([1, 1, 1, 1, 99]))
    yield case("negative element", z=torch.tensor([1, 1, 1, 1, -1]))
    yield case("nan", pos=nan)
    yield case("nan at an edge", pos=nan, edge_index=edges((0, 1), (1, 0)))
    yield case("nan without edges", pos=nan, edge_index=edges((3, 4), (4, 3)))
    yield case("coincident", pos=coincident)
    yield case("coincident at an edge", pos=coincident, edge_index=edges((0, 1), (1, 0)))
    yield case("unsorted", batch=torch.tensor([0, 1, 0, 1, 1]))
    yield case("unsorted, with edges", batch=torch.tensor([0, 1, 0, 1, 1]), edge_index=edges((0, 2), (2, 0)))
    yield case("negative batch", batch=torch.tensor([-1, -1, 0, 0, 0]))
    yield case(
        "negative batch, with edges", batch=torch.tensor([-1, -1, 0, 0, 0]), edge_index=edges((0, 1), (1, 0))
    )
    yield case("no reverse", edge_index=edges((0, 1), (1, 0), (1, 2)))
    yield case("reverse of another", edge_index=edges((0, 1), (2, 1)))
    yield case("loop", edge_index=edges((0, 1), (1, 0), (2, 2)))
    yield case("beyond the atoms", edge_index=edges((0, 5), (5, 0)))
    yield case("negative edge", edge_index=edges((0, -1), (-1, 0)))
    yield case("between molecules", edge_index=edges((0, 4), (4, 0)))
    yield case("no edges", edge_index=torch.empty(2, 0, dtype=torch.long))
    yield case("beyond the cutoff", cutoff=1e-3)


@pytest.mark.parametrize("arguments", list(wrong_batches()))
def test_whatever_is_unusual_is_left_to_slower_code(arguments):
    assert find_pairs(**arguments) is None


@pytest.mark.parametrize("edges", [2, 3, 8, 100])
def test_edges_without_their_reverse_are_not_written_beyond_memory(monkeypatch, edges):
    z, pos, _ = atoms([2])
    whole = []
    empty = torch.empty

    def guarded(*shape, **arguments):
        size = math.prod(shape)
        whole.append((size, torch.full((size + 2 * edges,), -7, dtype=torch.long)))
        return whole[-1][1][:size].view(shape)

    edge_index = torch.tensor([[0], [1]]).repeat(1, edges)
    monkeypatch.setattr(torch, "empty", guarded)
    found = find_pairs(z, ALLOWED, pos, None, None, edge_index)
    monkeypatch.setattr(torch, "empty", empty)
    assert found is None
    assert all(bool((memory[size:] == -7).all()) for size, memory in whole)


@pytest.mark.parametrize(
    ("edges", "symmetric"),
    [
        ([(0, 1), (1, 0)], True),
        ([(1, 0), (2, 0), (0, 2), (0, 1)], True),
        ([(0, 1), (1, 0), (0, 1), (1, 0)], True),
        ([(0, 1)], False),
        ([(1, 0)], False),
        ([(0, 1), (0, 1)], False),
        ([(0, 1), (2, 1)], False),
        ([(0, 1), (1, 2), (2, 0)], False),
        ([(0, 1), (1, 0), (2, 2)], False),
    ],
)
def test_symmetric_edges_are_told_from_others(edges, symmetric):
    z, pos, _ = atoms([3])
    edge_index = torch.tensor(edges).t().contiguous()
    assert (find_pairs(z, ALLOWED, pos, None, None, edge_index) is not None) is symmetric


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_equal_norms(dtype):
    _, pos, batch = atoms([6, 3], dtype)
    pairs = pairs_of(pos, batch)
    expected = (pos[pairs[0]] - pos[pairs[1]]).norm(dim=1)
    assert_close(pair_distances(pos, pairs), expected)


def test_derivatives_of_distances_equal_differences():
    _, pos, batch = atoms([4, 2])
    pairs = pairs_of(pos, batch)
    pos = pos.requires_grad_()
    torch.autograd.gradcheck(lambda p: pair_distances(p, pairs), pos)
    torch.autograd.gradgradcheck(lambda p: pair_distances(p, pairs), pos)


def test_no_pairs_have_no_distances():
    pos = torch.zeros(3, 3, requires_grad=True)
    distance = pair_distances(pos, torch.empty(2, 0, dtype=torch.long))
    distance.sum().backward()
    assert distance.shape == (0,)
    assert not bool(pos.grad.any())


def test_third_derivatives_of_distances_equal_differences():
    _, pos, batch = atoms([3])
    pairs = pairs_of(pos, batch)

    def slope(pos):
        (first,) = torch.autograd.grad(pair_distances(pos, pairs).pow(3).sum(), pos, create_graph=True)
        return first

    pos = pos.requires_grad_()
    torch.autograd.gradcheck(slope, pos)
    torch.autograd.gradgradcheck(slope, pos)
