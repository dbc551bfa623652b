"""Kernels in Triton against plain torch, by Triton's interpreter on CPUs; ``test_triton.py`` runs this file.

The interpreter must be chosen before Triton is imported, hence a process of its own:
``TRITON_INTERPRET=1 pytest tests/kernels/interpreted_triton.py``.
"""

import math
import os
from collections import Counter

import pytest
import torch
from ase.build import bulk
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.graph.csr import csr_of
from pyg_schnet.kernels import LAUNCHES, without_position_gradients
from pyg_schnet.kernels.triton import implementation
from pyg_schnet.nn.spline import evaluate
from tests.gpu_like import gpu_like

assert os.environ.get("TRITON_INTERPRET") == "1"

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-5}  # of the largest value; 9e-15 and 3e-6 were measured
START, SPACING, KNOTS, INTERVALS, ATOMS, PAIRS = 7, 0.1, 12, 7, 8, 24
PLACE = (START, SPACING)
LONELY, PADDING = 5, [6, 7]  # an atom without neighbors; atoms whose pair is in no row
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
CHANNELS = pytest.mark.parametrize(
    ("channels", "dtype"),
    [(16, torch.float32), (30, torch.float64), (48, torch.float64), (64, torch.float32)],
    ids=["16", "30", "48", "64"],
)


