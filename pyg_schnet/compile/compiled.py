"""A potential's compiled form: programs by kind of call, made once, compared with eager once."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Hashable, MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_schnet.compile.comparison import difference, telling
from pyg_schnet.compile.inputs import Inputs, find_inputs
from pyg_schnet.compile.machine import Bound, Machine, Run
from pyg_schnet.compile.trace import Programs, trace
from pyg_schnet.compile.weights import Weights
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import Watch, has_kernels, positions_only, why_not
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.knots import KnotFeatures
from pyg_schnet.nn.snapshot import versions_of
from pyg_schnet.nn.spline import Knots

if TYPE_CHECKING:
    from pyg_schnet.potentials.potential import Potential

_MAKING = threading.RLock()  # torch traces one program at a time
_SHARING = threading.Lock()
_log = logging.getLogger(__name__)


class ProgramSet(dict[tuple, Programs]):
    """Programs by kind of call, of all potentials that compute the same function of their tensors."""


# Kept as long as one of these potentials is in use.
SHARED: MutableMapping[Hashable, ProgramSet] = weakref.WeakValueDictionary()


class _State:
    """What was found for a potential, valid while its structure and the types of its tensors stay."""

    def __init__(self, potential: Potential):
        self.weights = Weights(potential)
        self.programs = ProgramSet()
        self.marks: list[Any] | None = None  # of constant tensors, whose types were looked at
        self.features: KnotFeatures | None = None  # for these tensors
        self.watch = Watch()
        self.frozen: tuple[Tensor, list[Any], list[Tensor], list[Tensor]] | None = None
        self.places: dict[Machine, Bound] = {}


class CompiledPotential:
    """Runs a potential by programs; each is made at its first use and compared with eager there.

    The programs hold no weights: potentials of the same structure, copies first of all, share them.

    Args:
        constant: Whether weights that do not require gradients are promised to stay as they are. They are not
            read again then, unless they are replaced or autograd counts a change, as by ``load_state_dict``.

    Attributes:
        seconds: Time that went into making and comparing programs.
        failure: Why some kind of call runs eagerly after all, or ``None``.
    """

    def __init__(self, constant: bool = False):
        self.constant = constant
        self.seconds = 0.0
        self.failure: str | None = None
        self._programs = ProgramSet()
        self._refused: set[tuple] = set()  # kinds of calls that run eagerly, by structure
        self._state: _State | None = None

    def __len__(self) -> int:
        """Count the programs made so far."""
        return len(self._programs)

    def __deepcopy__(self, memo: dict) -> CompiledPotential:
        copy = CompiledPotential()
        copy._programs, copy._refused, copy.failure = self._programs, set(self._refused), self.failure
        return copy

    def __getstate__(self) -> dict:
        return {}  # programs are made anew where they are needed

    def __setstate__(self, state: dict) -> None:
        self.__init__()

    def why_eager(self, potential: Potential) -> str | None:
        """Return why no call of a potential has a program, in one line; ``None`` if some have."""
        if not isinstance(potential.model, SchNet):
            return f"only SchNet is compiled, not {type(potential.model).__name__}"
        weights = Weights(potential)
        like = potential.model.embedding.weight
        return weights.unknown or (None if has_kernels(like) else why_not(like))

    def __call__(
        self,
        potential: Potential,
        graph: PairGraph,
        forces: bool,
        volume: Tensor | None,
    ) -> dict[str, Tensor] | None:
        """Compute energy and, if wanted, forces and stress.

        Args:
            potential: Whose weights count.
            graph: Atoms and pairs.
            forces: Whether forces are wanted.
            volume: Volumes in Å³, ``(molecules,)``, where stresses are wanted.

        Returns:
            ``None`` where this kind of call has no program.
        """
        trained = potential.training and torch.is_grad_enabled()
        if not isinstance(potential.model, SchNet) or torch._C._are_functorch_transforms_active():
            return None
        state, weights, marks = self._look(potential, trained)
        if state.weights.unknown is not None or not has_kernels(weights[0]):
            return None
        features = state.features
        if features is None:
            with nullcontext() if potential.training else positions_only():
                features = state.features = potential.model.filter_tables.features(potential.model)
        with nullcontext() if potential.training else positions_only():
            inputs = find_inputs(potential.model, features, graph)
        if inputs is None:
            return None
        programs = self._programs_for(state, potential, inputs, forces, volume, trained)
        if programs is None:
            return None
        if trained:
            out = _trained(programs, weights, inputs)
        else:
            if not self.constant or any(weight.requires_grad for weight in weights):
                marks = [*marks, state.watch.look(weights)]
            out = _evaluated(programs, state, potential, weights, marks, inputs)
        return _finished(out, graph, forces, volume)

    def _look(self, potential: Potential, trained: bool) -> tuple[_State, list[Tensor], list[Any]]:
        """Find what is known of a potential, anew after a change; and its tensors, and marks of them."""
        state = self._state
        weights = None if state is None else state.weights.tensors_of(potential, trained or not self.constant)
        if state is None or weights is None:
            return self._look_anew(potential)
        marks = [] if trained else versions_of(weights)
        changed = trained or marks != state.marks
        if changed or not self.constant or state.weights.unknown:
            if not state.weights.fit(weights):
                return self._look_anew(potential)
            state.marks = marks
        if changed:
            state.features = None
        return state, weights, marks

    def _look_anew(self, potential: Potential) -> tuple[_State, list[Tensor], list[Any]]:
        state = _State(potential)
        if state.weights.unknown is None:
            with _SHARING:
                state.programs = SHARED.setdefault(state.weights.key, state.programs)
        self._programs, self._state = state.programs, state
        weights = state.weights.tensors()
        return state, weights, versions_of(weights)

    def _programs_for(
        self,
        state: _State,
        potential: Potential,
        inputs: Inputs,
        forces: bool,
        volume: Tensor | None,
        trained: bool,
    ) -> Programs | None:
        """Return the programs of a kind of call, made at the first one; ``None`` where it runs eagerly."""
        (graph, knots), with_forces = inputs, forces or volume is not None  # from which stresses follow
        kinds = (with_forces, trained, knots.envelope is not None, knots.spacing, graph.sites is not None)
        key = (*kinds, graph.pos.dtype, knots.features.dtype, graph.pos.device)
        programs, refused = state.programs.get(key), (state.weights.key, key)
        if programs is not None or refused in self._refused:
            return programs
        with _MAKING:
            programs = state.programs.get(key)  # by another thread
            if programs is not None or refused in self._refused:
                return programs
            began = time.perf_counter()
            programs, reason = _make(potential, inputs, forces, volume, trained)
            self.seconds += time.perf_counter() - began
            if programs is not None:
                state.programs[key] = programs
            if reason is not None:
                self._refused.add(refused)
                self.failure = f"{reason}; running eagerly"
                _log.warning("%s", self.failure)
        return programs


def _make(
    potential: Potential,
    inputs: Inputs,
    forces: bool,
    volume: Tensor | None,
    trained: bool,
) -> tuple[Programs | None, str | None]:
    """Trace a copy and compare with eager; without programs, return why such calls must run eagerly.

    Neither comes back where results are not finite, which cannot be compared, or nothing is trained.
    """
    if trained and not any(parameter.requires_grad for parameter in potential.parameters()):
        return None, None
    own = telling(potential)
    try:
        programs = trace(own, inputs, forces or volume is not None, trained)
    except Exception as error:
        return None, f"it cannot be traced: {str(error).strip().split(chr(10))[0]}"
    expected, state = own.evaluate(inputs.graph, forces, volume), _State(own)
    weights = state.weights.tensors()
    if trained:
        raw = _trained(programs, weights, inputs)
    else:
        raw = _evaluated(programs, state, own, weights, [], inputs)
    found = _finished(raw, inputs.graph, forces, volume)
    if "stress" in expected:  # molecules beside crystals have none
        known = ~expected["stress"].isnan()
        expected, found = ({**results, "stress": results["stress"][known]} for results in (expected, found))
    if not all(bool(value.isfinite().all()) for value in expected.values()):
        return None, None
    pull = float(raw["forces"].detach().abs().max()) if "forces" in raw else 0.0
    other = difference(own, inputs, expected, found, trained, pull)
    return (programs, None) if other is None else (None, f"the compiled {other} from eager")


def _trained(programs: Programs, weights: list[Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """Run programs whose results are differentiable by the weights."""
    return _named(_Trained.apply(programs, inputs, *weights))


def _evaluated(
    programs: Programs,
    state: _State,
    potential: Potential,
    weights: list[Tensor],
    marks: list[Any],
    inputs: Inputs,
) -> dict[str, Tensor]:
    """Run programs without gradients of weights."""
    frozen = _frozen_weights(state, potential, weights, marks, inputs.knots)
    if programs.machine is None:
        with torch.no_grad():
            return _named(programs.forward(*frozen, *inputs.values()))
    bound = state.places.get(programs.machine)
    if bound is None or bound.weights is not frozen:
        bound = state.places[programs.machine] = programs.machine.bind(frozen)
    results, run = _run_machine(programs, bound, inputs)
    programs.machine.release(run)
    return _named(results)


def _finished(
    out: dict[str, Tensor], graph: PairGraph, forces: bool, volume: Tensor | None
) -> dict[str, Tensor]:
    """Turn forces on sites into forces and stresses."""
    if "forces" not in out:
        return out
    return {"energy": out["energy"], **graph.forces_and_stress(out["forces"], forces, volume)}


def _named(results: Any) -> dict[str, Tensor]:
    return dict(zip(("energy", "forces"), results, strict=False))


def _frozen_weights(
    state: _State, potential: Potential, weights: list[Tensor], marks: list[Any], knots: Knots
) -> list[Tensor]:
    """Return weights and the filters' tables, which are computed again only where something changed."""
    kept = state.frozen
    if kept is None or kept[0] is not knots.features or kept[1] != marks:
        model: Any = potential.model
        with torch.inference_mode(False), torch.no_grad():
            tables = [
                block.filter_table.coefficients(block.cfconv.filter_network, knots)
                for block in model.interactions
            ]
            frozen = [tensor.contiguous() for tensor in (*weights, *tables)]
        alive = [w.detach() for w in weights]  # so that their addresses are not another's
        kept = state.frozen = (knots.features, marks, frozen, alive)
    return kept[2]


