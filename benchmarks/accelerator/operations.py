"""The package's operations against the same sums in plain PyTorch: results, bits, times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accelerator.rows import Rows
from benchmarks.accelerator.timing import (
    Settings,
    difference,
    milliseconds,
    peak_megabytes,
    prepare,
    same_bits,
)
from pyg_schnet.graph.csr import csr_of
from pyg_schnet.nn.spline import evaluate

OPS = torch.ops.pyg_schnet
START, SPACING, INTERVALS = 20, 0.025, 180  # distances from 0.5 to 5 Å
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-4}  # second derivatives carry 1 / spacing² = 1600

Result = Tensor | tuple[Tensor, ...]


@dataclass
class Case:
    """An operation and the same function in plain PyTorch.

    Attributes:
        name: Operation, with what is special about it after a space.
        arguments: Of the operation.
        plain: Computes the same.
        taken: Numbers of the results that are asked for; all by default.
    """

    name: str
    arguments: tuple[Any, ...]
    plain: Callable[[], Result]
    taken: tuple[int, ...] | None = None

    @property
    def operation(self) -> Any:
        """The operation, as PyTorch calls it."""
        return getattr(OPS, self.name.split()[0]).default

    def own(self) -> Result:
        """Call the operation."""
        found = self.operation(*self.arguments)
        return found if self.taken is None else tuple(found[number] for number in self.taken)


@dataclass
class Operands:
    """Tensors for all operations: a batch of molecules of QM9's size.

    Args:
        device: Where they are.
        dtype: Of all but indices.
        molecules: Of 18 atoms each, all of whose pairs interact.
        channels: Channels of features and filters.
    """

    device: torch.device
    dtype: torch.dtype
    molecules: int
    channels: int
    atoms: int = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        size = 18
        self.atoms = self.molecules * size
        pairs = torch.combinations(torch.arange(size)).t()
        first = torch.arange(self.molecules).mul(size)
        pairs = (pairs[:, None] + first[:, None]).reshape(2, -1)
        self.first, self.second = (end.contiguous().to(self.device) for end in pairs)
        self.csr = [*csr_of(pairs.to(self.device), self.atoms)]

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device, self.dtype)

        rows, features = pairs.size(1), (self.atoms, self.channels)
        self.pos = 3 * noise(self.atoms, 3)
        u = torch.rand(rows, generator=generator, dtype=torch.float64).to(self.device, self.dtype)
        self.distance = (START + 0.01 + u * (INTERVALS - 0.02)) * SPACING
        self.table = noise(INTERVALS + 5, self.channels)
        self.y, self.g, self.a = noise(*features), noise(*features), noise(*features)
        self.to_distance, self.to_pos = noise(rows), noise(self.atoms, 3)
        self.order = [*self.sort()]  # by plain operations, so that a failure stays with its operation
        self.spline = (self.table, self.distance, self.first, self.second)
        self.grid = (START, SPACING)
        self.rowptr = torch.arange(0, self.atoms + 1, size, dtype=torch.int32, device=self.device)

    def sort(self) -> tuple[Tensor, Tensor]:
        """Compute ``interval_order`` by plain operations."""
        interval = (self.distance.double() / SPACING - START).floor().int()
        interval, order = interval.sort(stable=True)
        edges = torch.arange(INTERVALS + 1, device=self.device, dtype=torch.int32)
        return order.int(), torch.searchsorted(interval, edges).int()

    def layout(self, with_order: bool = False) -> list[Tensor]:
        """Return the order of the sums, which kernels for GPUs need."""
        return [] if self.device.type == "cpu" else [*self.csr, *(self.order if with_order else [])]


def cases(t: Operands) -> list[Case]:
    """Return a case of each operation, and of each way in which models call it."""
    return [*_activations(t), *_convolutions(t), *_distances(t), *_sums(t)]


def _gradients(outputs: Tensor, inputs: list[Tensor], by: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that differentiates again and again, without what the outputs took."""
    return lambda: torch.autograd.grad(outputs, inputs, by, retain_graph=True)


def _twice(outputs: Tensor, inputs: list[Tensor], g: Tensor, by: list[Tensor], to: list[Tensor]):
    """Return a function that differentiates gradients by inputs and g; only this is done in each call."""
    firsts = torch.autograd.grad(outputs, inputs, g, create_graph=True)
    total = sum((one * cotangent).sum() for one, cotangent in zip(firsts, by, strict=True))
    return lambda: torch.autograd.grad(total, to, retain_graph=True)


def _activations(t: Operands) -> list[Case]:
    def softplus(x: Tensor) -> Tensor:
        return nn.functional.softplus(x, threshold=80.0) - math.log(2.0)

    x, g = t.y.clone().requires_grad_(), t.g.clone().requires_grad_()
    return [
        Case("ssp", (t.y,), lambda: softplus(t.y)),
        Case("ssp_backward", (t.g, t.y), _gradients(softplus(x), [x], t.g)),
        Case(
            "ssp_double_backward",
            (t.a, t.g, t.y),
            _twice(softplus(x), [x], g, [t.a], [g, x]),
        ),
    ]