class Operands:
    """Random operands of convolutions; the last pair is padding, on whose atoms nothing depends."""

    def __init__(self, channels=16, dtype=torch.float64, pairs=PAIRS, bonds=12, padded=1):
        generator = torch.Generator().manual_seed(0)

        def noise(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        first, second = torch.randint(LONELY, (2, pairs), generator=generator)
        u = torch.rand(pairs + padded, generator=generator, dtype=torch.float64)
        u[:bonds] = 0.53 + 1e-3 * u[:bonds]  # in one interval, as bonds are
        self.distance = ((START + 0.01 + u * (INTERVALS - 0.02)) * SPACING).to(dtype)
        self.first = torch.cat([first, torch.full((padded,), PADDING[0])])
        self.second = torch.cat([second, torch.full((padded,), PADDING[1])])
        self.y, self.g, self.a = (noise(ATOMS, channels) for _ in range(3))
        self.table, self.s = noise(KNOTS, channels), noise(pairs + padded)
        self.g[PADDING] = self.a[PADDING] = 0
        self.s[pairs:] = 0
        self.pairs = pairs
        order = implementation("interval_order")(self.distance, *PLACE, INTERVALS)
        self.layout = [*csr_of(torch.stack([first, second]), ATOMS), *order]

    def place(self, layout=None):
        return (
            *(self.table, self.distance, self.first, self.second),
            self.layout if layout is None else layout,
            *PLACE,
        )

    def plain(self, y, table, distance):
        """Convolve by plain torch in float64, without padded pairs."""
        first, second = self.first[: self.pairs], self.second[: self.pairs]
        filters = evaluate(table, distance[: self.pairs], *PLACE)
        out = torch.zeros_like(y).index_add(0, first, filters * y[second])
        return out.index_add(0, second, filters * y[first])

    def expected(self):
        """Results of the three operations by autograd."""
        y, table, distance, g = (
            tensor.double().requires_grad_() for tensor in (self.y, self.table, self.distance, self.g)
        )
        out = self.plain(y, table, distance)
        firsts = torch.autograd.grad(out, (y, distance, table), g, create_graph=True)
        loss = (firsts[0] * self.a).sum() + (firsts[1] * self.s).sum()
        seconds = torch.autograd.grad(loss, (y, g, table, distance))
        return [[out], firsts, seconds]

    def found(self, layout=None):
        place = self.place(layout)
        return [
            [implementation("convolve")(self.y, *place)],
            implementation("convolve_backward")(self.g, self.y, *place, True, True),
            implementation("convolve_double_backward")(self.g, self.y, self.a, self.s, *place, True),
        ]


NAMES = [["out"], ["dy", "ddistance", "dtable"], ["ddy", "ddg", "ddtable", "dddistance"]]


def assert_equal(found, expected, dtype):
    for names, values, others in zip(NAMES, found, expected, strict=True):
        for name, value, other in zip(names, values, others, strict=True):
            assert value.dtype == dtype, name
            bound = TOLERANCE[dtype] * float(other.detach().abs().max())
            assert_close(value.double(), other, atol=bound, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def assert_same_bits(found, others):
    for values, again in zip(found, others, strict=True):
        assert all(torch.equal(value, other) for value, other in zip(values, again, strict=True))


@CHANNELS
def test_convolutions_and_their_derivatives_equal_plain_torch(channels, dtype):
    operands = Operands(channels, dtype)
    found = operands.found()
    assert_equal(found, operands.expected(), dtype)
    assert not bool(found[0][0][[LONELY, *PADDING]].any())


@pytest.fixture(scope="module")
def found():
    return Operands().found()


def test_results_are_the_same_bits_in_each_run(found):
    assert_same_bits(Operands().found(), found)


def test_more_channels_than_a_program_computes_equal_plain_torch():
    operands = Operands(144)
    (out,) = operands.expected()[0]
    assert_close(implementation("convolve")(operands.y, *operands.place()), out, atol=1e-13, rtol=0)


def test_many_pairs_of_one_interval_equal_plain_torch():
    operands = Operands(pairs=290, bonds=270)  # three parts of 128 pairs
    backward = implementation("convolve_backward")
    *_, found = backward(operands.g, operands.y, *operands.place(), False, True)
    assert_close(found, operands.expected()[1][2], atol=1e-12, rtol=0)


def test_padding_changes_no_bit():
    padded, exact = Operands(padded=9), Operands(padded=0)
    padded.distance = torch.cat([exact.distance, padded.distance[PAIRS:]])
    padded.y, padded.g, padded.table = exact.y, exact.g, exact.table
    padded.layout[3:] = implementation("interval_order")(padded.distance, *PLACE, INTERVALS)
    (dy, slope, to_table), expected = (
        implementation("convolve_backward")(given.g, given.y, *given.place(), True, True)
        for given in (padded, exact)
    )
    assert not bool(slope[PAIRS:].any())
    assert_same_bits([[dy, slope[:PAIRS], to_table]], [expected])


def test_without_a_layout_rows_and_intervals_are_sorted_in_the_call():
    operands = Operands(padded=0)
    backward = implementation("convolve_backward")
    expected = backward(operands.g, operands.y, *operands.place(), False, True)
    for layout in ([], operands.layout[:3]):
        found = backward(operands.g, operands.y, *operands.place(layout), False, True)
        assert_same_bits([found], [expected])


def test_without_pairs_all_is_zero():
    for values in Operands(pairs=0, bonds=0, padded=0).found():
        assert not any(bool(value.any()) for value in values)


@pytest.mark.parametrize(
    "wrong", [(START - 0.5) * SPACING, (START + INTERVALS + 0.1) * SPACING, -1.0, 1e30, math.inf, math.nan]
)
def test_a_distance_outside_the_table_gives_nan_for_its_two_atoms_only(wrong):
    operands = Operands(dtype=torch.float32, pairs=3, bonds=0, padded=0)
    operands.first, operands.second = torch.tensor([[0, 2, 4], [1, 3, 5]])
    operands.distance[1] = wrong
    operands.layout = list(csr_of(torch.stack([operands.first, operands.second]), ATOMS))
    backward = implementation("convolve_backward")
    dy, slope, _ = backward(operands.g, operands.y, *operands.place(), True, False)
    for rows in (implementation("convolve")(operands.y, *operands.place()), dy):
        assert rows.isnan().any(1).nonzero().flatten().tolist() == [2, 3]
    assert slope.isnan().tolist() == [False, True, False]


def test_distances_at_knots_are_within_the_table():
    operands = Operands(pairs=INTERVALS + 1, bonds=0, padded=0)
    operands.distance = torch.arange(START, START + INTERVALS + 1, dtype=torch.float64) * SPACING
    operands.distance[-1].nextafter_(torch.zeros((), dtype=torch.float64))
    assert not bool(implementation("convolve")(operands.y, *operands.place()).isnan().any())


def test_results_that_are_not_wanted_are_left_out(found):
    operands = Operands()
    backward = implementation("convolve_backward")
    for by_distance, by_table in ((True, False), (False, True), (False, False)):
        dy, slope, to_table = backward(operands.g, operands.y, *operands.place(), by_distance, by_table)
        assert torch.equal(dy, found[1][0])
        assert torch.equal(slope, found[1][1] if by_distance else slope.new_empty(0))
        assert torch.equal(to_table, found[1][2] if by_table else to_table.new_empty(0))
    double = implementation("convolve_double_backward")
    given = (operands.g, operands.y, operands.a, operands.s, *operands.place())
    *same, slope = double(*given, False)
    assert_same_bits([same], [found[2][:3]])
    assert slope.shape == (0,)


def test_operands_that_do_not_lie_row_by_row_are_taken_as_they_are(found):
    operands = Operands()
    for name in ("y", "g", "table", "distance", "a", "s", "first", "second"):
        tensor = getattr(operands, name)
        setattr(operands, name, torch.stack([tensor, -tensor], dim=-1)[..., 0])
    assert_same_bits(operands.found(), found)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"table": lambda t: t[:, :5]}, ValueError, "`table`.*16 channels.*5"),
        ({"table": lambda t: t[:5]}, ValueError, "`table`.*at least 6 rows.*5"),
        ({"distance": lambda d: d.float()}, TypeError, "`distance`.*float64.*float32"),
        ({"layout": lambda given: [*given[:4], given[4][:-1]]}, ValueError, "`layout`.*7 intervals.*6"),
    ],
    ids=["channels", "rows", "type", "intervals"],
)
def test_operands_that_do_not_belong_together_are_refused(changes, error, message):
    operands = Operands()
    for name, change in changes.items():
        setattr(operands, name, change(getattr(operands, name)))
    with pytest.raises(error, match=message):
        implementation("convolve_backward")(operands.g, operands.y, *operands.place(), False, True)


