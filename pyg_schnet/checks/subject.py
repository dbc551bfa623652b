"""The model under examination: its energies and forces, in float64 and as it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_schnet.ensemble import Ensemble
from pyg_schnet.nn import SchNet
from pyg_schnet.potential import Potential


@dataclass(frozen=True)
class Tolerance:
    """How much may differ by rounding, and how far a difference quotient steps.

    Attributes:
        energy: In eV, beside ``relative``.
        forces: In eV/Å, beside ``relative``.
        relative: To the largest energy, or force.
        slope: Of a difference quotient, relative to the largest force, or 1 eV/Å.
        step: Of a difference quotient, in Å.
        width: Of the interval in which a jump is looked for, in Å.
    """

    energy: float
    forces: float
    relative: float
    slope: float
    step: float
    width: float


# Measured on trained models: 1e-12 eV and eV/Å, difference quotients 5e-7. In float32 1e-6 of the energies.
_TOLERANCES = {
    torch.float64: Tolerance(1e-8, 1e-8, 1e-11, 1e-6, 1e-4, 1e-9),
    torch.float32: Tolerance(1e-4, 1e-3, 1e-5, 2e-2, 1e-2, 1e-3),
}


_PAIRS = 50_000  # of a batch; 5,000 molecules of three atoms, or 5 crowds of a hundred


@dataclass(frozen=True)
class Result:
    """What a model says of a batch.

    Attributes:
        energy: ``(structures,)``, in eV and float64.
        forces: ``(atoms, 3)``, in eV/Å and float64.
        stress: ``(structures, 3, 3)``, in eV/Å³, where it was asked for.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None


class Subject:
    """A model whose energies and forces can be asked for.

    Args:
        model: A :class:`~pyg_schnet.Potential` or an :class:`~pyg_schnet.Ensemble`; or anything that is
            called with ``(z, pos, batch)`` and gives energies ``(structures,)`` or ``(structures, 1)``, or a
            pair or a dictionary of ``energy`` and ``forces``. It is copied, and stays as it is.

    Attributes:
        model: A copy, as it is used: in its own precision, compiled if it can be.
        name: Of its class, or of the function.
        dtype: In what it is exact but for rounding: float64 where the model can.
        own_dtype: That of its weights.
        is_ours: Whether it is a potential or an ensemble, which take cells and know their elements.
        elements: The atomic numbers it accepts; ``None`` if it does not say.
        cutoff: In Å; ``None`` if it has none, or does not say.
        connects_all: Whether all atoms of a molecule see each other, at any distance.
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
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
        networks = self._networks()
        self.elements = None if not self.is_ours else self.model.elements
        cutoffs = [
            network.config.cutoff if network.interaction_graph is None else None for network in networks
        ]
        known = bool(cutoffs) and None not in cutoffs
        self.cutoff = max(cast(list[float], cutoffs)) if known else None
        self.connects_all = any(network.config.cutoff is None for network in networks)
        self.dtype = self._energy_dtype = torch.float64
        self.change = 0.0
        self.own_dtype = self._own_dtype()
        self.exact_model = self._in_double()
        if self.is_ours:
            self.model.compile(constant=True)

    @property
    def tolerance(self) -> Tolerance:
        """Of numbers that are exact but for rounding."""
        return _TOLERANCES[self.dtype]

    def probe(self, data: Data) -> None:
        """Find out by a structure whether the model can compute in float64; else it is examined in float32.

        Raises:
            Exception: Whatever the model raises, if it can do neither.
        """
        try:
            self.exact([data])
        except (RuntimeError, TypeError):
            if self.is_ours:
                raise
            self.dtype, self.exact_model = torch.float32, self.model
            self.own_dtype = torch.float32
            self.exact([data])
        if not self.is_ours and self._energy_dtype == torch.float32:
            self.dtype = self.own_dtype = torch.float32

    def exact(self, structures: list[Data], stress: bool = False) -> Result:
        """Compute in float64, or what comes next to it, without splines and programs."""
        return self._compute(self.exact_model, structures, self.dtype, stress)

    def used(self, batch: Data) -> Result:
        """Compute a batch as the model is used."""
        return self._compute_batch(self.model, batch, self.own_dtype, stress=False)

    def energy_of(self, z: Tensor, pos: Tensor) -> float:
        """Ask for the energy of one molecule, without any precaution."""
        result = self._compute(self.exact_model, [Data(z=z, pos=pos)], self.dtype, stress=False)
        return float(result.energy[0])

    def variant(self, dtype: torch.dtype, filters: str | None = None, compiled: bool = False) -> Any:
        """Copy the model in a precision; filters and compilation are of ours alone."""
        own = copy.deepcopy(self.exact_model).to(dtype)
        if self.is_ours:
            for potential in _potentials(own):
                potential.compiled = None
                if compiled:
                    potential.compile(constant=True)
                if filters is not None and isinstance(potential.model, SchNet):
                    potential.model.filters = filters
        return own

    def compute(self, model: Any, structures: list[Data], dtype: torch.dtype) -> Result:
        """Compute by a :meth:`variant`."""
        return self._compute(model, structures, dtype, stress=False)

    def _own_dtype(self) -> torch.dtype:
        """Give the type of the weights; that of the positions is float64 for ours anyway."""
        weights = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        return next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float64)

    def _networks(self) -> list[SchNet]:
        if not self.is_ours:
            return []
        return [one.model for one in _potentials(self.model) if isinstance(one.model, SchNet)]

    def _in_double(self) -> Any:
        if not isinstance(self.model, nn.Module):
            return self.model
        own = copy.deepcopy(self.model).double()
        if self.is_ours:
            for potential in _potentials(own):
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
        given = cast(Tensor, batch.pos)
        if self.is_ours:
            before = given.clone()
            out = model(batch, **({"stress": True} if stress else {}))
            self.change = float((given - before).abs().max())
            out = {name: value.detach().double() for name, value in out.items()}
            return Result(out["energy"], out["forces"], out.get("stress"))
        pos = given.to(dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            energy, forces = _parts(model(batch.z, pos, batch.batch))
        self.change = float((pos.detach() - given.to(dtype)).abs().max())
        self._energy_dtype = energy.dtype
        molecules = cast(Batch, batch).num_graphs
        if energy.numel() != molecules:
            raise ValueError(f"it gave {energy.numel()} energies for {molecules} molecules")
        if forces is None:
            (gradient,) = torch.autograd.grad(energy.sum(), pos)
            forces = -gradient
        return Result(energy.detach().reshape(-1).double(), forces.detach().double())


def _in_batches(structures: list[Data]) -> Iterator[list[Data]]:
    """Part structures so that the pairs of all atoms of a batch fit a cache, or nearly."""
    batch, pairs = [], 0
    for one in structures:
        if batch and pairs + len(one.z) ** 2 > _PAIRS:
            yield batch
            batch, pairs = [], 0
        batch.append(one)
        pairs += len(one.z) ** 2
    yield batch


def _potentials(model: Any) -> list[Potential]:
    return [model] if isinstance(model, Potential) else [cast(Potential, one) for one in model.potentials]


def _parts(out: Any) -> tuple[Tensor, Tensor | None]:
    """Take energy and, where the model gives them, forces from what it returned."""
    forces = None
    if isinstance(out, dict):
        out, forces = out["energy"], out.get("forces")
    elif isinstance(out, list | tuple):
        out, forces = out[0], (out[1] if len(out) > 1 else None)
    if not isinstance(out, Tensor):
        raise TypeError(f"it returned {type(out).__name__}, where a tensor of energies is expected")
    return out, forces
