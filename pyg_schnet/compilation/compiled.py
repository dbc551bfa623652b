"""A potential's compiled form: programs by kind of call, made once, compared with eager once."""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_schnet.compilation.machine import Bound, Machine, Run
from pyg_schnet.compilation.tracing import Inputs, Programs, Weights, trace
from pyg_schnet.native import fingerprint
from pyg_schnet.nn.spline import Knots

if TYPE_CHECKING:
    from pyg_schnet.potential import Potential

# Largest difference from eager, in units of the largest value. Both are the same sums of float32 in another
# order: 1e-5 was measured for gradients of weights, with forces in the loss; mistakes give 0.1 or more.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}

_version = operator.attrgetter("_version")
_log = logging.getLogger(__name__)


class CompiledPotential:
    """Runs a potential by programs; each is made at its first use and compared with eager there.

    The programs hold no weights: copies of a potential share them.

    Attributes:
        seconds: Time that went into making and comparing programs.
        failure: Why some kind of call runs eagerly after all, or ``None``.
    """

    def __init__(self):
        self.seconds = 0.0
        self.failure: str | None = None
        self._programs: dict[tuple, Programs | None] = {}  # None: such calls run eagerly
        self._weights: Weights | None = None
        self._frozen: tuple | None = None
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
        self, potential: Potential, inputs: Inputs, forces: bool, eager: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Compute energy and, if wanted, forces.

        Args:
            potential: Whose weights count.
            inputs: The batch.
            forces: Whether forces are wanted.
            eager: Computes the same without programs.
        """
        knots = inputs.knots
        trained = potential.training and torch.is_grad_enabled()
        with_envelope = knots.envelope is not None
        kinds = (forces, trained, with_envelope, knots.spacing)
        key = (*kinds, inputs.pos.dtype, knots.features.dtype, inputs.pos.device)
        if key not in self._programs:
            self._programs[key] = self._make(potential, inputs, forces, trained, eager)
        programs = self._programs[key]
        return eager() if programs is None else self._run(programs, potential, inputs)

    def _make(
        self,
        potential: Potential,
        inputs: Inputs,
        forces: bool,
        trained: bool,
        eager: Callable[[], dict[str, Tensor]],
    ) -> Programs | None:
        """Trace, and compare with eager; ``None`` if that fails, and such calls run eagerly."""
        began = time.perf_counter()
        if trained and not any(parameter.requires_grad for parameter in potential.parameters()):
            return None  # nothing to differentiate by
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in potential.modules()):
            return self._refuse("modules have hooks, which a program would not call")
        try:
            programs = trace(potential, inputs, forces, trained)
        except Exception as error:
            return self._refuse(f"it cannot be traced: {str(error).strip().split(chr(10))[0]}")
        expected, found = eager(), self._run(programs, potential, inputs)
        difference = _difference(potential, expected, found, trained)
        self.seconds += time.perf_counter() - began
        return programs if difference is None else self._refuse(f"the compiled {difference} from eager")

    def _refuse(self, reason: str) -> None:
        self.failure = f"{reason}; running eagerly"
        _log.warning("%s", self.failure)

    def _run(self, programs: Programs, potential: Potential, inputs: Inputs) -> dict[str, Tensor]:
        if self._weights is None:
            self._weights = Weights(potential)
        weights = self._weights.tensors()
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
        try:
            versions = [*map(_version, weights)]
        except RuntimeError:  # made in inference mode, where changes are not counted
            versions = []
        if any(weight.requires_grad for weight in weights):  # and so may change through `.data`
            versions.append(fingerprint(weights))
        places = [*map(Tensor.data_ptr, weights)]
        kept = self._frozen
        if not versions or kept is None or kept[:3] != (id(knots.features), versions, places):
            model: Any = potential.model
            convolutions = [interaction.cfconv for interaction in model.interactions]
            with torch.inference_mode(False), torch.no_grad():
                tables = [c.spline.coefficients(c.filter_network, knots) for c in convolutions]
                frozen = [tensor.contiguous() for tensor in (*weights, *tables)]
            alive = ([w.detach() for w in weights], knots.features)  # their addresses are not another's
            kept = self._frozen = (id(knots.features), versions, places, frozen, alive)
        return kept[3]

    def _bound(self, machine: Machine, frozen: list[Tensor]) -> Bound:
        """Give the addresses of frozen weights for a machine, taken down when the weights were frozen."""
        kept = self._places.get(machine)
        if kept is None or kept.weights is not frozen:
            kept = self._places[machine] = machine.bind(frozen)
        return kept


def _run_machine(programs: Programs, bound: Bound, inputs: Inputs) -> tuple[list[Tensor], Run]:
    """Run forward in C."""
    assert programs.machine is not None
    results = [torch.empty(inputs.molecules, dtype=torch.float64)]
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
            # Torch tells if one of these is changed before backward.
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


def _difference(
    potential: Potential, expected: dict[str, Tensor], found: dict[str, Tensor], trained: bool
) -> str | None:
    """Compare results and, for every parameter by itself, the gradients of an arbitrary loss of them."""
    tolerance = _TOLERANCE[next(potential.model.parameters()).dtype]
    for name, value in expected.items():
        if not _agree(found[name], value, tolerance):
            return f"{name} differ" if name == "forces" else f"{name} differs"
    if not trained:
        return None
    losses = []
    for results in (expected, found):
        generator = torch.Generator().manual_seed(0)
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in results.items()}
        losses.append([(value * noise[name].to(value)).sum() for name, value in results.items()])
    names, parameters = zip(
        *((n, p) for n, p in potential.named_parameters() if p.requires_grad), strict=True
    )
    pairs = [torch.autograd.grad(parts, parameters, allow_unused=True) for parts in losses]
    for name, value, other in zip(names, *pairs, strict=True):
        if not _agree(other, value, tolerance):
            return f"gradient of {name} differs"
    return None


def _agree(found: Tensor | None, expected: Tensor | None, tolerance: float) -> bool:
    if found is None or expected is None:
        return all(value is None or not bool(value.any()) for value in (found, expected))
    if not bool(expected.isfinite().all()):
        return True  # nothing can be told of such input; the caller will see it
    scale = expected.abs().max()
    return bool((found - expected).abs().max() <= tolerance * scale)
