import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from pyg_schnet import nn
from pyg_schnet.nn.radial import SiLU

ENVELOPES = [nn.CosineEnvelope, nn.PolynomialEnvelope]


def derivatives(function, x: float, order: int) -> list[float]:
    """The function and its derivatives at a point, by automatic differentiation."""
    at = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    values = [function(at)]
    for _ in range(order):
        values += torch.autograd.grad(values[-1].sum(), at, create_graph=True)
    return [float(value.detach()) for value in values]


def test_a_gaussian_is_one_at_its_center():
    smearing = nn.GaussianSmearing(20, last_center=5.0).double()
    assert smearing(smearing.centers).diagonal().eq(1).all()


# 1e-14: both sides round an exponential once, after rounding the spacing.
def test_neighboring_centers_are_one_standard_deviation_apart_by_default():
    smearing = nn.GaussianSmearing(11, last_center=5.0).double()
    at_next_center = smearing(smearing.centers[3:4])[0, 4]
    assert float(at_next_center) == pytest.approx(math.exp(-0.5), rel=1e-14, abs=0)


def test_gamma_is_the_inverse_square_in_the_exponent():
    smearing = nn.GaussianSmearing(2, last_center=1.0, gamma=7.0).double()
    value = smearing(torch.tensor([0.5], dtype=torch.float64))
    assert_close(value, torch.full_like(value, math.exp(-7.0 * 0.25)), atol=0, rtol=1e-15)


# 1e-14: 0.1 k and linspace differ in the last digit, which γ Δ = 10 · 0.1 enlarges.
def test_the_papers_basis_is_301_gaussians_every_tenth_of_an_angstrom_with_gamma_ten():
    smearing = nn.SchNet.paper().double().radial_basis
    distance = 1.234
    literal = [math.exp(-10 * (distance - 0.1 * k) ** 2) for k in range(301)]
    value = smearing(torch.tensor([distance], dtype=torch.float64))[0]
    assert_close(value, torch.tensor(literal, dtype=torch.float64), atol=1e-14, rtol=0)


def test_centers_are_exact_in_float64_after_double():
    smearing = nn.GaussianSmearing(301, last_center=30.0).float().double()
    exact = torch.linspace(0, 30, 301, dtype=torch.float64)
    assert_close(smearing.centers, exact, atol=0, rtol=0)


def test_centers_follow_the_dtype_of_the_model():
    assert nn.GaussianSmearing(5, last_center=1.0).half().centers.dtype == torch.float16


# 1e-16: the Gaussians left out are below 1e-17; the others are the same numbers.
@pytest.mark.parametrize("longest", [0.01, 1.0, 4.9, 12.0, 31.0, 100.0])
def test_trimming_leaves_out_zeros_only(longest):
    smearing = nn.GaussianSmearing(301, last_center=30.0, gamma=10.0).double()
    distance = torch.linspace(0, longest, 50, dtype=torch.float64)
    full, trimmed = smearing(distance), smearing(distance, trim=True)
    padded = torch.nn.functional.pad(trimmed, (0, full.size(1) - trimmed.size(1)))
    assert_close(padded, full, atol=1e-16, rtol=0)


def test_trimming_saves_four_fifths_of_the_papers_gaussians_in_ethanol():
    smearing = nn.GaussianSmearing(301, last_center=30.0, gamma=10.0)
    assert smearing(torch.tensor([4.0]), trim=True).size(1) <= 301 // 5 + 1


def test_an_expansion_of_no_distances_is_empty():
    assert nn.GaussianSmearing(7, last_center=3.0)(torch.empty(0), trim=True).shape == (0, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gaussians": 1, "last_center": 5.0}, "`num_gaussians`.*at least 2.*1"),
        (
            {"num_gaussians": 5, "last_center": 0.0},
            "`last_center`.*positive.*finite.*0.0",
        ),
        ({"num_gaussians": 5, "last_center": math.inf}, "`last_center`"),
        (
            {"num_gaussians": 5, "last_center": 5.0, "gamma": -1.0},
            "`gamma`.*positive.*-1.0",
        ),
    ],
)
def test_gaussians_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.GaussianSmearing(**arguments)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_envelope_is_one_without_slope_at_contact(envelope):
    assert derivatives(envelope(5.0), 0.0, order=1) == [1.0, 0.0]