def interval_of(distance):
    k = ((distance.double() - START * SPACING) / SPACING).floor()
    return k.nan_to_num(-1).clamp(-1, INTERVALS).int()


@pytest.mark.parametrize("pairs", [0, 1, 300])
def test_pairs_are_sorted_by_interval_in_their_order(pairs):
    distance = (
        START - 1 + (INTERVALS + 2) * torch.rand(pairs, generator=torch.Generator().manual_seed(0))
    ) * SPACING
    if pairs > 5:
        distance[3], distance[4] = math.nan, math.inf
    order, rowptr = implementation("interval_order")(distance, *PLACE, INTERVALS)
    assert order.dtype == rowptr.dtype == torch.int32
    interval, expected = interval_of(distance).sort(stable=True)
    assert torch.equal(order.long(), expected)
    assert rowptr.tolist() == [int((interval < k).sum()) for k in range(INTERVALS + 1)]


@DTYPES
def test_distances_and_their_derivatives_equal_plain_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    pos, a = (torch.randn(ATOMS, 3, generator=generator, dtype=dtype) for _ in range(2))
    pairs = torch.combinations(torch.arange(LONELY), 2).t()[:, torch.randperm(10, generator=generator)[:9]]
    padded = torch.cat([pairs, torch.tensor(PADDING)[:, None]], dim=1)
    g = torch.randn(10, generator=generator, dtype=dtype)
    a[PADDING] = 0
    ends, layout = (padded[0], padded[1]), list(csr_of(pairs, ATOMS))

    def found(layout):
        return [
            [implementation("distances")(pos, *ends, layout)],
            [implementation("distances_backward")(g, pos, *ends, layout)],
            implementation("distances_double_backward")(a, g, pos, *ends, layout, True),
        ]

    at, by = pos.double().requires_grad_(), g.double().requires_grad_()
    distance = (at[padded[0]] - at[padded[1]]).norm(dim=1)
    (first,) = torch.autograd.grad(distance[:9], at, by[:9], create_graph=True)
    seconds = torch.autograd.grad(first, (by, at), a.double())
    for values, others in zip(found(layout), ([distance], [first], seconds), strict=True):
        for value, other in zip(values, others, strict=True):
            bound = TOLERANCE[dtype] * float(other.detach().abs().max())
            assert value.dtype == dtype
            assert_close(value.double(), other, atol=bound, rtol=0)
    assert_same_bits(found(layout), found(layout))
    to_g, to_pos = implementation("distances_double_backward")(a, g, pos, *ends, layout, False)
    assert torch.equal(to_g, found(layout)[2][0])
    assert to_pos.shape == (0,)


