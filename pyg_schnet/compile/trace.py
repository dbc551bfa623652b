"""From a potential to its programs: one trace of energy, forces and gradients of weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.stateless import _reparametrize_module  # functional_call, but for any method

from pyg_schnet.compile.assembly import ATOMS, CONSTANT, GAUSSIANS, KNOTS, MOLECULES, PAIRS, SITES
from pyg_schnet.compile.inputs import Inputs
from pyg_schnet.compile.machine import Machine
from pyg_schnet.compile.operation import EXTENTS, Unsupported
from pyg_schnet.compile.python_program import program, simplify
from pyg_schnet.compile.tape import External, Tape
from pyg_schnet.compile.weights import Weights
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import pair_distances, positions_only, weights_only
from pyg_schnet.nn.filter_table import FilterTable
from pyg_schnet.nn.spline import Knots

if TYPE_CHECKING:
    from pyg_schnet.potentials.potential import Potential

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Programs:
    """The programs of one kind of call.

    Attributes:
        forward: Takes weights, tables and inputs; returns energy, forces if asked for, what backward needs.
        backward: Takes what forward left and the gradients of its results; returns those of the weights.
        outputs: Number of forward's results: two with forces, one without.
        machine: Does the same as both, in C, where it can.
    """

    forward: Callable
    backward: Callable | None
    outputs: int
    machine: Machine | None = None


def splines_of(model: nn.Module) -> list[FilterTable]:
    """Give the splines of a model's convolutions, in order."""
    return [interaction.filter_table for interaction in model.interactions]  # pyright: ignore


def trace(potential: Potential, like: Inputs, forces: bool, trained: bool) -> Programs:
    """Trace a potential.

    Args:
        potential: Whose weights, and everything else that is a tensor, become arguments.
        like: Types and devices of the inputs; their sizes may be any in the programs.
        forces: Whether forces are computed.
        trained: Whether gradients of the weights will be asked for; else the filters' tables are arguments.

    Returns:
        Programs with the arguments ``(*weights, *tables, *inputs)``; no tables where ``trained``.
    """
    found = Weights(potential)
    names, weights, parameters = found.names, found.tensors(), found.parameters
    splines = splines_of(potential.model)
    config: Any = potential.model.config
    example = _example(like, weights, config.num_gaussians)
    atoms, sites, pairs, molecules, (knots, gaussians) = (
        *(len(example[0]), len(example[1]), example[3].size(1)),
        *(example[4], example[6].shape),
    )
    tables = [] if trained else [weights[0].new_empty(knots - 8, config.num_filters) for _ in splines]
    outputs, periodic = 2 if forces else 1, like.graph.sites is not None
    cotangents = (
        [torch.empty(molecules, dtype=torch.float64, device=like.graph.pos.device)] if trained else []
    )
    cotangents += [torch.empty_like(example[1])] if trained and forces else []

    def evaluate(own, given, example, cotangents):
        own = [tensor.detach() for tensor in own]
        if trained:
            own = [t.requires_grad_() if k < parameters else t for k, t in enumerate(own)]
        z, pos, batch, pairs, molecules, start, features, *more = example
        places, envelope = (more[-2], more[:-2]) if periodic else (pairs, more)
        pos = pos.detach().requires_grad_(forces)
        distance = pair_distances(pos, places).to(features.dtype)
        graph = PairGraph(z, pos, batch, molecules, pairs, pos)
        knots = Knots(features, envelope[0] if envelope else None, distance, start, like.knots.spacing)
        with _reparametrize_module(potential, dict(zip(names, own, strict=True))), _given(splines, given):
            relative = potential.model.predict(graph, pairs, knots)  # pyright: ignore
            energy = potential.scaled(relative, z, batch, molecules)
        results = [energy]
        if forces:
            with positions_only():
                ones = torch.ones_like(energy)
                (gradient,) = torch.autograd.grad(energy, pos, ones, create_graph=trained)
            results.append(-gradient)
        if not trained:
            return [result.detach() for result in results]
        with weights_only():
            gradients = torch.autograd.grad(results, own[:parameters], cotangents, allow_unused=True)
        return [*results, *gradients]

    arguments = ([weight.detach() for weight in weights], tables, example, cotangents)
    with torch.enable_grad():
        graph = make_fx(evaluate, tracing_mode="symbolic")(*arguments).graph
    simplify(graph)
    rows = SITES if periodic else ATOMS
    along = [CONSTANT] * (len(weights) + len(tables)) + [ATOMS, rows, ATOMS] + [CONSTANT] * (len(example) - 3)
    along += [MOLECULES, rows][: len(cotangents)]
    sizes = {
        sites: (rows, 0),
        atoms: (ATOMS, 0),
        pairs: (PAIRS, 0),
        knots: (KNOTS, 0),
        knots - 8: (KNOTS, -8),
    }
    sizes |= {molecules: (MOLECULES, 0), gaussians: (GAUSSIANS, 0)}
    return _split(list(graph.nodes), outputs, along, len(cotangents), sizes, periodic)


