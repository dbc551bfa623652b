"""The operations in torch's own machinery: opcheck, torch.compile, derivatives of direct calls, autocast."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pyg_schnet.kernels import (
    LAUNCHES,
    correlate_rows,
    pair_distances,
    segment_sum,
    shifted_softplus,
    silu,
    spline_convolution,
)

PAIRS, ATOMS, KNOTS, CHANNELS, START, SPACING = 20, 6, 20, 8, 7, 0.1


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def arguments():
    """Arguments of each operation."""
    y, g, a = (scale * noise(ATOMS, CHANNELS) for scale in (1, 2, 3))
    table, s, pos = noise(KNOTS, CHANNELS), noise(PAIRS), noise(ATOMS, 3)
    first, second = torch.arange(PAIRS) % ATOMS, (torch.arange(PAIRS) + 1) % ATOMS
    distance = (START + torch.linspace(0.1, KNOTS - 5.1, PAIRS, dtype=torch.float64)) * SPACING
    place = (table, distance, first, second, [], START, SPACING)
    rowptr = torch.tensor([0, 2, ATOMS], dtype=torch.int32)
    return {
        "ssp": (y,),
        "ssp_backward": (g, y),
        "ssp_double_backward": (a, g, y),
        "correlate_rows": (table, [1.0, 2.0, 3.0], False),
        "convolve": (y, *place),
        "convolve_backward": (g, y, *place, True, True),
        "convolve_double_backward": (g, y, a, s, *place, True),
        "distances": (pos, first, second, []),
        "distances_backward": (s, pos, first, second, []),
        "distances_double_backward": (2 * pos, s, pos, first, second, [], True),
        "segment_sum": (y, rowptr, []),
        "segment_expand": (y[:2].clone(), rowptr, [], ATOMS),
        "interval_order": (distance, START, SPACING, KNOTS - 5),
    }


# The others have no derivatives, or derivatives for which a caller must give a plain form.
DIFFERENTIABLE = LAUNCHES.keys() - {
    *("ssp_double_backward", "convolve_double_backward", "distances_double_backward"),
    *("convolve_backward", "interval_order"),
}


def is_real(value):
    return isinstance(value, Tensor) and value.is_floating_point()


def tracked(inputs):
    return tuple(value.clone().requires_grad_() if is_real(value) else value for value in inputs)


def operation(name):
    return getattr(torch.ops.pyg_schnet, name).default


@pytest.mark.parametrize("name", LAUNCHES)
def test_operations_pass_torchs_own_checks(name):
    inputs = arguments()[name]
    if name.startswith("convolve"):
        inputs = (inputs[0].t().contiguous().t(), *inputs[1:])  # column by column; results are row by row
    torch.library.opcheck(operation(name), tracked(inputs) if name in DIFFERENTIABLE else inputs)


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE))
def test_derivatives_of_direct_calls_equal_differences(name):
    inputs = tracked(arguments()[name])
    torch.autograd.gradcheck(operation(name), inputs)


def test_the_derivatives_of_a_convolutions_gradient_equal_differences():
    g, y, table, *place = arguments()["convolve_backward"]
    torch.autograd.gradcheck(
        lambda g, y: operation("convolve_backward")(g, y, table, *place)[:2], tracked((g, y))
    )


def test_torch_compile_differentiates_through_operations():
    y, table, *place = arguments()["convolve"]

    def energy(y, table):
        table = torch.ops.pyg_schnet.correlate_rows(table, [0.5, 1.0], False)
        out = torch.ops.pyg_schnet.convolve(y, table, *place)
        return torch.ops.pyg_schnet.ssp(out).square().sum()

    inputs = tracked((y, torch.cat([table, table[:1]])))
    expected = torch.autograd.grad(energy(*inputs), inputs)
    compiled = torch.compile(energy, backend="aot_eager", fullgraph=True)
    for found, value in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        assert_close(found, value)


@pytest.mark.parametrize("name", LAUNCHES)
def test_operations_compute_in_float32_under_autocast(name):
    inputs, dtype = arguments()[name], torch.float16 if name == "ssp" else torch.bfloat16
    rounded = tuple(value.to(dtype) if is_real(value) else value for value in inputs)
    with torch.autocast("cpu", dtype):
        found = operation(name)(*rounded)
    expected = operation(name)(*(value.float() if is_real(value) else value for value in rounded))
    for value, other in zip(*((v if isinstance(v, tuple) else (v,)) for v in (found, expected)), strict=True):
        assert torch.equal(value.nan_to_num(), other.nan_to_num())  # rounded distances may be outside
        assert value.dtype in (torch.float32, torch.int32)


FUNCTIONS = {
    "shifted_softplus": shifted_softplus,
    "silu": silu,
    "correlate_rows": lambda x: correlate_rows(x, [0.5, 1.0]),
    "segment_sum": lambda x: segment_sum(x, torch.tensor([0, 2, ATOMS], dtype=torch.int32)),
    "pair_distances": lambda x: pair_distances(x[:, :3], torch.tensor([[0, 1], [2, 3]])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_derivatives_are_those_of_float32_under_autocast(name):
    x = noise(ATOMS, CHANNELS).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = FUNCTIONS[name](x)
    exact = x.detach().float().requires_grad_()
    expected = FUNCTIONS[name](exact)
    assert torch.equal(found, expected)
    (by_x,) = torch.autograd.grad(found.sum(), x)
    (by_exact,) = torch.autograd.grad(expected.sum(), exact)
    assert torch.equal(by_x, by_exact.bfloat16())


def test_convolutions_of_rounded_features_are_those_of_float32_under_autocast():
    y, table, distance, first, second, *_ = arguments()["convolve"]
    table, distance = table.float(), distance.float()
    rounded = y.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = spline_convolution(rounded, table, distance, first, second, START, SPACING)
    exact = rounded.detach().float().requires_grad_()
    expected = spline_convolution(exact, table, distance, first, second, START, SPACING)
    assert torch.equal(found, expected)
    (by_y,) = torch.autograd.grad(found.sum(), rounded)
    assert torch.equal(by_y, torch.autograd.grad(expected.sum(), exact)[0].bfloat16())
