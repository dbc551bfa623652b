"""Compiled potentials: a program for each kind of call, compiled once and compared with eager mode once."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Hashable, MutableMapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_schnet.compile.comparison import difference, with_nonzero_weights
from pyg_schnet.compile.inputs import Inputs, find_inputs
from pyg_schnet.compile.weights import Weights, result_names
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import (
    WeightsVersion,
    has_kernels,
    on_accelerator,
    unavailable_reason,
    without_weight_gradients,
)
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.knots import KnotFeatures
from pyg_schnet.nn.snapshot import versions_of
from pyg_schnet.nn.spline import Knots

if TYPE_CHECKING:
    from pyg_schnet.compile.program import Program
    from pyg_schnet.potentials.potential import Potential

BACKENDS = ("auto", "c", "inductor", "python")
_COMPILING = threading.RLock()  # torch traces one program at a time
_SHARING = threading.Lock()
_log = logging.getLogger(__name__)


class ProgramSet(dict[tuple, "Program"]):
    """Programs by kind of call, shared by potentials that compute the same function of their tensors."""


# A set is kept as long as one of its potentials is in use.
SHARED: MutableMapping[Hashable, ProgramSet] = weakref.WeakValueDictionary()


class _State:
    """Cached state of a potential, valid while its structure and the types of its tensors do not change."""

    def __init__(self, potential: Potential):
        self.weights = Weights(potential)
        self.programs = ProgramSet()
        self.versions: list[Any] | None = None  # of constant tensors, whose types were checked
        self.features: KnotFeatures | None = None  # for these tensors
        self.version = WeightsVersion()
        self.frozen: tuple[Tensor, list[Any], list[Tensor], list[Tensor]] | None = None
        self.bound: dict[Program, tuple[list[Tensor], Any]] = {}  # weights, and as bound to it


class CompiledPotential:
    """Evaluates a potential by programs, each compiled at its first use and compared with eager mode.

    Programs hold no weights: potentials of the same structure, such as copies, share them.

    Args:
        constant: Whether weights that do not require gradients never change. They are not read again then,
            unless they are replaced or autograd counts a change, as by ``load_state_dict``. On accelerators
            they are never read.
        backend: What runs programs: ``"c"``, ``"inductor"``, ``"python"``, or ``"auto"`` for C on CPUs and
            Inductor on accelerators.

    Raises:
        ValueError: If there is no such backend.

    Attributes:
        seconds: Time for compiling and comparing programs.
        failure: Why some kind of call runs in eager mode, or ``None``.
    """

    def __init__(self, constant: bool = False, backend: str = "auto"):
        if backend not in BACKENDS:
            raise ValueError(f"`backend` must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
        self.constant = constant
        self.backend = backend
        self.seconds = 0.0
        self.failure: str | None = None
        self._programs = ProgramSet()
        self._rejected: set[tuple] = set()  # kinds of calls in eager mode, by structure
        self._state: _State | None = None

    def __len__(self) -> int:
        """Return the number of programs compiled so far."""
        return len(self._programs)

    def __deepcopy__(self, memo: dict) -> CompiledPotential:
        copy = CompiledPotential(backend=self.backend)
        copy._programs, copy._rejected, copy.failure = self._programs, set(self._rejected), self.failure
        return copy

    def __getstate__(self) -> dict:
        return {"backend": self.backend}  # programs are compiled again where they are needed

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def why_eager(self, potential: Potential) -> str | None:
        """Return why no call of a potential is compiled, in one line; ``None`` if some are.

        Args:
            potential: The potential that this object compiles.
        """
        if not isinstance(potential.model, SchNet):
            return f"only SchNet is compiled, not {type(potential.model).__name__}"
        weights = Weights(potential)
        like = potential.model.embedding.weight
        return weights.unknown or (None if has_kernels(like) else unavailable_reason(like))

    def __call__(
        self,
        potential: Potential,
        graph: PairGraph,
        forces: bool,
        volume: Tensor | None,
    ) -> dict[str, Tensor] | None:
        """Compute energy and, if wanted, forces and stress.

        Args:
            potential: The potential.
            graph: Atoms and pairs.
            forces: Whether to compute forces.
            volume: Volumes in Å³, ``(molecules,)``; stresses are computed if given.

        Returns:
            ``None`` where this kind of call has no program.
        """
        trained = potential.training and torch.is_grad_enabled()
        if not isinstance(potential.model, SchNet) or torch._C._are_functorch_transforms_active():
            return None
        state, weights, versions = self._current_state(potential, trained)
        if state.weights.unknown is not None or not has_kernels(weights[0]):
            return None
        features = state.features
        if features is None:
            with nullcontext() if potential.training else without_weight_gradients():
                features = state.features = potential.model.filter_tables.features(potential.model)
        with nullcontext() if potential.training else without_weight_gradients():
            inputs = find_inputs(potential.model, features, graph)
        if inputs is None:
            return None
        program = self._program_for(state, potential, inputs, forces, volume, trained)
        if program is None:
            return None
        if trained:
            out = _differentiable_results(program, potential, weights, inputs)
        else:
            changes = not self.constant or any(weight.requires_grad for weight in weights)
            # From an accelerator, reading weights takes longer than a call.
            if changes and not on_accelerator(weights[0]):
                versions = [*versions, state.version.read(weights)]
            out = _frozen_results(program, state, potential, weights, versions, inputs)
        return potential.in_callers_order(_with_stress(out, graph, forces, volume), graph)

    def _current_state(self, potential: Potential, trained: bool) -> tuple[_State, list[Tensor], list[Any]]:
        """Return what is known of a potential, its tensors and their versions; update it after a change."""
        state = self._state
        weights = None if state is None else state.weights.tensors_of(potential, trained or not self.constant)
        if state is None or weights is None:
            return self._new_state(potential)
        versions = [] if trained else versions_of(weights)
        changed = trained or versions != state.versions
        if changed or not self.constant or state.weights.unknown:
            if not state.weights.fit(weights):
                return self._new_state(potential)
            state.versions = versions
        if changed:
            state.features = None
        return state, weights, versions

    def _new_state(self, potential: Potential) -> tuple[_State, list[Tensor], list[Any]]:
        state = _State(potential)
        if state.weights.unknown is None:
            with _SHARING:
                state.programs = SHARED.setdefault(state.weights.key, state.programs)
        self._programs, self._state = state.programs, state
        weights = state.weights.tensors()
        return state, weights, versions_of(weights)

    def _program_for(
        self,
        state: _State,
        potential: Potential,
        inputs: Inputs,
        forces: bool,
        volume: Tensor | None,
        trained: bool,
    ) -> Program | None:
        """Return the program of a kind of call, compiled at the first one; ``None`` for eager mode."""
        (graph, knots), with_forces = inputs, forces or volume is not None  # from which stresses follow
        kinds = (with_forces, trained, knots.envelope is not None, knots.spacing, graph.sites is not None)
        backend = self.backend
        if backend == "auto":
            backend = "inductor" if on_accelerator(graph.pos) else "c"
        key = (
            *kinds,
            graph.csr is not None,
            knots.cutoff,
            graph.pos.dtype,
            knots.features.dtype,
            graph.pos.device,
            backend,
        )
        program, rejected = state.programs.get(key), (state.weights.key, key)
        if program is not None or rejected in self._rejected:
            return program
        with _COMPILING:
            program = state.programs.get(key)  # by another thread
            if program is not None or rejected in self._rejected:
                return program
            start = time.perf_counter()
            program, reason = _compile(potential, inputs, forces, volume, trained, backend)
            self.seconds += time.perf_counter() - start
            if program is not None:
                state.programs[key] = program
            if reason is not None:
                self._rejected.add(rejected)
                self.failure = f"{reason}; running eagerly"
                _log.warning("%s", self.failure)
        return program


def _compile(
    potential: Potential,
    inputs: Inputs,
    forces: bool,
    volume: Tensor | None,
    trained: bool,
    backend: str,
) -> tuple[Program | None, str | None]:
    """Compile a copy and compare it with eager mode; return the program, or why there is none.

    Return neither if results are not finite and cannot be compared, or if nothing is trained.
    """
    if trained and not any(parameter.requires_grad for parameter in potential.parameters()):
        return None, None
    from pyg_schnet.compile.program import compile_program  # a second of imports

    own = with_nonzero_weights(potential)
    try:
        program = compile_program(own, inputs, forces or volume is not None, trained, backend)
    except RuntimeError as error:
        return None, f"it cannot be traced: {str(error).strip().split(chr(10))[0]}"
    expected, state = own.evaluate(inputs.graph, forces, volume), _State(own)
    weights = state.weights.tensors()
    if trained:
        raw = _differentiable_results(program, own, weights, inputs)
    else:
        raw = _frozen_results(program, state, own, weights, [], inputs)
    found = own.in_callers_order(_with_stress(dict(raw), inputs.graph, forces, volume), inputs.graph)
    if "stress" in expected:  # molecules beside crystals have none
        known = ~expected["stress"].isnan()
        expected, found = ({**results, "stress": results["stress"][known]} for results in (expected, found))
    if not all(bool(value.isfinite().all()) for value in expected.values()):
        return None, None
    largest_force = float(raw["forces"].detach().abs().max()) if "forces" in raw else 0.0
    other = difference(own, inputs, expected, found, trained, largest_force)
    return (program, None) if other is None else (None, f"the compiled {other} from eager")


def _differentiable_results(
    program: Program, potential: Potential, weights: list[Tensor], inputs: Inputs
) -> dict[str, Tensor]:
    """Compute results that are differentiable by the weights."""
    return _named(potential, _ProgramFunction.apply(program, inputs, *weights))


def _frozen_results(
    program: Program,
    state: _State,
    potential: Potential,
    weights: list[Tensor],
    versions: list[Any],
    inputs: Inputs,
) -> dict[str, Tensor]:
    """Compute results without gradients of weights."""
    frozen = _frozen_weights(state, potential, weights, versions, inputs.knots)
    kept, bound = state.bound.get(program, (None, None))
    if kept is not frozen:
        bound = program.bind(frozen)
        state.bound[program] = frozen, bound
    return _named(potential, program.forward(bound, inputs, keep=False)[0])


def _with_stress(
    out: dict[str, Tensor], graph: PairGraph, forces: bool, volume: Tensor | None
) -> dict[str, Tensor]:
    """Compute forces and stresses from forces on sites."""
    if "forces" not in out:
        return out
    site_forces = out.pop("forces")
    return {**out, **graph.forces_and_stress(site_forces, forces, volume)}


def _named(potential: Potential, results: Sequence[Tensor]) -> dict[str, Tensor]:
    has_forces = len(results) > potential.has_energy + len(potential.properties)
    return dict(zip(result_names(potential, has_forces), results, strict=True))


def _frozen_weights(
    state: _State, potential: Potential, weights: list[Tensor], versions: list[Any], knots: Knots
) -> list[Tensor]:
    """Return weights and tables of filters, which are computed again only after a change."""
    kept = state.frozen
    if kept is None or kept[0] is not knots.features or kept[1] != versions:
        model: Any = potential.model
        with torch.inference_mode(False), torch.no_grad():
            tables = [
                block.filter_table.coefficients(block.cfconv.filter_network, knots)
                for block in model.interactions
            ]
            frozen = [tensor.contiguous() for tensor in (*weights, *tables)]
        alive = [w.detach() for w in weights]  # so that no other tensor gets their addresses
        kept = state.frozen = (knots.features, versions, frozen, alive)
    return kept[2]


class _ProgramFunction(torch.autograd.Function):
    """Forward and backward of a program, as one node of autograd."""

    @staticmethod
    def forward(ctx, program: Program, inputs: Inputs, *weights):
        ctx.program = program
        results, saved, ctx.state = program.forward(program.bind(list(weights)), inputs, keep=True)
        ctx.save_for_backward(*saved)
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients):
        by_weights = ctx.program.backward(ctx.state, list(ctx.saved_tensors), gradients)
        missing = len(ctx.needs_input_grad) - 2 - len(by_weights)
        return None, None, *by_weights, *[None] * missing
