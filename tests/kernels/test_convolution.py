"""The kernels of convolutions against the same sums in plain torch."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyg_schnet.kernels import (
    correlate_rows,
    spline_convolution,
    without_position_gradients,
    without_weight_gradients,
)
from pyg_schnet.nn.spline import evaluate

# Sums of a few dozen products of numbers near 1: 2e-14 and 1e-5 were measured, relative to the largest value;
# second derivatives carry 1 / spacing² = 100.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-4}
START, SPACING, KNOTS, ATOMS = 7, 0.1, 30, 12
PLACE = (START, SPACING)

pytestmark = pytest.mark.usefixtures("restored_threads")


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def operands(channels=8, dtype=torch.float64, pairs=300, seed=0):
    """Features, table, distances and both atoms of pairs; some atoms are a pair with themselves."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    y, table = noise(ATOMS, channels).requires_grad_(), noise(KNOTS, channels).requires_grad_()
    u = torch.rand(pairs, generator=generator, dtype=torch.float64)
    distance = ((START + 0.01 + u * (KNOTS - 5.02)) * SPACING).to(dtype).requires_grad_()
    first, second = torch.randint(ATOMS, (2, pairs), generator=generator)
    assert pairs < 100 or bool((first == second).any())
    return y, table, distance, first, second, noise(ATOMS, channels).requires_grad_()


def plain(y, table, distance, first, second, start, spacing):
    filters = evaluate(table, distance, start, spacing)
    out = torch.zeros_like(y).index_add(0, first, filters * y[second])
    return out.index_add(0, second, filters * y[first])


def derivatives(convolution, y, table, distance, first, second, g):
    """The values, their first derivatives, and the second ones that training on forces asks for."""
    out = convolution(y, table, distance, first, second, *PLACE)
    firsts = torch.autograd.grad(out, (y, table, distance), g, retain_graph=True)
    with without_weight_gradients():
        by_y, slope = torch.autograd.grad(out, (y, distance), g, create_graph=True)
    generator = torch.Generator().manual_seed(1)
    a, s = (torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in (by_y, slope))
    loss = (by_y * a).sum() + (slope * s).sum()
    seconds = torch.autograd.grad(loss, (y, table, distance, g))
    return dict(
        zip(
            ("out", "dy", "dtable", "ddistance", "ddy", "ddtable", "dddistance", "ddg"),
            (out, *firsts, *seconds),
            strict=True,
        )
    )


def assert_equal(found, expected, dtype):
    for name, value in expected.items():
        scale = float(value.detach().abs().max())
        assert_close(
            found[name], value, atol=TOLERANCE[dtype] * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [8, 64, 65, 128])
def test_the_kernels_and_all_their_derivatives_equal_plain_torch(channels, dtype, threads):
    torch.set_num_threads(threads)
    given = operands(channels, dtype)
    assert_equal(derivatives(spline_convolution, *given), derivatives(plain, *given), dtype)


@pytest.mark.parametrize("pairs", [1, 63, 64, 65, 128, 191, 192])
def test_blocks_of_pairs_are_complete(pairs):
    torch.set_num_threads(3)
    given = operands(pairs=pairs)
    assert_equal(derivatives(spline_convolution, *given), derivatives(plain, *given), torch.float64)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_atom_that_is_a_pair_with_itself_counts_twice(dtype, threads):
    torch.set_num_threads(threads)
    y, table, distance, first, _, g = operands(64, dtype)
    given = (y, table, distance, first, first.clone(), g)
    assert_equal(derivatives(spline_convolution, *given), derivatives(plain, *given), dtype)


@pytest.mark.parametrize("threads", [1, 2])
def test_without_pairs_all_is_zero(threads):
    torch.set_num_threads(threads)
    found = derivatives(spline_convolution, *operands(pairs=0))
    assert all(not bool(value.any()) for value in found.values())
    assert found["out"].shape == (ATOMS, 8)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("channels", [8, 64])