def _convolutions(t: Operands) -> list[Case]:
    def plain(y: Tensor, table: Tensor, distance: Tensor) -> Tensor:
        filters = evaluate(table, distance, *t.grid)
        out = torch.zeros_like(y).index_add(0, t.first, filters * y.index_select(0, t.second))
        return out.index_add(0, t.second, filters * y.index_select(0, t.first))

    y, table, distance, g = (x.clone().requires_grad_() for x in (t.y, t.table, t.distance, t.g))
    out = plain(y, table, distance)
    rest, with_order = (t.layout(), *t.grid), (t.layout(with_order=True), *t.grid)
    weights = [0.25, 0.5, 0.25]
    return [
        Case(
            "convolve",
            (t.y, *t.spline, *rest),
            lambda: plain(t.y, t.table, t.distance),
        ),
        Case(
            "convolve_backward for forces",
            (t.g, t.y, *t.spline, *rest, True, False),
            _gradients(out, [y, distance], t.g),
            (0, 1),
        ),
        Case(
            "convolve_backward for weights",
            (t.g, t.y, *t.spline, *with_order, False, True),
            _gradients(out, [y, table], t.g),
            (0, 2),
        ),
        Case(
            "convolve_double_backward",
            (t.g, t.y, t.a, t.to_distance, *t.spline, *with_order, False),
            _twice(out, [y, distance], g, [t.a, t.to_distance], [y, g, table]),
            (0, 1, 2),
        ),
        Case(
            "correlate_rows",
            (t.table, weights, False),
            lambda: sum(w * t.table[k : k + len(t.table) - 2] for k, w in enumerate(weights)),
        ),
    ]


def _distances(t: Operands) -> list[Case]:
    def plain(pos: Tensor) -> Tensor:
        return (pos.index_select(0, t.first) - pos.index_select(0, t.second)).norm(dim=1)

    pos, g = t.pos.clone().requires_grad_(), t.to_distance.clone().requires_grad_()
    out, ends = plain(pos), (t.first, t.second, t.layout())
    return [
        Case("distances", (t.pos, *ends), lambda: plain(t.pos)),
        Case(
            "distances_backward",
            (t.to_distance, t.pos, *ends),
            _gradients(out, [pos], t.to_distance),
        ),
        Case(
            "distances_double_backward",
            (t.to_pos, t.to_distance, t.pos, *ends, True),
            _twice(out, [pos], g, [t.to_pos], [g, pos]),
        ),
    ]


def _sums(t: Operands) -> list[Case]:
    molecule = torch.repeat_interleave(t.rowptr.diff().long(), output_size=t.atoms)
    zeros = t.y.new_zeros(t.molecules, t.channels)
    sums = t.y[: t.molecules].contiguous()

    return [
        Case(
            "segment_sum",
            (t.y, t.rowptr, []),
            lambda: zeros.index_add(0, molecule, t.y),
        ),
        Case(
            "segment_expand",
            (sums, t.rowptr, [], t.atoms),
            lambda: sums.index_select(0, molecule),
        ),
        Case("interval_order", (t.distance, START, SPACING, INTERVALS), t.sort),
    ]


def measure(rows: Rows, settings: Settings) -> None:
    """Compare and time each operation in both types, own and plain."""
    molecules, channels = settings.size(512, 2), settings.size(128, 16)
    for dtype in (torch.float32, torch.float64):
        found = []
        with rows.row(f"operations, {_name(dtype)}", "operands", only_failure=True):
            found = cases(Operands(settings.device, dtype, molecules, channels))
        for case in found:
            _measure_case(rows, settings, case, dtype)


def _measure_case(rows: Rows, settings: Settings, case: Case, dtype: torch.dtype) -> None:
    expected: list[Tensor] = []
    with rows.row(f"{case.name}, {_name(dtype)}", "plain PyTorch") as row:
        row.preparation = prepare(case.plain, settings.device)
        expected = _listed(case.plain())
        row.ms = milliseconds(case.plain, settings)
        row.megabytes = peak_megabytes(case.plain, settings.device)
    with rows.row(f"{case.name}, {_name(dtype)}", "ours") as row:
        row.preparation = prepare(case.own, settings.device)
        found = _listed(case.own())
        row.repeats = same_bits(found, _listed(case.own()))
        if expected:
            row.difference, row.bound = difference(found, expected), BOUNDS[dtype]
        row.ms = milliseconds(case.own, settings)
        row.megabytes = peak_megabytes(case.own, settings.device)


def _listed(result: Result) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [*result]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