def _run_machine(programs: Programs, bound: Bound, inputs: Inputs) -> tuple[list[Tensor], Run]:
    """Run forward in C."""
    assert programs.machine is not None
    results = [torch.empty(inputs.graph.num_molecules, dtype=torch.float64, device="cpu")]
    if programs.outputs > 1:
        results.append(torch.empty_like(inputs.graph.site_pos))
    run = programs.machine.forward(bound, inputs.tensors(), results, inputs.sizes(), inputs.knots.start)
    return results, run


class _Trained(torch.autograd.Function):
    """Calls forward and backward programs as one node of autograd."""

    @staticmethod
    def forward(ctx, programs: Programs, inputs: Inputs, *weights):
        ctx.programs, ctx.weights = programs, len(weights)
        if programs.machine is not None:
            bound = programs.machine.bind([weight.contiguous() for weight in weights])
            results, ctx.run = _run_machine(programs, bound, inputs)
            # Torch tells if one of these is changed in between, unless it is a part of another tensor.
            ctx.save_for_backward(*bound.weights, *ctx.run.inputs)
            return tuple(results)
        results = programs.forward(*weights, *inputs.values())
        results, saved = results[: programs.outputs], results[programs.outputs :]
        ctx.save_for_backward(*(value for value in saved if isinstance(value, Tensor)))
        ctx.others = [(k, value) for k, value in enumerate(saved) if not isinstance(value, Tensor)]
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients):
        saved = list(ctx.saved_tensors)
        if ctx.programs.machine is not None:
            given = [gradient.contiguous() for gradient in gradients]
            by_weights = ctx.programs.machine.backward(ctx.run, given)
        else:
            for place, value in ctx.others:
                saved.insert(place, value)
            by_weights = ctx.programs.backward(*saved, *gradients)
        return None, None, *by_weights, *[None] * (ctx.weights - len(by_weights))