def test_results_are_the_same_bits_in_each_run(channels, threads):
    torch.set_num_threads(threads)
    runs = [derivatives(spline_convolution, *operands(channels, torch.float32)) for _ in range(10)]
    for run in runs[1:]:
        assert all(torch.equal(run[name], value) for name, value in runs[0].items())


# Values at the ends of the first and of the last interval, and outside of them.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "wrong", [0.0, (START - 0.5) * SPACING, (START + KNOTS - 4.9) * SPACING, 1e30, -1.0, math.inf, math.nan]
)
def test_a_distance_outside_the_table_gives_nan_for_its_two_atoms_only(wrong, dtype):
    y, table, distance, _, _, g = operands(dtype=dtype, pairs=3)
    first, second = torch.tensor([[0, 2, 4], [1, 3, 5]])
    with torch.no_grad():
        distance[1] = wrong
    for convolution in (spline_convolution, plain):
        found = derivatives(convolution, y, table, distance, first, second, g)
        assert found["out"].isnan().any(dim=1).nonzero().flatten().tolist() == [2, 3]
        assert found["dy"].isnan().any(dim=1).nonzero().flatten().tolist() == [2, 3]
        assert not bool(found["ddistance"][[0, 2]].isnan().any())


def test_operands_that_do_not_lie_row_by_row_are_taken_as_they_are():
    y, table, distance, first, second, g = operands()
    y, g = (tensor.detach().t().contiguous().t().requires_grad_() for tensor in (y, g))
    given = (y, table, distance, first, second, g)
    assert_equal(derivatives(spline_convolution, *given), derivatives(plain, *given), torch.float64)


@pytest.mark.parametrize("stride", ["table", "distance"])
def test_tables_and_distances_that_are_slices_are_taken_as_they_are(stride):
    y, table, distance, first, second, g = operands()
    if stride == "table":
        table = torch.stack([table.detach(), -table.detach()], dim=2)[:, :, 0].requires_grad_()
    else:
        distance = torch.stack([distance.detach(), -distance.detach()], dim=1)[:, 0].requires_grad_()
    given = (y, table, distance, first, second, g)
    assert_equal(derivatives(spline_convolution, *given), derivatives(plain, *given), torch.float64)


@pytest.fixture
def few():
    *given, g = operands(channels=3, pairs=9)
    return given, g


def test_first_derivatives_equal_differences(few):
    (*tensors, first, second), _ = few
    torch.autograd.gradcheck(lambda *t: spline_convolution(*t, first, second, *PLACE), tensors)


def test_second_derivatives_equal_differences(few):
    (y, table, distance, first, second), g = few

    def forces(y, table, distance, g):
        out = spline_convolution(y, table, distance, first, second, *PLACE)
        with without_weight_gradients():
            return torch.autograd.grad(out, (y, distance), g, create_graph=True)

    torch.autograd.gradcheck(forces, (y, table, distance, g))


def test_second_derivatives_without_the_table_are_gradgradchecked(few):
    (y, table, distance, first, second), _ = few
    table = table.detach()
    torch.autograd.gradgradcheck(
        lambda y, distance: spline_convolution(y, table, distance, first, second, *PLACE), (y, distance)
    )


def third_derivatives(convolution, y, table, distance, g):
    """By everything, of a sum of squares of second derivatives, of the table's gradient among them."""
    inputs = (y, table, distance, g)
    out = convolution(y, table, distance)
    firsts = torch.autograd.grad(out, inputs[:3], g, create_graph=True)
    seconds = torch.autograd.grad(sum(f.square().sum() for f in firsts), inputs, create_graph=True)
    return torch.autograd.grad(sum(s.square().sum() for s in seconds), inputs)


def test_third_derivatives_equal_those_of_plain_torch(few):
    (y, table, distance, first, second), g = few

    def plainly(y, table, distance):
        return plain(y, table, distance, first, second, *PLACE)

    def by_kernels(y, table, distance):
        return spline_convolution(y, table, distance, first, second, *PLACE, plainly)

    found, expected = (third_derivatives(f, y, table, distance, g) for f in (by_kernels, plainly))
    for value, other in zip(found, expected, strict=True):
        assert_close(value, other, atol=1e-11 * float(other.abs().max()), rtol=0)