@pytest.mark.parametrize(
    ("rows", "shape", "dtype"),
    [
        (50, (), torch.float32),
        (50, (3,), torch.float64),
        (50, (70,), torch.float32),
        (50, (0,), torch.float32),
        (2500, (), torch.float32),
        (2500, (3, 3), torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("ordered", [False, True], ids=["sorted", "ordered"])
def test_segments_are_summed_and_expanded_as_by_plain_torch(rows, ordered, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, *shape, generator=generator, dtype=dtype)
    rowptr = torch.tensor([2, 2, 9, 10, rows - 3, rows - 3], dtype=torch.int32)
    order = [torch.randperm(rows, generator=generator).int()] if ordered else []
    found = implementation("segment_sum")(values, rowptr, order)
    g = torch.randn(5, *shape, generator=generator, dtype=dtype)
    back = implementation("segment_expand")(g, rowptr, order, rows)
    taken = values[order[0].long()] if order else values
    expanded = torch.zeros_like(values)
    for k, (begin, end) in enumerate(zip(rowptr[:-1].tolist(), rowptr[1:].tolist(), strict=True)):
        bound = TOLERANCE[dtype] * 100
        assert_close(found[k].double(), taken[begin:end].double().sum(0), atol=bound, rtol=0)
        expanded[order[0][begin:end].long() if order else slice(begin, end)] = g[k]
    assert torch.equal(back, expanded)
    assert torch.equal(implementation("segment_sum")(values, rowptr, order), found)


def test_long_segments_have_the_same_bits_however_they_are_computed():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    one = implementation("segment_sum")(values, torch.tensor([0, 5000], dtype=torch.int32), [])
    many = torch.cat([torch.tensor([0]), torch.full((100,), 5000)]).int()  # cut into parts only where few
    assert torch.equal(implementation("segment_sum")(values, many, [])[0], one[0])
    padded = torch.cat([values, torch.zeros(900)])
    whole = torch.tensor([0, 5900], dtype=torch.int32)
    assert torch.equal(implementation("segment_sum")(padded, whole, []), one)


def test_no_segments_and_no_rows_have_no_sums():
    rowptr = torch.tensor([0], dtype=torch.int32)
    assert implementation("segment_sum")(torch.ones(3, 2), rowptr, []).shape == (0, 2)
    assert implementation("segment_expand")(torch.ones(0, 2), rowptr, [], 3).tolist() == [[0, 0]] * 3
    assert implementation("segment_sum")(torch.ones(0, 2), torch.zeros(3).int(), []).tolist() == [[0, 0]] * 2


EXTREME = [0.0, -0.0, 1e-8, 20.0, -20.0, 80.0, -80.0, 1e3, -1e3, math.inf, -math.inf, math.nan]


@DTYPES
def test_the_shifted_softplus_and_its_derivatives_equal_plain_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    extreme = torch.tensor(EXTREME, dtype=torch.float64)
    x = torch.cat([torch.linspace(-30, 30, 600, dtype=torch.float64), extreme]).to(dtype)
    a, g = (torch.randn(len(x), generator=generator, dtype=dtype) for _ in range(2))
    wide, slope = x.double(), x.double().sigmoid()
    small = {"atol": 4 * torch.finfo(dtype).eps, "rtol": 4 * torch.finfo(dtype).eps, "equal_nan": True}
    expected = torch.nn.functional.softplus(wide, threshold=80.0) - math.log(2)
    assert_close(implementation("ssp")(x).double(), expected, **small)
    assert_close(implementation("ssp_backward")(g, x).double(), g.double() * slope, **small)
    to_g, to_x = implementation("ssp_double_backward")(a, g, x)
    assert_close(to_g.double(), a.double() * slope, **small)
    assert_close(to_x.double(), a.double() * g.double() * slope * (1 - slope), **small)


@pytest.mark.parametrize("shape", [(0,), (), (3, 5)])
def test_the_shifted_softplus_takes_any_shape(shape):
    x = torch.ones(shape)
    for name, inputs in (("ssp", [x]), ("ssp_backward", [x, x]), ("ssp_double_backward", [x, x, x])):
        found = implementation(name)(*inputs)
        assert all(value.shape == shape for value in (found if isinstance(found, tuple) else [found]))


@CHANNELS
@pytest.mark.parametrize("transpose", [False, True])
def test_rows_are_combined_as_by_a_loop(transpose, channels, dtype):
    values, weights = Operands(channels, dtype).table, [0.1, -1.0, 2.0, 0.7]
    matrix = torch.zeros(KNOTS - 3, KNOTS, dtype=torch.float64)
    for k, row in enumerate(matrix):
        row[k : k + 4] = torch.tensor(weights, dtype=torch.float64)
    if transpose:
        values, matrix = values[: KNOTS - 3], matrix.t()
    found = implementation("correlate_rows")(values, weights, transpose)
    assert found.dtype == dtype
    assert_close(found.double(), matrix @ values.double(), atol=TOLERANCE[dtype], rtol=0)


class Launches(TorchDispatchMode):
    """A count of launches: those of kernels, and of torch's operations that are no allocations or views."""

    FREE = ("empty", "new_empty", "empty_like", "detach", "view", "slice")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.count += 0 if name in self.FREE else 5 if name == "sort" else 1
        return func(*args, **(kwargs or {}))


def test_each_operation_launches_what_the_table_states(monkeypatch):
    operands, counter = Operands(), Launches()
    pos, ends, rows = operands.y[:, :3].contiguous(), (operands.first, operands.second), operands.layout[:3]
    place, x, one = operands.place(), operands.y, torch.tensor([0, 5000], dtype=torch.int32)
    calls = {
        "ssp": (x,),
        "ssp_backward": (x, x),
        "ssp_double_backward": (x, x, x),
        "correlate_rows": (operands.table, [1.0, 2.0], False),
        "convolve": (x, *place),
        "convolve_backward": (x, x, *place, True, True),
        "convolve_double_backward": (x, x, x, operands.s, *place, True),
        "distances": (pos, *ends, rows),
        "distances_backward": (operands.s, pos, *ends, rows),
        "distances_double_backward": (pos, operands.s, pos, *ends, rows, True),
        "segment_sum": (torch.ones(5000), one, []),
        "segment_expand": (torch.ones(1), one, [torch.arange(5000).int()], 5000),
        "interval_order": (operands.distance, *PLACE, INTERVALS),
    }
    for name in ("convolution", "table_gradient", "distances", "elementwise", "segments"):
        module = __import__(f"pyg_schnet.kernels.triton.{name}", fromlist=["launch"])
        monkeypatch.setattr(module, "launch", lambda *a, **k: setattr(counter, "count", counter.count + 1))
    found = {}
    for name, arguments in calls.items():
        counter.count = 0
        with counter:
            implementation(name)(*arguments)
        found[name] = counter.count
    assert found == LAUNCHES


@pytest.fixture
def on_cpu():
    """Register these kernels for CPU tensors, in place of those in C; count their calls."""
    calls = Counter()

    def counted(name):
        def call(*arguments):
            calls[name] += 1
            return implementation(name)(*arguments)

        return call

    def install():
        for name in LAUNCHES:
            library.impl(name, counted(name), "CPU", allow_override=True)
        return calls

    library = torch.library.Library("pyg_schnet", "IMPL")
    yield install
    library._destroy()


def structures(kind):
    if kind == "molecules":
        generator = torch.Generator().manual_seed(0)
        grid = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
        pos = [1.3 * grid[:n] + 0.1 * torch.randn(n, 3, generator=generator) for n in (5, 4)]
        return Batch.from_data_list([Data(z=torch.tensor([6, 1, 8, 1, 1][: len(p)]), pos=p) for p in pos])
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=0)
    cell, pbc = torch.from_numpy(atoms.cell.array)[None], torch.ones(1, 3, dtype=torch.bool)
    z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions)
    return Batch.from_data_list([Data(z=z, pos=pos, cell=cell, pbc=pbc)])


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:Warning only once for all operators")  # that implementations are replaced
@pytest.mark.parametrize("kind", ["molecules", "crystal"])
def test_a_step_of_training_equals_that_of_kernels_in_c(kind, on_cpu):
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 12, 2.6 if kind == "crystal" else 4.0, filters="spline")
    potential, batch = Potential(model).double().train(), structures(kind)
    with torch.no_grad():  # else the last layer is zero
        for parameter in potential.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))

    def step():
        out = potential(batch, stress=kind == "crystal")
        loss = sum((value - 0.1).square().sum() for value in out.values())
        names, weights = zip(*potential.named_parameters(), strict=True)
        with without_position_gradients():
            gradients = torch.autograd.grad(loss, weights)
        return {**{n: v.detach() for n, v in out.items()}, **dict(zip(names, gradients, strict=True))}

    expected, calls = step(), on_cpu()
    with gpu_like():
        found, again = step(), step()
    assert calls.keys() == LAUNCHES.keys()
    for name, value in expected.items():
        # The same terms in another order: 6e-15 of the largest was measured.
        bound = 1e-12 * float(value.abs().max())
        assert_close(found[name], value, atol=bound, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(again[name], found[name]), name
