"""A potential's compiled form: programs by kind of call, made once, compared with eager once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.compilation.comparison import difference, telling
from pyg_schnet.compilation.inputs import Inputs, find_inputs
from pyg_schnet.compilation.machine import Bound, Machine, Run
from pyg_schnet.compilation.tracing import Programs, trace
from pyg_schnet.compilation.weights import Weights
from pyg_schnet.native import Watch
from pyg_schnet.nn.spline import Knots
from pyg_schnet.ordering import in_old_order

if TYPE_CHECKING:
    from pyg_schnet.potential import Potential

_MAKING = threading.RLock()  # torch traces one program at a time
_log = logging.getLogger(__name__)


class CompiledPotential:
    """Runs a potential by programs; each is made at its first use and compared with eager there.

    The programs hold no weights: copies of a potential share them.

    Args:
        constant: Whether weights that do not require gradients, and modules, are promised to stay as they
            are; they are not looked at again then.

    Attributes:
        seconds: Time that went into making and comparing programs.
        failure: Why some kind of call runs eagerly after all, or ``None``.
    """

    def __init__(self, constant: bool = False):
        self.constant = constant
        self.seconds = 0.0
        self.failure: str | None = None
        self._programs: dict[tuple, Programs | None] = {}  # None: such calls run eagerly
        self._forget()

    def _forget(self) -> None:
        self._weights: Weights | None = None
        self._frozen: tuple | None = None
        self._watch = Watch()
        self._places: dict[Machine, Bound] = {}

    def __len__(self) -> int:
        """Count the programs made so far."""
        return sum(programs is not None for programs in self._programs.values())

    def __deepcopy__(self, memo: dict) -> CompiledPotential:
        copy = CompiledPotential()
        copy._programs, copy.failure = self._programs, self.failure
        return copy

    def __getstate__(self) -> dict:
        return {}  # programs are made anew where they are needed

    def __setstate__(self, state: dict) -> None:
        self.__init__()

    def __call__(
        self,
        potential: Potential,
        data: Data,
        forces: bool,
        stress: bool,
        eager: Callable[[Potential, Data], dict[str, Tensor]],
    ) -> dict[str, Tensor] | None:
        """Compute energy and, if wanted, forces and stress.

        Args:
            potential: Whose weights count.
            data: The batch.
            forces: Whether forces are wanted.
            stress: Whether stresses are wanted.
            eager: Computes the same without programs, for a potential of this kind and such a batch.

        Returns:
            ``None`` where this kind of call has no program, or the input is wrong.
        """
        inputs = find_inputs(potential, data, forces, stress)
        if inputs is None:
            return None
        forces = forces or stress  # which follows from them
        trained = potential.training and torch.is_grad_enabled()
        weights = self._weights  # read once: other threads may replace it
        if weights is None:
            self._weights = Weights(potential)
        elif (trained or not self.constant) and not weights.are_of(potential):
            self._programs = {}  # its modules, or types and shapes of weights, are others now
            self._forget()
            self._weights = Weights(potential)
        knots = inputs.knots
        kinds = (forces, trained, knots.envelope is not None, knots.spacing, inputs.images is not None)
        key = (*kinds, inputs.pos.dtype, knots.features.dtype, inputs.pos.device)
        if key not in self._programs:
            with _MAKING:
                if key not in self._programs:
                    self._make(key, potential, inputs, forces, trained, eager)
        programs = self._programs.get(key)
        if programs is None:
            out = eager(potential, inputs.data)
        else:
            out = inputs.finish(self._run(programs, potential, inputs))
        return in_old_order(out, inputs.order)

    def _make(
        self,
        key: tuple,
        potential: Potential,
        inputs: Inputs,
        forces: bool,
        trained: bool,
        eager: Callable[[Potential, Data], dict[str, Tensor]],
    ) -> None:
        """Trace a copy, and compare with eager; if that fails, such calls run eagerly from now on."""
        began = time.perf_counter()
        self._programs[key] = None
        if trained and not any(parameter.requires_grad for parameter in potential.parameters()):
            return None  # nothing to differentiate by
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in potential.modules()):
            return self._refuse("modules have hooks, which a program would not call")
        own = telling(potential)
        try:
            programs = trace(own, inputs, forces, trained)
        except Exception as error:
            return self._refuse(f"it cannot be traced: {str(error).strip().split(chr(10))[0]}")
        expected, raw = eager(own, inputs.data), CompiledPotential()._run(programs, own, inputs)
        found = inputs.finish(dict(raw))
        if "stress" in expected:  # molecules beside crystals have none
            known = ~expected["stress"].isnan()
            expected, found = (
                {**results, "stress": results["stress"][known]} for results in (expected, found)
            )
        if not all(bool(value.isfinite().all()) for value in expected.values()):
            del self._programs[key]  # nothing can be told of such weights
            return None
        pull = float(raw["forces"].detach().abs().max()) if "forces" in raw else 0.0
        other = difference(own, inputs, expected, found, trained, pull)
        self.seconds += time.perf_counter() - began
        if other is not None:
            return self._refuse(f"the compiled {other} from eager")
        self._programs[key] = programs
        return None

    def _refuse(self, reason: str) -> None:
        self.failure = f"{reason}; running eagerly"
        _log.warning("%s", self.failure)

    def _run(self, programs: Programs, potential: Potential, inputs: Inputs) -> dict[str, Tensor]:
        own = self._weights
        if own is None:
            own = self._weights = Weights(potential)
        weights = own.tensors()
        if programs.backward is not None:
            results = _Trained.apply(programs, inputs, *weights)
        else:
            frozen = self._frozen_weights(potential, weights, inputs.knots)
            if programs.machine is None:
                with torch.no_grad():
                    results = programs.forward(*frozen, *inputs.values())
            else:
                results, run = _run_machine(programs, self._bound(programs.machine, frozen), inputs)
                programs.machine.release(run)
        return dict(zip(("energy", "forces"), results, strict=False))  # pyright: ignore

    def _frozen_weights(self, potential: Potential, weights: list[Tensor], knots: Knots) -> list[Tensor]:
        """Give weights and the filters' tables, which are computed again only where something changed."""
        marks: list[Any] = [*map(Tensor.data_ptr, weights)]
        if not self.constant or any(weight.requires_grad for weight in weights):
            marks.append(self._watch.look(weights))
        kept = self._frozen
        if kept is None or kept[:2] != (id(knots.features), marks):
            model: Any = potential.model
            convolutions = [interaction.cfconv for interaction in model.interactions]
            with torch.inference_mode(False), torch.no_grad():
                tables = [c.spline.coefficients(c.filter_network, knots) for c in convolutions]
                frozen = [tensor.contiguous() for tensor in (*weights, *tables)]
            alive = ([w.detach() for w in weights], knots.features)  # their addresses are not another's
            kept = self._frozen = (id(knots.features), marks, frozen, alive)
        return kept[2]

    def _bound(self, machine: Machine, frozen: list[Tensor]) -> Bound:
        """Give the addresses of frozen weights for a machine, taken down when the weights were frozen."""
        kept = self._places.get(machine)
        if kept is None or kept.weights is not frozen:
            kept = self._places[machine] = machine.bind(frozen)
        return kept


def _run_machine(programs: Programs, bound: Bound, inputs: Inputs) -> tuple[list[Tensor], Run]:
    """Run forward in C."""
    assert programs.machine is not None
    results = [torch.empty(inputs.molecules, dtype=torch.float64, device="cpu")]
    if programs.outputs > 1:
        results.append(torch.empty_like(inputs.pos))
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