@pytest.mark.parametrize("by", ["table", "distance"])
def test_third_derivatives_without_the_plain_form_are_refused(few, by):
    (y, table, distance, first, second), g = few
    out = spline_convolution(y, table, distance, first, second, *PLACE)
    (gradient,) = torch.autograd.grad(out, {"table": table, "distance": distance}[by], g, create_graph=True)
    with pytest.raises(NotImplementedError, match="`plain`"):
        torch.autograd.grad(gradient.sum(), y, create_graph=True)


@pytest.mark.parametrize(
    ("context", "zero"),
    [(without_weight_gradients, "table"), (without_position_gradients, "distance")],
    ids=["positions", "weights"],
)
def test_derivatives_that_nobody_reads_are_left_out(few, context, zero):
    (y, table, distance, first, second), g = few
    out = spline_convolution(y, table, distance, first, second, *PLACE)
    full = torch.autograd.grad(out, (y, table, distance), g, retain_graph=True)
    with context():
        part = torch.autograd.grad(out, (y, table, distance), g, allow_unused=True)
    for name, found, expected in zip(("y", "table", "distance"), part, full, strict=True):
        if name == zero:
            assert found is None
        else:
            assert_close(found, expected, atol=1e-13, rtol=0)  # other loops: 1e-15 was measured


WEIGHTS = [0.5, -1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, 4, 50])
def test_rows_are_combined_as_by_a_loop(rows, dtype):
    values = operands(dtype=dtype)[1].detach()[:rows] if rows < KNOTS else torch.randn(50, 65).to(dtype)
    expected = sum(tap * values[k : k + len(values) - 2] for k, tap in enumerate(WEIGHTS))
    assert_close(correlate_rows(values, WEIGHTS), expected)


def test_derivatives_of_combined_rows_equal_differences():
    values = operands(channels=3)[1].detach()[:6].requires_grad_()
    torch.autograd.gradcheck(lambda v: correlate_rows(v, WEIGHTS), values)
    torch.autograd.gradgradcheck(lambda v: correlate_rows(v, WEIGHTS), values)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("row", [-1, ATOMS, 2**40])
@pytest.mark.parametrize("end", [3, 4], ids=["first", "second"])
def test_pairs_of_atoms_that_are_not_there_are_refused(row, end, threads):
    torch.set_num_threads(threads)
    inputs = operands(pairs=2000)[:5]
    inputs[end][7] = row
    with pytest.raises(ValueError, match=r"`first`.*`second`.*numbers.*12.*atoms"):
        spline_convolution(*inputs, *PLACE)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, lambda table: table[:, :5], "`table`.*8.*channels"),
        (1, lambda table: table[:5], "`table`.*at least 6.*rows"),
        (1, lambda table: table.float(), "`table`.*`distance`.*torch.float64"),
        (2, lambda distance: distance[1:], "entry.*299.*300.*300"),
        (4, lambda second: second[:7], "entry.*300.*300.*7"),
    ],
    ids=["channels", "rows", "type", "distances", "second atoms"],
)
def test_tensors_that_do_not_belong_together_are_refused(place, change, message):
    inputs = list(operands()[:5])
    inputs[place] = change(inputs[place])
    with pytest.raises((ValueError, TypeError), match=message):
        spline_convolution(*inputs, *PLACE)


def test_contexts_hold_in_the_thread_of_backward_once_cuda_is_in_use(monkeypatch):
    """Autograd runs backward of CUDA tensors in threads of its own, to which contexts do not reach."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert torch._C._is_multithreading_enabled()
    with without_weight_gradients():
        assert not torch._C._is_multithreading_enabled()
    assert torch._C._is_multithreading_enabled()
