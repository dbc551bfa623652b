"""The kernels of the shifted softplus against torch's own, in all its derivatives."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyg_schnet.kernels import shifted_softplus

EXTREME = [0.0, -0.0, 1e-300, -1e-300, 1e-8, 1.0, -1.0, 20.0, -20.0, 80.0, -80.0, 87.5, -87.5, 1e3, -1e3]
DTYPES = [torch.float32, torch.float64]
# Four times the distance of neighboring numbers near 1, measured: less than two.
TOLERANCE = {torch.float32: 5e-7, torch.float64: 1e-15}


def torchs(x):
    """The same by torch; its own softplus is linear beyond an argument of 20, and 2e-9 off there."""
    return torch.nn.functional.softplus(x, threshold=1000.0 if x.dtype == torch.float64 else 80.0) - math.log(
        2
    )


def derivatives(function, x):
    x = x.clone().requires_grad_()
    value = function(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, retain_graph=True)  # by the kernel
    (tracked,) = torch.autograd.grad(first.sum(), x, create_graph=True)  # plain, to go on from
    (third,) = torch.autograd.grad(tracked.sum(), x)
    return value, first, second, third


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_derivatives_equal_torchs(dtype):
    x = torch.cat([torch.linspace(-30, 30, 2001, dtype=torch.float64), torch.tensor(EXTREME).double()])
    x = x[x.abs() < 80].to(dtype)
    found = derivatives(shifted_softplus, x)
    for value, expected in zip(found[:3], derivatives(torchs, x.double()), strict=False):
        assert_close(value.double(), expected, atol=TOLERANCE[dtype], rtol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x", "value", "slope"),
    [
        (1e3, 1e3 - math.log(2), 1.0),
        (-1e3, -math.log(2), 0.0),
        (math.inf, math.inf, 1.0),
        (-math.inf, -math.log(2), 0.0),
        (0.0, 0.0, 0.5),
    ],
)
@pytest.mark.parametrize("count", [1, 5, 64])  # vectors, and what is left of them
def test_the_limits_are_those_of_the_formula(x, value, slope, count, dtype):
    found = derivatives(shifted_softplus, torch.full((count,), x, dtype=dtype))
    for number, expected in zip(found, (value, slope, slope * (1 - slope)), strict=False):
        assert_close(number.double(), torch.full((count,), expected).double(), atol=2e-7, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 64])
def test_nan_stays_nan_and_stays_where_it_is(count, dtype):
    x = torch.zeros(count, dtype=dtype)
    x[-1] = math.nan
    for number in derivatives(shifted_softplus, x)[:3]:
        assert number.isnan().tolist() == [False] * (count - 1) + [True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_slopes_far_below_zero_are_not_lost(dtype):
    x = torch.tensor([-30.0, -50.0, -80.0], dtype=dtype)
    _, first, second, _ = derivatives(shifted_softplus, x)
    slope = x.double().exp() / (1 + x.double().exp())
    tolerance = 10 * torch.finfo(dtype).eps  # 4 were measured
    assert_close(first.double(), slope, atol=0, rtol=tolerance)
    assert_close(second.double(), slope * (1 - slope), atol=0, rtol=tolerance)


@pytest.mark.parametrize("shape", [(0,), (), (3, 5), (2, 3, 4)])
def test_any_shape_is_taken(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(shifted_softplus(x), torchs(x), atol=1e-14, rtol=0)


def test_a_matrix_on_its_side_is_taken_as_it_is():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).t()
    for value, expected in zip(derivatives(shifted_softplus, x), derivatives(torchs, x), strict=True):
        assert_close(value, expected, atol=1e-14, rtol=0)


def test_the_argument_is_not_changed():
    x = torch.randn(7, dtype=torch.float64)
    before = x.clone()
    shifted_softplus(x)
    assert torch.equal(x, before)


def test_derivatives_equal_differences():
    x = torch.tensor([-3.0, -0.3, 0.4, 2.0], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(shifted_softplus, x)
    torch.autograd.gradgradcheck(shifted_softplus, x)


def test_third_derivatives_equal_torchs():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    found, expected = derivatives(shifted_softplus, x)[3], derivatives(torchs, x)[3]
    assert_close(found, expected, atol=1e-14, rtol=0)
