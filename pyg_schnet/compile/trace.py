"""One trace of energy, forces and gradients of weights: a graph of operations for any batch size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy
import torch
from torch import Tensor, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.nn.utils.stateless import _reparametrize_module  # functional_call, but for any method

from pyg_schnet.compile.inputs import Inputs
from pyg_schnet.compile.weights import Weights, result_names
from pyg_schnet.graph.csr import Csr
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import (
    interval_order,
    pair_distances,
    without_position_gradients,
    without_weight_gradients,
)
from pyg_schnet.nn.filter_table import FilterTable
from pyg_schnet.nn.spline import Knots, within_knots

if TYPE_CHECKING:
    from pyg_schnet.nn.schnet import SchNet
    from pyg_schnet.potentials.potential import Potential

# Extents that differ from call to call, with examples. Only branches on sizes read these.
_SIZES = {"atoms": 21, "sites": 34, "pairs": 55, "molecules": 5, "knots": 89, "gaussians": 13, "edges": 144}
_OUTER_KNOTS = 8  # which have no coefficients
_ROWS = Csr._fields


class Unsupported(NotImplementedError):
    """A potential or one of its operations cannot be compiled."""


@dataclass(frozen=True)
class Trace:
    """A traced potential.

    Attributes:
        graph: The operations.
        weights: Placeholders of parameters, buffers and, for evaluation, tables of filters.
        inputs: Placeholders of a batch's tensors and numbers, by name, in the order of ``Inputs.values()``.
        cotangents: Placeholders of the gradients of the results, where weights are trained.
        rows: What the rows of each result stand for, ``"molecules"``, ``"atoms"`` or, of forces, ``"sites"``.
        sizes: Names of the symbols in the shapes of the graph's values.
    """

    graph: Graph
    weights: list[Node]
    inputs: dict[str, Node]
    cotangents: list[Node]
    rows: list[str]
    sizes: dict[sympy.Symbol, sympy.Symbol]

    @property
    def results(self) -> list[Node]:
        """Energy and, if wanted, forces; then properties."""
        return self._output[: len(self.rows)]  # pyright: ignore

    @property
    def gradients(self) -> list[Node | None]:
        """Gradients of the weights, ``None`` for one on which the results do not depend."""
        return self._output[len(self.rows) :]

    @property
    def _output(self) -> list[Node | None]:
        return list(next(iter(reversed(self.graph.nodes))).args[0])  # pyright: ignore

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network."""
        return self.weights[0].meta["val"].dtype


class _Sizes:
    """Symbols for the extents of a batch, and tensors of such shapes without memory."""

    def __init__(self):
        self._environment = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._environment)
        self.symbols: dict[sympy.Symbol, sympy.Symbol] = {}

    def symbol(self, name: str, example: int) -> Any:
        source = ConstantSource(name)
        symbol = self._environment.create_symbol(
            example, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
        )
        self.symbols[symbol] = sympy.Symbol(name)  # pyright: ignore
        return self._environment.create_symintnode(symbol, hint=example, source=source)

    def tensor(self, like: Tensor, *shape: Any) -> Tensor:
        with self.mode:
            return torch.empty(shape or like.shape, dtype=like.dtype, device=like.device)

    def check_generality(self) -> None:
        """Raise if the trace holds for some extents only."""
        check_generality(self._environment, self.symbols)


def check_generality(environment: ShapeEnv, names: Mapping[sympy.Symbol, object]) -> None:
    """Raise if operations that were traced with symbolic sizes hold for some sizes only."""
    if fixed := environment.replacements:
        words = ", ".join(str(names.get(symbol, symbol)) for symbol in fixed)
        raise Unsupported(f"its operations depend on the number of {words}")


def splines_of(model: nn.Module) -> list[FilterTable]:
    """Return the splines of a model's convolutions, in order."""
    return [interaction.filter_table for interaction in model.interactions]  # pyright: ignore


