"""The model under examination: its energies and forces, in float64 and as it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_schnet.checks.model_output import ModelError, NotFinite, Result, gradient, parts_of
from pyg_schnet.checks.tolerance import TOLERANCES, Tolerance
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential

_ATOMS = 1_000  # of a batch; models may make a matrix of all of them


class ModelAdapter:
    """A model whose energies and forces can be asked for.

    Args:
        model: A :class:`~pyg_schnet.Potential` or an :class:`~pyg_schnet.Ensemble`; or anything that is
            called with ``(z, pos, batch)`` and gives energies ``(structures,)`` or ``(structures, 1)``, or a
            pair or a dictionary of ``energy`` and ``forces``. It is copied, and stays as it is.

    Attributes:
        model: A copy, as it is used: in its own precision, compiled if it can be.
        device: Where its weights are; structures and results stay on the CPU.
        name: Of its class, or of the function.
        dtype: In what it is exact but for rounding: float64 where the model can.
        own_dtype: That of its weights.
        is_ours: Whether it is a potential or an ensemble, which take cells and know their elements.
        networks: The SchNets in it.
        elements: The atomic numbers it accepts; ``None`` if it does not say.
        cutoff: In Å; ``None`` if it has none, or does not say.
        connects_all: Whether all atoms of a molecule see each other, at any distance.
        why_single: Why it is examined in float32; empty in float64.
        change: By how much the last call of the model changed the positions that it was given, in Å.
    """

    def __init__(self, model: Potential | Ensemble | Callable[..., Any]):
        if not callable(model):
            raise TypeError(
                f"`model` must be a Potential, or callable with (z, pos, batch), got {type(model).__name__}"
            )
        self.name = (
            type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
        )
        if isinstance(model, SchNet):
            model = Potential(model)
        self.is_ours = isinstance(model, Potential | Ensemble)
        self.model: Any = model
        if isinstance(model, nn.Module):
            self.model = _copied(model).eval().requires_grad_(False)
        self.networks = networks = self._networks()
        self.elements = None if not self.is_ours else self.model.elements
        cutoffs = [
            network.config.cutoff if network.interaction_graph is None else None for network in networks
        ]
        known = bool(cutoffs) and None not in cutoffs
        self.cutoff = max(cast(list[float], cutoffs)) if known else None
        self.connects_all = any(network.config.cutoff is None for network in networks)
        self.dtype = self._energy_dtype = torch.float64
        self.change = 0.0
        self.why_single = ""
        self.own_dtype, self.device = self._own_kind()
        self.exact_model = self._in_double()
        if self.is_ours:
            self.model.compile(constant=True)

    @property
    def tolerance(self) -> Tolerance:
        """Of numbers that are exact but for rounding."""
        return TOLERANCES[self.dtype]

    @property
    def rounding(self) -> float:
        """Of energies, relative to them: a few last digits."""
        return 4 * torch.finfo(self.dtype).eps

    def probe(self, data: Data) -> None:
        """Find out by a structure whether the model can compute in float64; else it is examined in float32.

        Raises:
            ModelError: If it can do neither.
        """
        try:
            result = self.exact([data])
        except NotFinite:
            return
        except ModelError as error:
            if self.is_ours:
                raise
            self._be_single(f"in float64 {error}")
            self.exact([data])
            return
        if self.is_ours:
            return
        if self._energy_dtype == torch.float32:
            self._be_single("its energies are float32")
        elif bool(result.forces.any()) and self._rounds(data):
            self._be_single("it rounds positions to float32")

    def _rounds(self, data: Data) -> bool:
        """Whether it does not see what float32 has no digits for."""
        generator = torch.Generator().manual_seed(0)
        pos = cast(Tensor, data.pos).float().double()
        noise = torch.rand(pos.shape, dtype=torch.float64, generator=generator)
        there = pos * (1 + 1e-9 * noise)
        one, other = (self.exact([Data(z=data.z, pos=each)]) for each in (pos, there))
        return torch.equal(one.energy, other.energy) and torch.equal(one.forces, other.forces)

    def _be_single(self, reason: str) -> None:
        self.dtype = self.own_dtype = torch.float32
        self.exact_model, self.why_single = self.model, reason

    def exact(self, structures: list[Data], stress: bool = False) -> Result:
        """Compute in float64, or what comes next to it, without splines and programs."""
        return self._compute(self.exact_model, structures, self.dtype, stress)

    def used(self, batch: Data) -> Result:
        """Compute a batch as the model is used."""
        return self._compute_batch(self.model, batch, self.own_dtype, stress=False)

    def variant(self, dtype: torch.dtype, filters: str | None = None, compiled: bool = False) -> Any:
        """Copy the model in a precision; filters and compilation are of ours alone."""
        own = copy.deepcopy(self.exact_model).to(dtype)
        if self.is_ours:
            for potential in potentials_of(own):
                potential.compiled = None
                if compiled:
                    potential.compile(constant=True)
                if filters is not None and isinstance(potential.model, SchNet):
                    potential.model.filters = filters
        return own

    def compute(self, model: Any, structures: list[Data], dtype: torch.dtype) -> Result:
        """Compute by a :meth:`variant`."""
        return self._compute(model, structures, dtype, stress=False)

    def _own_kind(self) -> tuple[torch.dtype, torch.device]:
        """Give the type and the place of the weights; positions are float64 for ours anyway."""
        weights = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        first = next((weight for weight in weights if weight.is_floating_point()), torch.empty(0).double())
        return first.dtype, first.device

    def _networks(self) -> list[SchNet]:
        if not self.is_ours:
            return []
        return [one.model for one in potentials_of(self.model) if isinstance(one.model, SchNet)]

    def _in_double(self) -> Any:
        if not isinstance(self.model, nn.Module):
            return self.model
        own = copy.deepcopy(self.model).double()
        if self.is_ours:
            for potential in potentials_of(own):
                potential.compiled = None
                if isinstance(potential.model, SchNet):
                    potential.model.filters = "exact"
        return own

    def _compute(self, model: Any, structures: list[Data], dtype: torch.dtype, stress: bool) -> Result:
        parts = [
            self._compute_batch(model, cast(Data, Batch.from_data_list(cast(Any, part))), dtype, stress)
            for part in _in_batches(structures)
        ]
        stresses = [part.stress for part in parts if part.stress is not None]
        return Result(
            torch.cat([part.energy for part in parts]),
            torch.cat([part.forces for part in parts]),
            torch.cat(stresses) if stresses else None,
        )

    def _compute_batch(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> Result:
        batch = copy.copy(batch).to(str(self.device))
        try:
            result = (self._ask_ours if self.is_ours else self._ask)(model, batch, dtype, stress)
        except ModelError:
            raise
        except Exception as error:  # the model is examined, whatever it raises
            text = " ".join(str(error).split())
            raise ModelError(f"it raised {type(error).__name__}: {text}") from error
        if not bool(result.energy.isfinite().all() and result.forces.isfinite().all()):
            raise NotFinite("it gave energies or forces that are not finite numbers")
        return result

    def _ask_ours(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> Result:
        before = cast(Tensor, batch.pos).clone()
        out = model(batch, **({"stress": True} if stress else {}))
        self.change = float((cast(Tensor, batch.pos) - before).abs().max())
        out = {name: value.detach().double().cpu() for name, value in out.items()}
        return Result(out["energy"], out["forces"], out.get("stress"))

    def _ask(self, model: Any, batch: Data, dtype: torch.dtype, stress: bool) -> Result:
        given = cast(Tensor, batch.pos)
        pos = given.to(dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            energy, forces = parts_of(model(batch.z, pos, batch.batch))
            self.change = float((pos.detach() - given.to(dtype)).abs().max())
            self._energy_dtype = energy.dtype
            molecules = cast(Batch, batch).num_graphs
            if energy.numel() != molecules:
                raise ModelError(f"it gave {energy.numel()} energies for {molecules} molecules")
            if forces is None:
                forces = -gradient(energy.sum(), pos)
        if forces.shape != pos.shape:
            raise ModelError(
                f"its forces must have the shape {tuple(pos.shape)}, as positions, got {tuple(forces.shape)}"
            )
        return Result(energy.detach().reshape(-1).double().cpu(), forces.detach().double().cpu())


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise TypeError(
            f"`model` must be a module that copy.deepcopy copies, got {type(model).__name__} ({error}); or "
            "give a function that calls it"
        ) from None


def _in_batches(structures: list[Data]) -> Iterator[list[Data]]:
    """Part structures, so that batches are small."""
    batch, atoms = [], 0
    for one in structures:
        if batch and atoms + len(one.z) > _ATOMS:
            yield batch
            batch, atoms = [], 0
        batch.append(one)
        atoms += len(one.z)
    yield batch


def potentials_of(model: Any) -> list[Potential]:
    """Give the one potential, or those of an ensemble."""
    return [model] if isinstance(model, Potential) else [cast(Potential, one) for one in model.potentials]
