"""Errors of a potential on labelled structures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

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


@dataclass(frozen=True)
class Evaluation:
    """Errors over all structures, and what they are computed from.

    Energies are errors per molecule, in eV; forces are errors over all atoms and components, in eV/Å;
    stresses over all periodic systems and their nine components, in eV/Å³.

    Attributes:
        n: Number of structures.
        energy_mae: Mean absolute error of the energies.
        energy_rmse: Root mean square error of the energies.
        forces_mae: Mean absolute error of the forces; ``None`` where there are no labels.
        forces_rmse: Root mean square error of the forces.
        energy: Labels and predictions, shape ``(2, structures)``.
        forces: Labels and predictions, shape ``(2, atoms, 3)``.
        z: Atomic numbers, shape ``(atoms,)``.
        stress_mae: Mean absolute error of the stresses; ``None`` where there are no labels.
        stress_rmse: Root mean square error of the stresses.
        virial_mae: Mean absolute error of stress times volume an atom, in eV.
        virial_rmse: Its root mean square error.
        stress: Labels and predictions, shape ``(2, periodic systems, 3, 3)``.
        sizes: Numbers of atoms, shape ``(structures,)``.
        energy_deviation: Of an ensemble, see :class:`~pyg_schnet.Ensemble`, in eV, ``(structures,)``.
        forces_deviation: The same of the forces, in eV/Å, ``(atoms,)``.
        potentials: How many made the predictions.
    """

    n: int
    energy_mae: float
    energy_rmse: float
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

    def as_dict(self) -> dict[str, float | int]:
        """Give the errors in eV and Å and, with the suffix ``_kcal``, in kcal/mol and Å; stresses in GPa."""
        errors = self._errors("energy", "forces")
        in_kcal = {f"{name}_kcal": value / kcal_per_mol for name, value in errors.items()}
        stress = self._errors("stress")
        in_gigapascal = {f"{name}_GPa": value / GPa for name, value in stress.items()}
        return {"n": self.n, **errors, **in_kcal, **stress, **in_gigapascal}

    def require_finite(self, numbers: Sequence[int] | None = None) -> None:
        """Raise if the potential predicted an energy or a force that is not a finite number.

        Args:
            numbers: Of the structures, for the error; from 0 by default.

        Raises:
            ValueError: With the quantity and the structure.
        """
        structures = torch.arange(self.n)
        owners = {"energy": structures}
        if self.forces is not None and self.sizes is not None:
            owners["forces"] = structures.repeat_interleave(self.sizes)
        for name, owner in owners.items():
            wrong = ~getattr(self, name)[1].isfinite().reshape(len(owner), -1).all(1)
            if bool(wrong.any()):
                places = owner[wrong].unique().tolist()
                first = places[0] if numbers is None else numbers[places[0]]
                raise ValueError(
                    f"`{name}` predicted by the potential must be finite, got other numbers for "
                    f"{len(places):,} of {self.n:,} structures, the first is {first}, counted from 0; remove "
                    "them if they are unlike those of the training, or train again"
                )

    def _errors(self, *quantities: str) -> dict[str, float]:
        names = [f"{quantity}_{kind}" for quantity in quantities for kind in ("mae", "rmse")]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def labelled(batch: Data) -> dict[str, bool]:
    """Tell what a potential is asked for beside energies: that of which a batch has labels."""
    has_stress = "stress" in batch and "pbc" in batch and bool(batch.pbc.any())
    return {"forces": "forces" in batch, **({"stress": True} if has_stress else {})}


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and each of its submodules back in its own mode afterwards."""
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
        potential: One or an ensemble, in any mode; it runs in evaluation mode, and each of its submodules
            has its own mode again afterwards.
        dataset: With ``energy`` in eV and, if there are any, ``forces`` in eV/Å and ``stress`` in eV/Å³.
        batch_size: Molecules at once.
        batch_edges: Edges at once, instead of a number of molecules.
        shared: Whether all processes of ``torch.distributed`` call this, each of which then evaluates a part:
            the errors are those of all structures, and what they are computed from is each one's part.

    Raises:
        ValueError: If the data set is empty.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one structure, got 0")
    whole = dataset
    if shared:
        dataset = cast(InMemoryDataset, dataset[distributed.get_rank() :: distributed.get_world_size()])
    device = potential.atomref.device
    metrics = {name: [_sum_of(make, shared, device) for make in _METRICS] for name in _MEASURED}
    parts: list[dict[str, Tensor]] = []
    with in_evaluation_mode(potential):
        for batch in _batches(dataset, potential, batch_size, batch_edges):
            batch = batch.to(device)
            with describe_out_of_memory(partial(_too_large, batch, _cutoff(potential))), torch.no_grad():
                out = potential(batch, **labelled(batch))
            pairs = _pairs(out, batch)
            for name, pair in pairs.items():
                label, prediction = pair.contiguous()
                for metric in metrics[name]:
                    metric.update(prediction, label)
            deviations = {name: out[name].double() for name in _DEVIATIONS if name in out}
            parts.append({**pairs, **deviations, "z": batch.z, "sizes": batch.ptr.diff()})
    found = _found(parts, shared, device)
    errors = {
        f"{name}_{kind}": float(metric.compute()) if there else None
        for name, there in found.items()
        for kind, metric in zip(("mae", "rmse"), metrics[name], strict=True)
    }
    columns = {
        name: torch.cat([part[name] for part in parts if name in part], dim=1 if name in metrics else 0).cpu()
        for name in dict.fromkeys(name for part in parts for name in part)
    }
    columns = {"energy": torch.empty(2, 0), "z": torch.empty(0, dtype=torch.long), **columns}
    return Evaluation(
        len(whole),
        **errors,  # pyright: ignore[reportArgumentType] - energies always have errors
        energy=columns["energy"],
        forces=columns.get("forces"),
        stress=columns.get("stress"),
        z=columns["z"],
        sizes=columns["sizes"],
        energy_deviation=columns.get("energy_deviation"),
        forces_deviation=columns.get("forces_deviation"),
        potentials=len(potential.potentials) if isinstance(potential, Ensemble) else 1,
    )


