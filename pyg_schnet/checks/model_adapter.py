"""One interface to any model: energies and forces in float64 and as the model is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_schnet.checks.model_output import (
    ModelError,
    ModelOutput,
    NotFiniteError,
    gradient,
    parse_model_output,
)
from pyg_schnet.checks.result import TOLERANCES, Tolerance
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential

_BATCH_ATOMS = 1_000  # most atoms of a batch: models may build a matrix of all pairs


class ModelAdapter:
    """Adapter that computes energies and forces with any model.

    Args:
        model: A :class:`~pyg_schnet.Potential` or an :class:`~pyg_schnet.Ensemble`; or a callable that maps
            ``(z, pos, batch)`` to energies ``(structures,)`` or ``(structures, 1)``, or to a pair or a
            dictionary of ``energy`` and ``forces``. It is copied and not modified.

    Attributes:
        model: A copy as it is used: in its own precision, compiled where possible.
        device: Device of its weights; structures and output stay on the CPU.
        name: Name of its class or function.
        dtype: Floating-point type of exact results: float64 if the model supports it.
        weights_dtype: Floating-point type of its weights.
        is_potential: Whether it is a potential or an ensemble, which accept cells and know their elements.
        networks: SchNets in it.
        elements: Atomic numbers that it accepts; ``None`` if unknown.
        cutoff: Cutoff in Å; ``None`` if it has none, or unknown.
        has_no_cutoff: Whether all pairs of atoms of a molecule interact, at any distance.
        why_single: Reason for checks in float32; empty in float64.
        position_change: Largest change that the last call made to the positions passed to the model, in Å.
    """

    def __init__(self, model: Potential | Ensemble | Callable[..., Any]):
        if not callable(model):
            raise TypeError(
                f"`model` must be a Potential or callable with (z, pos, batch), got {type(model).__name__}"
            )
        self.name = (
            type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
        )
        if isinstance(model, SchNet):
            model = Potential(model)
        self.is_potential = isinstance(model, Potential | Ensemble)
        self.model: Any = model
        if isinstance(model, nn.Module):
            self.model = _copied(model).eval().requires_grad_(False)
        self.networks = networks = self._networks()
        self.elements = None if not self.is_potential else self.model.elements
        cutoffs = [
            network.config.cutoff if network.interaction_graph is None else None for network in networks
        ]
        known = bool(cutoffs) and None not in cutoffs
        self.cutoff = max(cast(list[float], cutoffs)) if known else None
        self.has_no_cutoff = any(network.config.cutoff is None for network in networks)
        self.dtype = self._energy_dtype = torch.float64
        self.position_change = 0.0
        self.why_single = ""
        self.weights_dtype, self.device = self._weights_kind()
        self.exact_model = self._in_double()
        if self.is_potential:
            self.model.compile(constant=True)

    @property
    def tolerance(self) -> Tolerance:
        """Tolerance of numbers that are exact up to rounding."""
        return TOLERANCES[self.dtype]

    @property
    def rounding(self) -> float:
        """Relative rounding error of energies: four units in the last place."""
        return 4 * torch.finfo(self.dtype).eps

    def probe(self, data: Data) -> None:
        """Determine with a structure whether the model supports float64; otherwise use float32.

        Raises:
            ModelError: If it supports neither.
        """
        try:
            result = self.compute_exact([data])
        except NotFiniteError:
            return
        except ModelError as error:
            if self.is_potential:
                raise
            self._use_single(f"in float64 {error}")
            self.compute_exact([data])
            return
        if self.is_potential:
            return
        if self._energy_dtype == torch.float32:
            self._use_single("its energies are float32")
        elif bool(result.forces.any()) and self._rounds_positions(data):
            self._use_single("it rounds positions to float32")

    def _rounds_positions(self, data: Data) -> bool:
        """Return whether changes of positions below the precision of float32 change nothing."""
        generator = torch.Generator().manual_seed(0)
        pos = cast(Tensor, data.pos).float().double()
        noise = torch.rand(pos.shape, dtype=torch.float64, generator=generator)
        there = pos * (1 + 1e-9 * noise)
        one, other = (self.compute_exact([Data(z=data.z, pos=each)]) for each in (pos, there))
        return torch.equal(one.energy, other.energy) and torch.equal(one.forces, other.forces)

    def _use_single(self, reason: str) -> None:
        self.dtype = self.weights_dtype = torch.float32
        self.exact_model, self.why_single = self.model, reason

    def compute_exact(self, structures: list[Data], stress: bool = False) -> ModelOutput:
        """Compute in float64 (float32 if unsupported), with exact filters and without compilation."""
        return self._compute(self.exact_model, structures, self.dtype, stress)

    def compute_as_used(self, batch: Data) -> ModelOutput:
        """Compute a batch with the model as it is used."""
        return self._compute_batch(self.model, batch, self.weights_dtype, stress=False)

    def variant(self, dtype: torch.dtype, filters: str | None = None, compiled: bool = False) -> Any:
        """Return a copy of the model in another precision.

        Args:
            dtype: Floating-point type of the weights.
            filters: How potentials evaluate filters; unchanged by default.
            compiled: Whether to compile potentials.
        """
        own = copy.deepcopy(self.exact_model).to(dtype)
        if self.is_potential:
            for potential in potentials_of(own):
                potential.compiled = None
                if compiled:
                    potential.compile(constant=True)
                if filters is not None and isinstance(potential.model, SchNet):
                    potential.model.filters = filters
        return own

    def compute_variant(self, model: Any, structures: list[Data], dtype: torch.dtype) -> ModelOutput:
        """Compute with a model that :meth:`variant` returned."""
        return self._compute(model, structures, dtype, stress=False)

    def _weights_kind(self) -> tuple[torch.dtype, torch.device]:
        """Return floating-point type and device of the weights."""
        weights = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        first = next((weight for weight in weights if weight.is_floating_point()), torch.empty(0).double())
        return first.dtype, first.device

    def _networks(self) -> list[SchNet]:
        if not self.is_potential:
            return []
        return [one.model for one in potentials_of(self.model) if isinstance(one.model, SchNet)]

    def _in_double(self) -> Any:
        if not isinstance(self.model, nn.Module):
            return self.model
        own = copy.deepcopy(self.model).double()
        if self.is_potential:
            for potential in potentials_of(own):
                potential.compiled = None
                if isinstance(potential.model, SchNet):
                    potential.model.filters = "exact"
        return own

    def _compute(self, model: Any, structures: list[Data], dtype: torch.dtype, stress: bool) -> ModelOutput:
        parts = [
            self._compute_batch(model, cast(Data, Batch.from_data_list(cast(Any, part))), dtype, stress)
            for part in _in_batches(structures)
        ]
        stresses = [part.stress for part in parts if part.stress is not None]
        return ModelOutput(
            torch.cat([part.energy for part in parts]),
            torch.cat([part.forces for part in parts]),
            torch.cat(stresses) if stresses else None,
        )

    def _compute_batch(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> ModelOutput:
        batch = copy.copy(batch).to(str(self.device))
        try:
            result = (self._evaluate_potential if self.is_potential else self._evaluate_callable)(
                model, batch, dtype, stress
            )
        except ModelError:
            raise
        except Exception as error:  # a model may raise anything
            text = " ".join(str(error).split())
            raise ModelError(f"it raised {type(error).__name__}: {text}") from error
        if not bool(result.energy.isfinite().all() and result.forces.isfinite().all()):
            raise NotFiniteError("its energies or forces are not finite")
        return result

    def _evaluate_potential(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> ModelOutput:
        before = cast(Tensor, batch.pos).clone()
        out = model(batch, **({"stress": True} if stress else {}))
        self.position_change = float((cast(Tensor, batch.pos) - before).abs().max())
        out = {name: value.detach().double().cpu() for name, value in out.items()}
        return ModelOutput(out["energy"], out["forces"], out.get("stress"))

    def _evaluate_callable(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> ModelOutput:
        given = cast(Tensor, batch.pos)
        pos = given.to(dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            energy, forces = parse_model_output(model(batch.z, pos, batch.batch))
            self.position_change = float((pos.detach() - given.to(dtype)).abs().max())
            self._energy_dtype = energy.dtype
            molecules = cast(Batch, batch).num_graphs
            if energy.numel() != molecules:
                raise ModelError(f"it returned {energy.numel()} energies for {molecules} molecules")
            if forces is None:
                forces = -gradient(energy.sum(), pos)
        if forces.shape != pos.shape:
            raise ModelError(
                f"its forces must have the shape of positions, {tuple(pos.shape)}, got {tuple(forces.shape)}"
            )
        return ModelOutput(energy.detach().reshape(-1).double().cpu(), forces.detach().double().cpu())


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise TypeError(
            f"`model` must be a module that copy.deepcopy copies, got {type(model).__name__} ({error}); or "
            "pass a function that calls it"
        ) from None


def _in_batches(structures: list[Data]) -> Iterator[list[Data]]:
    """Yield structures in batches of bounded size."""
    batch, atoms = [], 0
    for one in structures:
        if batch and atoms + len(one.z) > _BATCH_ATOMS:
            yield batch
            batch, atoms = [], 0
        batch.append(one)
        atoms += len(one.z)
    yield batch


def potentials_of(model: Any) -> list[Potential]:
    """Return the potential, or the members of an ensemble."""
    return [model] if isinstance(model, Potential) else [cast(Potential, one) for one in model.potentials]