# Value and slope are 0 in exact arithmetic; 1e-12 in the last float before the cutoff is rounding.
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_envelope_is_zero_with_zero_slope_at_the_cutoff(envelope):
    before = math.nextafter(5.0, 0.0)
    assert derivatives(envelope(5.0), before, order=1) == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("distance", [5.0, 5.1, 7.5, 10.0, 1e6])
def test_an_envelope_is_exactly_zero_at_the_cutoff_and_beyond(envelope, distance):
    assert derivatives(envelope(5.0), distance, order=2) == [0, 0, 0]


# The third derivative is finite, so one float before the cutoff the second is about 1e-15.
def test_the_polynomial_envelope_has_no_curvature_at_the_cutoff():
    *_, curvature = derivatives(nn.PolynomialEnvelope(5.0), math.nextafter(5.0, 0.0), order=2)
    assert curvature == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_envelope_is_half_at_half_the_cutoff(envelope):
    value, *_ = derivatives(envelope(5.0), 2.5, order=0)
    assert value == pytest.approx(0.5, abs=1e-15)


def test_the_shifted_softplus_is_zero_at_the_origin():
    # 1e-16: softplus(0) and ln 2 are the same double, or its neighbor.
    assert abs(float(nn.ShiftedSoftplus()(torch.zeros((), dtype=torch.float64)))) <= 1.2e-16


# 2e-15: one rounding of numbers around 5.
@pytest.mark.parametrize("x", [-5.0, -0.3, 0.7, 5.0])
def test_the_shifted_softplus_is_the_logarithm_of_the_paper(x):
    value = float(nn.ShiftedSoftplus()(torch.tensor(x, dtype=torch.float64)))
    assert value == pytest.approx(math.log(0.5 * math.exp(x) + 0.5), abs=2e-15)


# 1 %: sigmoid(30) is so near 1 that three digits of its slope are left; PyTorch's own softplus has none
# from 20, where its second derivative is 0.
@pytest.mark.parametrize("x", [19.0, 20.0, 21.0, 30.0])
def test_the_shifted_softplus_keeps_its_curvature_where_pytorchs_ends(x):
    *_, curvature = derivatives(nn.ShiftedSoftplus(), x, order=2)
    assert curvature == pytest.approx(1 / (math.exp(x) * (1 + math.exp(-x)) ** 2), rel=1e-2, abs=0)


def test_the_shifted_softplus_is_twice_differentiable_around_twenty():
    x = torch.tensor([-25.0, -1.0, 0.0, 19.99999, 20.0, 20.00001], dtype=torch.float64)
    assert gradcheck(nn.ShiftedSoftplus(), x.requires_grad_())
    assert gradgradcheck(nn.ShiftedSoftplus(), x)


def test_the_shifted_softplus_does_not_overflow_in_float32():
    x = torch.tensor([79.0, 81.0, 1e4], requires_grad=True)
    (slope,) = torch.autograd.grad(nn.ShiftedSoftplus()(x).sum(), x)
    assert slope.tolist() == [1, 1, 1]


# Of values up to 40 and derivatives of order one; measured 4e-15.
def test_silu_is_that_of_torch_and_twice_differentiable():
    x = torch.linspace(-40, 40, 401, dtype=torch.float64, requires_grad=True)
    for ours, theirs in zip(
        value_and_slopes(SiLU(), x), value_and_slopes(torch.nn.functional.silu, x), strict=True
    ):
        assert_close(ours, theirs, atol=1e-13, rtol=0)


def value_and_slopes(function, x):
    value = function(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    return value, first, second, third


# Without kernels: on GPUs, in half precision, and under torch.func's transforms, as here.
def test_plain_torch_computes_the_shifted_softplus_too():
    x = torch.linspace(-30, 90, 121, dtype=torch.float64)
    activation = nn.ShiftedSoftplus()
    expected = torch.logaddexp(x, torch.zeros_like(x)) - math.log(2)
    assert_close(torch.func.vmap(activation)(x), expected, atol=1e-14, rtol=1e-15)
    slope = torch.func.vmap(torch.func.grad(activation))(x)
    assert_close(slope, torch.sigmoid(x), atol=1e-15, rtol=1e-15)
    curvature = torch.func.grad(torch.func.grad(activation))(torch.tensor(25.0, dtype=torch.float64))
    assert_close(
        curvature, torch.tensor(math.exp(-25.0)).double(), atol=0, rtol=1e-5
    )  # PyTorch's softplus: 0
