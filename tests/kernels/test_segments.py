"""Sums over segments of rows, and the order of pairs by interval, by the operations that all devices have."""

import math

import pytest
import torch

from pyg_schnet.kernels import IMPLEMENTATIONS, interval_order, segment_sum
from tests.gpu_like import LaunchCounter

ROWS = 9
ROWPTR = torch.tensor([2, 2, 5, 7], dtype=torch.int32)  # an empty segment; rows in front and behind of all
ORDER = torch.tensor([4, 0, 8, 1, 7, 2, 3, 6, 5], dtype=torch.int32)
ORDERS = pytest.mark.parametrize("order", [None, ORDER], ids=["sorted", "ordered"])


@ORDERS
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=str)
def test_each_segment_gets_the_sum_of_its_rows(shape, order):
    values = torch.randint(9, (ROWS, *shape)).double()
    rows = values if order is None else values[order.long()]
    found = segment_sum(values, ROWPTR, order)
    assert torch.equal(found, torch.stack([rows[a:b].sum(0) for a, b in ((2, 2), (2, 5), (5, 7))]))


@ORDERS
def test_derivatives_of_sums_equal_differences(order):
    values = torch.randn(ROWS, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: segment_sum(v, ROWPTR, order), values)
    torch.autograd.gradgradcheck(lambda v: segment_sum(v, ROWPTR, order).square(), values)


def test_rows_outside_of_all_segments_are_left_out_even_if_they_are_not_finite():
    values = torch.ones(ROWS)
    values[[0, 1, 7, 8]] = torch.tensor([math.nan, math.inf, -math.inf, math.nan])
    assert segment_sum(values, ROWPTR).tolist() == [0.0, 3.0, 2.0]


def test_without_segments_or_rows_sums_are_empty_or_zero():
    assert segment_sum(torch.ones(ROWS, 2), ROWPTR[:1]).shape == (0, 2)
    assert segment_sum(torch.ones(0, 2), torch.zeros(3, dtype=torch.int32)).tolist() == [[0, 0]] * 2


def test_pairs_are_sorted_by_interval_and_those_outside_are_first_or_last():
    distance = torch.tensor([0.95, 0.25, math.nan, 0.31, 0.05, 0.22, math.inf, 0.49])
    order, rowptr = interval_order(distance, 2, 0.1, 3)
    assert order.tolist() == [2, 4, 1, 5, 3, 7, 0, 6]
    assert rowptr.tolist() == [2, 4, 5, 6]
    assert order.dtype == rowptr.dtype == torch.int32


@ORDERS
def test_sums_do_not_wait_for_a_device(order):
    total, expand, sort = (
        IMPLEMENTATIONS[getattr(torch.ops.pyg_schnet, name).default]
        for name in ("segment_sum", "segment_expand", "interval_order")
    )
    given = [] if order is None else [order]
    with LaunchCounter() as counter:
        expand(total(torch.ones(ROWS), ROWPTR, given), ROWPTR, given, ROWS)
        sort(torch.rand(5), 2, 0.1, 3)
    assert not counter.synchronizations, counter.report()