def _pairs(out: dict[str, Tensor], batch: Data) -> dict[str, Tensor]:
    """Put labels and predictions side by side, ``(2, …)``."""
    pairs = {"energy": torch.stack([batch.energy, out["energy"]])}
    if "forces" in out:
        pairs["forces"] = torch.stack([batch.forces, out["forces"].double()])
    if "stress" in out:
        both = torch.stack([batch.stress, out["stress"]])
        periodic = out["stress"][:, 0, 0].isfinite()  # molecules have none
        pairs["stress"] = both[:, periodic]
        pairs["virial"] = torch.stack([virial_per_atom(stress, batch) for stress in both])[:, periodic]
    return pairs


def _batches(
    dataset: InMemoryDataset, potential: Potential | Ensemble, batch_size: int, batch_edges: int | None
) -> Iterable[Data]:
    if len(dataset) == 0:  # this process's part
        return ()
    # A generator of its own: loaders draw from one even if they do not shuffle.
    if batch_edges is None:
        bounds = bound_edges(dataset, _cutoff(potential))
        batches = [] if bounds is None else list(torch.arange(len(dataset)).split(batch_size))
        parts = [part for ids in batches for part in split_by_edges(ids, cast(Tensor, bounds))]
        if len(parts) == len(batches):
            return DataLoader(dataset, batch_size, generator=torch.Generator())
        return DataLoader(
            dataset, batch_sampler=[part.tolist() for part in parts], generator=torch.Generator()
        )
    edges = count_edges(dataset, potential.cutoff)
    sampler = EdgeBudgetSampler(edges, batch_edges, shuffle=False)
    return DataLoader(dataset, batch_sampler=sampler, generator=torch.Generator())


def _cutoff(potential: Potential | Ensemble) -> float:
    return getattr(potential, "cutoff", math.inf)  # of others it is not known


def _too_large(batch: Data, cutoff: float) -> str:
    sizes = batch.ptr.diff()
    largest = int(sizes.argmax())
    named = f"structure {int(batch.idx[largest])}" if "idx" in batch else f"structure {largest} of a batch"
    return f"{named}: {too_large_reason(int(sizes[largest]), cutoff)}"


def _found(parts: list[dict[str, Tensor]], shared: bool, device: torch.device) -> dict[str, bool]:
    """Tell what was compared, in any process."""
    found = torch.tensor([any(name in part for part in parts) for name in _MEASURED], dtype=torch.uint8)
    found = found.to(device)
    if shared:
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return dict(zip(_MEASURED, found.bool().tolist(), strict=True))


def _sum_of(make: Callable[..., Metric], shared: bool, device: torch.device) -> Metric:
    """Make a metric that counts nothing yet; of several processes, ``compute`` gives that of all."""
    metric = make(sync_on_compute=shared).set_dtype(torch.float64).to(device)
    metric.update(torch.empty(0, device=device), torch.empty(0, device=device))
    return metric


_DEVIATIONS = ("energy_deviation", "forces_deviation")
_MEASURED = ("energy", "forces", "stress", "virial")
_METRICS = (MeanAbsoluteError, partial(MeanSquaredError, squared=False))