def trace(potential: Potential, like: Inputs, forces: bool, trained: bool) -> Trace:
    """Trace a potential.

    Args:
        potential: A potential, whose weights and other tensors become arguments.
        like: A batch, of which only types and devices matter.
        forces: Whether to compute forces.
        trained: Whether to compute gradients of the weights; otherwise the filters' tables are arguments.

    Raises:
        Unsupported: If the operations depend on the batch's extents.
    """
    found, config = Weights(potential), cast("SchNet", potential.model).config
    splines, sizes = splines_of(potential.model), _Sizes()
    weights = [sizes.tensor(weight) for weight in found.tensors()]
    inputs = _example(like, sizes, config.num_gaussians)
    knots, pos = inputs["knot_features"].size(0), inputs["pos"]
    tables = []
    if not trained:
        shape = (knots - _OUTER_KNOTS, config.num_filters)
        tables = [sizes.tensor(weights[0], *shape) for _ in splines]
    rows = ["molecules"] * potential.has_energy + ["sites"] * forces
    rows += ["atoms" if target.is_atomic else "molecules" for target in potential.properties]
    extents = {"molecules": inputs["molecules"], "atoms": inputs["z"].size(0)}
    double = pos.new_empty(0).double()
    cotangents = [sizes.tensor(pos) if row == "sites" else sizes.tensor(double, extents[row]) for row in rows]
    cotangents = cotangents if trained else []

    def evaluate(weights, tables, inputs, cotangents):
        weights = [tensor.detach() for tensor in weights]
        if trained:
            weights = [w.requires_grad_() if k < found.parameters else w for k, w in enumerate(weights)]
        batch = dict(zip(names, inputs, strict=True))
        pos, pairs = batch["pos"].detach().requires_grad_(forces), batch["pair_index"]
        features, envelope = batch["knot_features"], batch.get("envelope")
        rows = tuple(batch[name] for name in _ROWS if name in batch)
        site_rows = tuple(batch[f"site_{name}"] for name in _ROWS if f"site_{name}" in batch)
        site_pairs = batch.get("site_pairs", pairs)
        distance = pair_distances(pos, site_pairs, site_rows or rows).to(features.dtype)
        z, molecules = batch["z"], batch["molecules"]
        start, spacing = batch["start"], like.knots.spacing
        graph = PairGraph(z, pos, batch["batch"], molecules, pairs, pos)
        knots = Knots(features, envelope, distance, start, spacing, cutoff=like.knots.cutoff)
        distance = within_knots(distance, knots)
        if rows and trained:
            rows += interval_order(distance, start, spacing, knots.intervals)
        knots = knots._replace(distance=distance, layout=rows)
        named = dict(zip(found.names, weights, strict=True))
        with _reparametrize_module(potential, named), _given_tables(splines, tables):
            features = potential.model.represent(graph, pairs, knots)  # pyright: ignore
            results = list(potential.read_out(features, graph).values())
        if forces:
            energy = results[0]
            with without_weight_gradients():
                ones = torch.ones_like(energy)
                (gradient,) = torch.autograd.grad(energy, pos, ones, create_graph=trained)
            results.insert(1, -gradient)
        if not trained:
            return [result.detach() for result in results]
        with without_position_gradients():
            parameters = weights[: found.parameters]
            gradients = torch.autograd.grad(results, parameters, cotangents, allow_unused=True)
        return [*results, *gradients]

    names, arguments = list(inputs), (weights, tables, list(inputs.values()), cotangents)
    one_thread = torch.autograd.grad_mode.set_multithreading_enabled(False)  # in which the modes hold
    with torch.enable_grad(), sizes.mode, one_thread:
        graph = make_fx(evaluate, tracing_mode="real")(*arguments).graph
    sizes.check_generality()
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    labels = [*found.names, *(f"table_{k}" for k in range(len(tables))), *names]
    labels += [f"{name}_gradient" for name in result_names(potential, forces)][: len(cotangents)]
    for node, label in zip(placeholders, labels, strict=True):
        node._rename(re.sub(r"\W", "_", label.removeprefix("model.")))
    held = len(weights) + len(tables)
    batch = placeholders[held : held + len(names)]
    return Trace(
        graph,
        placeholders[:held],
        dict(zip(names, batch, strict=True)),
        placeholders[held + len(names) :],
        rows,
        sizes.symbols,
    )


def _example(like: Inputs, sizes: _Sizes, gaussians: int) -> dict[str, Any]:
    """Return a batch whose extents are symbols."""
    examples = _SIZES | {"gaussians": max(1, gaussians - 1)}  # of which a call may need fewer than there are
    extent = {name: sizes.symbol(name, example) for name, example in examples.items()}
    graph, knots = like
    periodic = graph.sites is not None
    atoms, pairs = extent["atoms"], extent["pairs"]
    sites = extent["sites"] if periodic else atoms
    example = {
        "z": sizes.tensor(graph.z, atoms),
        "pos": sizes.tensor(graph.site_pos, sites, 3),
        "batch": sizes.tensor(graph.batch, atoms),
        "pair_index": sizes.tensor(graph.pairs, 2, pairs),
        "molecules": extent["molecules"],
        "start": sizes.symbol("start", 7),
        "knot_features": sizes.tensor(knots.features, extent["knots"], extent["gaussians"]),
    }
    if knots.envelope is not None:
        example["envelope"] = sizes.tensor(knots.envelope, extent["knots"])
    if periodic:
        example["site_pairs"] = sizes.tensor(graph.pairs, 2, pairs)
        example["site_atom"] = sizes.tensor(graph.pairs, sites)
    if graph.csr is not None:
        edges = extent["edges"]  # rows of padded pairs may be absent
        example |= _rows(sizes, graph.csr, atoms, edges, "")
        if periodic:
            example |= _rows(sizes, graph.csr, sites, edges, "site_")
    return example


def _rows(sizes: _Sizes, like: Csr, atoms: Any, edges: Any, prefix: str) -> dict[str, Tensor]:
    """Return compressed rows whose extents are symbols."""
    extents = Csr(atoms + 1, edges, edges)
    named = zip(_ROWS, like, extents, strict=True)
    return {f"{prefix}{name}": sizes.tensor(tensor, extent) for name, tensor, extent in named}


class _given_tables:
    """Evaluate filters from given tables within this context."""

    def __init__(self, splines: Sequence[FilterTable], tables: Sequence[Tensor]):
        self.splines, self.tables = splines, tables

    def __enter__(self) -> None:
        for spline, table in zip(self.splines, self.tables or [None] * len(self.splines), strict=True):
            spline.given = table

    def __exit__(self, *exception: object) -> None:
        for spline in self.splines:
            spline.given = None
