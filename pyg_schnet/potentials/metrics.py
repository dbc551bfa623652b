"""Errors of a potential on structures with reference labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, distributed, nn
from torch_geometric.data import Data, InMemoryDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from pyg_schnet.graph.memory import describe_out_of_memory, too_large_reason
from pyg_schnet.graph.strain import virial_per_atom
from pyg_schnet.io.units import GPa, kcal_per_mol
from pyg_schnet.loader import DataLoader
from pyg_schnet.loader.sampler import EdgeBudgetSampler, bound_edges, count_edges, split_by_edges
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target


class PropertyErrors(NamedTuple):
    """Errors of a property beside the energy, over structures or, if it is atomic, atoms with labels.

    Attributes:
        target: The property, with its unit.
        mae: Mean absolute error; NaN without labels.
        rmse: Root mean square error; NaN without labels.
        values: Labels and predictions, shape ``(2, labels)``.
        deviation: Deviations of an ensemble, shape ``(labels,)``; ``None`` for a single potential.
        structures: Place in the data set of the structure of each label, shape ``(labels,)``.
    """

    target: Target
    mae: float
    rmse: float
    values: Tensor
    deviation: Tensor | None = None
    structures: Tensor | None = None


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Errors over all structures, with the labels and predictions; ``print`` shows a table with units.

    Errors of energies are per structure, in eV; errors of forces over all atoms and components, in eV/Å;
    errors of stresses over all periodic systems and their nine components, in eV/Å³.

    Attributes:
        n: Number of structures.
        energy_mae: Mean absolute error of the energies, in eV per structure; ``None`` if none are predicted.
        energy_rmse: Root mean square error of the energies, in eV per structure.
        forces_mae: Mean absolute error of the forces, in eV/Å; ``None`` without labels.
        forces_rmse: Root mean square error of the forces, in eV/Å.
        energy: Labels and predictions in eV, shape ``(2, structures)``.
        forces: Labels and predictions in eV/Å, shape ``(2, atoms, 3)``.
        z: Atomic numbers, shape ``(atoms,)``.
        stress_mae: Mean absolute error of the stresses, in eV/Å³; ``None`` without labels.
        stress_rmse: Root mean square error of the stresses, in eV/Å³.
        virial_mae: Mean absolute error of stress times volume per atom, in eV.
        virial_rmse: Root mean square error of stress times volume per atom, in eV.
        stress: Labels and predictions in eV/Å³, shape ``(2, periodic systems, 3, 3)``.
        sizes: Numbers of atoms, shape ``(structures,)``.
        energy_deviation: Deviations of the energies of an :class:`~pyg_schnet.Ensemble` in eV, shape
            ``(structures,)``; ``None`` for a single potential.
        forces_deviation: Deviations of its forces in eV/Å, shape ``(atoms,)``.
        potentials: Number of potentials.
        periodic: Whether all structures are periodic.
        properties: Errors of the other properties, by name.
    """

    n: int
    energy_mae: float | None
    energy_rmse: float | None
    forces_mae: float | None
    forces_rmse: float | None
    energy: Tensor
    forces: Tensor | None
    z: Tensor
    stress_mae: float | None = None
    stress_rmse: float | None = None
    virial_mae: float | None = None
    virial_rmse: float | None = None
    stress: Tensor | None = None
    sizes: Tensor | None = None
    energy_deviation: Tensor | None = None
    forces_deviation: Tensor | None = None
    potentials: int = 1
    periodic: bool = False
    properties: dict[str, PropertyErrors] = field(default_factory=dict)

    def comparable_energy(self) -> tuple[Tensor, str]:
        """Return energies whose errors do not depend on the choice of the cell, and their unit.

        Returns:
            Labels and predictions, ``(2, structures)``, per atom if all structures are periodic, else per
            structure; and ``"eV/atom"`` or ``"eV"``.
        """
        if self.periodic and self.sizes is not None:
            return self.energy / self.sizes, "eV/atom"
        return self.energy, "eV"

    def as_dict(self) -> dict[str, Any]:
        """Return errors in eV and Å and, by suffix, in kcal/mol and Å (``_kcal``) and GPa (``_GPa``).

        Errors of properties are in their units, which ``"units"`` holds by name.
        """
        errors = self._errors("energy", "forces")
        in_kcal = {f"{name}_kcal": value / kcal_per_mol for name, value in errors.items()}
        stress = self._errors("stress")
        in_gigapascal = {f"{name}_GPa": value / GPa for name, value in stress.items()}
        properties = {
            f"{name}_{kind}": value
            for name, own in self.properties.items()
            for kind, value in (("mae", own.mae), ("rmse", own.rmse))
        }
        units = {name: own.target.unit for name, own in self.properties.items()}
        table = {"n": self.n, **errors, **in_kcal, **stress, **in_gigapascal, **properties}
        return table | ({"units": units} if units else {})

    def rows(self) -> list[tuple[str, float, float, str, float, float, str]]:
        """Return quantity, MAE, RMSE and unit, and both errors in another unit, of quantities with labels.

        If all structures are periodic, the second row has energies per atom.
        """
        rows = []
        for name, unit, other in _UNITS:
            mae, rmse = getattr(self, f"{name}_mae"), getattr(self, f"{name}_rmse")
            if mae is not None:
                factor = GPa if other == "GPa" else kcal_per_mol
                rows.append((name, 1e3 * mae, 1e3 * rmse, unit, mae / factor, rmse / factor, other))
        energy, unit = self.comparable_energy()
        if unit == "eV/atom" and energy.size(1) == self.n:  # no shard of a distributed evaluation
            error = energy[1] - energy[0]
            mae, rmse = float(error.abs().mean()), float(error.square().mean().sqrt())
            in_kcal = (mae / kcal_per_mol, rmse / kcal_per_mol, "kcal/mol/atom")
            rows.insert(1, ("energy/atom", 1e3 * mae, 1e3 * rmse, "meV/atom", *in_kcal))
        return rows

    def __str__(self) -> str:
        head = f"{'':12}{'MAE':>9}{'RMSE':>9}  unit    {'MAE':>10}{'RMSE':>9}  unit"
        rows = [
            f"{name:12}{mae:9.2f}{rmse:9.2f}  {unit:8}{other_mae:10.4f}{other_rmse:9.4f}  {other}"
            for name, mae, rmse, unit, other_mae, other_rmse, other in self.rows()
        ]
        properties = [
            f"{name:12}{own.mae:9.4g}{own.rmse:9.4g}  {own.target.shown_unit}"
            for name, own in self.properties.items()
        ]
        head = head if rows else f"{'':12}{'MAE':>9}{'RMSE':>9}  unit"
        return "\n".join([f"Errors on {self.n:,} structures", head, *rows, *properties])

    def __repr__(self) -> str:
        errors = {"n": self.n, **self._errors("energy", "forces", "stress")}
        errors |= {f"{name}_mae": own.mae for name, own in self.properties.items()}
        values = ", ".join(f"{name}={value:.6g}" for name, value in errors.items())
        return f"{type(self).__name__}({values})"

    def require_finite(self, numbers: Sequence[int] | None = None) -> None:
        """Raise if a predicted energy, force or property is not finite.

        Args:
            numbers: Numbers of the structures for the message, from 0 by default.

        Raises:
            ValueError: If one is not finite; the message has the quantity and the first structure.
        """
        structures = torch.arange(self.n)
        owners = {} if self.energy_mae is None else {"energy": structures}
        if self.forces is not None and self.sizes is not None:
            owners["forces"] = structures.repeat_interleave(self.sizes)
        for name, own in self.properties.items():
            if own.structures is not None:
                owners[name] = own.structures
        for name, owner in owners.items():
            predicted = (self.properties[name].values if name in self.properties else getattr(self, name))[1]
            wrong = ~predicted.isfinite().reshape(len(owner), -1).all(1)
            if bool(wrong.any()):
                indices = owner[wrong].unique().tolist()
                first = indices[0] if numbers is None else numbers[indices[0]]
                raise ValueError(
                    f"`{name}` predicted by the potential must be finite, got other values for "
                    f"{len(indices):,} of {self.n:,} structures, the first is {first}, counted from 0; "
                    "remove them if they differ from those of the training, or train again"
                )

    def _errors(self, *quantities: str) -> dict[str, float]:
        names = [f"{quantity}_{kind}" for quantity in quantities for kind in ("mae", "rmse")]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def labeled_outputs(batch: Data) -> dict[str, bool]:
    """Return the options of a potential's call that request the outputs with labels in a batch."""
    has_stress = "stress" in batch and "pbc" in batch and bool(batch.pbc.any())
    return {"forces": "forces" in batch, **({"stress": True} if has_stress else {})}


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode within the context; each submodule gets its mode back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def evaluate(
    potential: Potential | Ensemble,
    dataset: InMemoryDataset,
    batch_size: int = 32,
    batch_edges: int | None = None,
    shared: bool = False,
) -> Evaluation:
    """Compare predictions with the labels of a data set.

    Args:
        potential: Potential or ensemble. It runs in evaluation mode, and each of its submodules has its mode
            back afterwards.
        dataset: Structures with ``energy`` in eV and, optionally, ``forces`` in eV/Å and ``stress`` in eV/Å³.
        batch_size: Structures evaluated at once.
        batch_edges: Maximum number of edges evaluated at once, instead of a number of structures.
        shared: Whether all ranks of ``torch.distributed`` call this function. Each evaluates a shard of the
            data set; errors are those of all structures, labels and predictions those of the shard.

    Returns:
        The errors, with the labels and predictions on the CPU.

    Raises:
        ValueError: If the data set is empty, or has no labels of what the potential predicts.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one structure, got 0")
    whole = dataset
    if shared:
        dataset = cast(InMemoryDataset, dataset[distributed.get_rank() :: distributed.get_world_size()])
    device = potential.atomref.device
    cutoff = getattr(potential, "cutoff", math.inf)  # models of the user may have none
    properties = {target.name: target for target in getattr(potential, "properties", ())}
    names = (*_QUANTITIES, *properties)
    metrics = {name: [_empty_metric(kind, shared, device) for kind in _METRICS] for name in names}
    parts: list[dict[str, Tensor]] = []
    evaluated, periodic = 0, True
    with in_evaluation_mode(potential):
        for batch in _batches(dataset, cutoff, batch_size, batch_edges):
            batch = batch.to(device)
            with describe_out_of_memory(partial(_too_large, batch, cutoff)), torch.no_grad():
                out = potential(batch, **labeled_outputs(batch))
            pairs, known = _pairs(out, batch), _property_pairs(out, batch, properties, evaluated)
            evaluated += batch.num_graphs
            periodic = periodic and "pbc" in batch and bool(batch.pbc.view(-1, 3).any(1).all())
            for name, pair in (pairs | {name: known[name] for name in properties if name in known}).items():
                label, prediction = pair.contiguous()
                for metric in metrics[name]:
                    metric.update(prediction, label)
            deviations = {name: out[name].double() for name in _DEVIATIONS if name in out}
            parts.append({**pairs, **known, **deviations, "z": batch.z, "sizes": batch.ptr.diff()})
    labeled = _have_labels(parts, names, shared, device)
    errors = {
        f"{name}_{kind}": float(metric.compute()) if labeled[name] else None
        for name in _QUANTITIES
        for kind, metric in zip(("mae", "rmse"), metrics[name], strict=True)
    }
    columns = {
        name: torch.cat([part[name] for part in parts if name in part], dim=1 if name in metrics else 0).cpu()
        for name in dict.fromkeys(name for part in parts for name in part)
    }
    columns = {"energy": torch.empty(2, 0), "z": torch.empty(0, dtype=torch.long), **columns}
    if not any(labeled.values()):
        predicted = ", ".join(["energy"] * getattr(potential, "has_energy", True) + [*properties])
        raise ValueError(
            f"`dataset` must have labels of what the potential predicts, {predicted}; got none of them"
        )
    return Evaluation(
        len(whole),
        **errors,
        energy=columns["energy"],
        forces=columns.get("forces"),
        stress=columns.get("stress"),
        z=columns["z"],
        sizes=columns["sizes"],
        energy_deviation=columns.get("energy_deviation"),
        forces_deviation=columns.get("forces_deviation"),
        potentials=len(potential.potentials) if isinstance(potential, Ensemble) else 1,
        periodic=periodic,
        properties={
            name: PropertyErrors(
                target,
                float(metrics[name][0].compute()),
                float(metrics[name][1].compute()),
                columns.get(name, torch.empty(2, 0)),  # a shard may have no labels
                columns.get(f"{name}_deviation"),
                columns.get(f"{name}_structures", torch.empty(0, dtype=torch.long)),
            )
            for name, target in properties.items()
            if labeled[name]
        },
    )


def _pairs(out: dict[str, Tensor], batch: Data) -> dict[str, Tensor]:
    """Stack labels and predictions by quantity, shape ``(2, …)``."""
    pairs = {}
    if "energy" in out and "energy" in batch:
        pairs["energy"] = torch.stack([batch.energy, out["energy"]])
    if "forces" in out:
        pairs["forces"] = torch.stack([batch.forces, out["forces"].double()])
    if "stress" in out:
        both = torch.stack([batch.stress, out["stress"]])
        periodic = out["stress"][:, 0, 0].isfinite()  # NaN for molecules
        pairs["stress"] = both[:, periodic]
        pairs["virial"] = torch.stack([virial_per_atom(stress, batch) for stress in both])[:, periodic]
    return pairs


def _property_pairs(
    out: dict[str, Tensor], batch: Data, properties: Mapping[str, Target], first: int
) -> dict[str, Tensor]:
    """Stack the known labels of properties and their predictions; add deviations and places of structures.

    Args:
        out: Output of a potential.
        batch: Structures.
        properties: Properties by name.
        first: Place of the first structure in the data set.
    """
    pairs = {}
    for name, target in properties.items():
        if name in batch:
            label = batch[name].double()
            known = label.isfinite()
            if bool(known.any()):
                pairs[name] = torch.stack([label[known], out[name][known]])
                places = known.nonzero()[:, 0]
                structures = cast(Tensor, batch.batch)[places] if target.is_atomic else places
                pairs[f"{name}_structures"] = first + structures
                if f"{name}_deviation" in out:
                    pairs[f"{name}_deviation"] = out[f"{name}_deviation"][known]
    return pairs


def _batches(
    dataset: InMemoryDataset, cutoff: float, batch_size: int, batch_edges: int | None
) -> Iterable[Data]:
    if len(dataset) == 0:  # an empty shard
        return ()
    if batch_edges is not None:
        sampler = EdgeBudgetSampler(count_edges(dataset, cutoff), batch_edges, shuffle=False)
    else:
        batches, bounds = torch.arange(len(dataset)).split(batch_size), bound_edges(dataset, cutoff)
        if bounds is not None:
            batches = [part for ids in batches for part in split_by_edges(ids, bounds)]
        sampler = [ids.tolist() for ids in batches]
    # Its own generator: loaders draw a random number even if they do not shuffle.
    return DataLoader(dataset, batch_sampler=sampler, generator=torch.Generator())


def _too_large(batch: Data, cutoff: float) -> str:
    sizes = batch.ptr.diff()
    largest = int(sizes.argmax())
    named = f"structure {int(batch.idx[largest])}" if "idx" in batch else f"structure {largest} of a batch"
    return f"{named}: {too_large_reason(int(sizes[largest]), cutoff)}"


def _have_labels(
    parts: list[dict[str, Tensor]], names: Sequence[str], shared: bool, device: torch.device
) -> dict[str, bool]:
    """Return, by quantity, whether any structure has labels, on any rank."""
    flags = [any(name in part for part in parts) for name in names]
    have_labels = torch.tensor(flags, dtype=torch.uint8, device=device)
    if shared:
        distributed.all_reduce(have_labels, distributed.ReduceOp.MAX)
    return dict(zip(names, have_labels.bool().tolist(), strict=True))


def _empty_metric(kind: Callable[..., Metric], shared: bool, device: torch.device) -> Metric:
    """Build a metric of no values; if ``shared``, ``compute`` returns its value over all ranks."""
    metric = kind(sync_on_compute=shared).set_dtype(torch.float64).to(device)
    metric.update(torch.empty(0, device=device), torch.empty(0, device=device))
    return metric


_UNITS = (("energy", "meV", "kcal/mol"), ("forces", "meV/Å", "kcal/mol/Å"), ("stress", "meV/Å³", "GPa"))
_DEVIATIONS = ("energy_deviation", "forces_deviation")
_QUANTITIES = ("energy", "forces", "stress", "virial")
_METRICS = (MeanAbsoluteError, partial(MeanSquaredError, squared=False))