def _example(like: Inputs, weights: Sequence[Tensor], gaussians: int) -> list[Any]:
    """Make inputs whose extents differ from each other and from those of weights; their values do not matter.

    Equal extents would be taken for the same number in all calls.
    """
    taken = {0, 1, 2, 3, *(extent for weight in weights for extent in weight.shape)}  # 2 and 3: pairs, space
    width = next((n for n in range(gaussians - 1, 1, -1) if n not in taken), None)
    if width is None:
        raise ValueError(f"{gaussians} Gaussians are too few to be told from other numbers")
    taken.add(width)

    def unused(number: int) -> int:
        while {number, number - 8} & taken:
            number += 1
        taken.update((number, number - 8))
        return number

    atoms, pairs, knots, molecules = map(unused, (1987, 4999, 1013, 331))
    sites = atoms if like.graph.sites is None else unused(2999)
    sizes = [(atoms,), (sites, 3), (atoms,), (2, pairs)]
    tensors = like.values()[:4]
    example = [tensor.new_zeros(size) for tensor, size in zip(tensors, sizes, strict=True)]
    features, envelope = like.knots.features, like.knots.envelope
    example += [molecules, 7, features.new_zeros(knots, width)]
    example += [] if envelope is None else [envelope.new_zeros(knots)]
    if like.graph.sites is not None:
        example += [like.graph.pairs.new_zeros(2, pairs), like.graph.pairs.new_zeros(sites)]
    return example


class _given:
    """Hand tables to splines while a model is traced."""

    def __init__(self, splines: Sequence[FilterTable], tables: Sequence[Tensor]):
        self.splines, self.tables = splines, tables

    def __enter__(self) -> None:
        for spline, table in zip(self.splines, self.tables or [None] * len(self.splines), strict=True):
            spline.given = table

    def __exit__(self, *exception: object) -> None:
        for spline in self.splines:
            spline.given = None


def _split(
    nodes: list[Node],
    outputs: int,
    along: list[int],
    cotangents: int,
    sizes: dict[int, tuple[int, int]],
    periodic: bool,
) -> Programs:
    """Divide a graph into what comes before the gradients of its results are known, and what comes after."""
    arguments = [node for node in nodes if node.op == "placeholder"]
    results = list(nodes[-1].args[0])  # pyright: ignore
    body = [node for node in nodes if node.op == "call_function"]
    inputs, tangents = arguments[: len(arguments) - cotangents], arguments[len(arguments) - cotangents :]
    after = set(tangents)
    for node in body:
        if any(used in after for used in node.all_input_nodes):
            after.add(node)
    forwards = _needed([node for node in body if node not in after], results[:outputs])
    computed = {node for node in forwards if node.target not in EXTENTS}
    backwards = _needed([node for node in body if node not in computed], results[outputs:])
    known = {*inputs, *computed}
    saved = list(dict.fromkeys(used for node in backwards for used in node.all_input_nodes if used in known))
    places = (inputs[-2], inputs[-1]) if periodic else None
    machine = _machine(arguments, along, forwards, backwards, results, outputs, sizes, places)
    if not tangents:
        return Programs(program(forwards, inputs, results), None, outputs, machine)
    return Programs(
        program(forwards, inputs, [*results[:outputs], *saved]),
        program(backwards, [*saved, *tangents], results[outputs:]),
        outputs,
        machine,
    )


def _machine(
    arguments: list[Node],
    along: list[int],
    forwards: list[Node],
    backwards: list[Node],
    results: list[Node | None],
    outputs: int,
    sizes: dict[int, tuple[int, int]],
    places: tuple[Node, Node] | None,
) -> Machine | None:
    """Record a tape, if its machine knows all operations."""
    tensors = []
    for node, own in zip(arguments, along, strict=True):
        value = node.meta["val"]
        if isinstance(value, Tensor):
            bytes_of_row = value.element_size() * (value.size(1) if value.dim() > 1 else 1) if own else 0
            tensors.append((node, External(own, int(bytes_of_row))))
    first = along.index(ATOMS)  # z, then pos, batch and pairs
    real = arguments[0].meta["val"].dtype
    try:
        tape = Tape(
            tensors,
            forwards,
            backwards,
            list(zip(results[:outputs], (MOLECULES, along[first + 1]), strict=False)),  # pyright: ignore
            results[outputs:],
            sizes,
            arguments[first + 2],
            arguments[first + 3],
            places,
            real,
        )
        return Machine(tape, real)
    except Unsupported as reason:
        _log.info("a program runs in Python: %s", reason)
        return None


def _needed(nodes: list[Node], results: Sequence[Node | None]) -> list[Node]:
    """Keep the nodes on which results depend."""
    wanted = {node for node in results if node is not None}
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    return [node for node in nodes if node in wanted]
