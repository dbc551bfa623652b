"""Errors of a potential on labelled structures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from pyg_schnet.ensemble import Ensemble
from pyg_schnet.loader import DataLoader, collate
from pyg_schnet.potential import Potential
from pyg_schnet.units import kcal_per_mol


@dataclass(frozen=True)
class Evaluation:
    """Errors over all structures, and what they are computed from.

    Energies are errors per molecule, in eV; forces are errors over all atoms and components, in eV/Å.

    Attributes:
        n: Number of structures.
        energy_mae: Mean absolute error of the energies.
        energy_rmse: Root mean square error of the energies.
        forces_mae: Mean absolute error of the forces; ``None`` where there are no labels.
        forces_rmse: Root mean square error of the forces.
        energy: Labels and predictions, shape ``(2, structures)``.
        forces: Labels and predictions, shape ``(2, atoms, 3)``.
        z: Atomic numbers, shape ``(atoms,)``.
    """

    n: int
    energy_mae: float
    energy_rmse: float
    forces_mae: float | None
    forces_rmse: float | None
    energy: Tensor
    forces: Tensor | None
    z: Tensor

    def as_dict(self) -> dict[str, float | int]:
        """Give the errors in eV and eV/Å and, with the suffix ``_kcal``, in kcal/mol and kcal/mol/Å."""
        errors = {
            name: getattr(self, name)
            for name in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")
            if getattr(self, name) is not None
        }
        in_kcal = {f"{name}_kcal": value / kcal_per_mol for name, value in errors.items()}
        return {"n": self.n, **errors, **in_kcal}


def evaluate(potential: Potential | Ensemble, dataset: InMemoryDataset, batch_size: int = 32) -> Evaluation:
    """Compare predictions with the labels of a data set.

    Args:
        potential: One or an ensemble, in any mode; it is evaluated in evaluation mode and handed back as it
            was.
        dataset: With ``energy`` in eV and, if there are any, ``forces`` in eV/Å.
        batch_size: Molecules at once.

    Raises:
        ValueError: If the data set is empty.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one structure, got 0")
    device = potential.atomref.device
    has_forces = "forces" in collate(dataset, [0])
    metrics = [make().set_dtype(torch.float64).to(device) for make in _METRICS * (1 + has_forces)]
    parts: list[tuple[Tensor, ...]] = []
    training = potential.training
    potential.eval()
    try:
        # A generator of its own: loaders draw from one even if they do not shuffle.
        for batch in DataLoader(dataset, batch_size, generator=torch.Generator()):
            batch = batch.to(device)
            with torch.no_grad():
                out = potential(batch, forces=has_forces)
            pairs = [(out["energy"], batch.energy)] * 2
            if has_forces:
                pairs += [(out["forces"].double(), batch.forces)] * 2
            for metric, (prediction, label) in zip(metrics, pairs, strict=True):
                metric.update(prediction.contiguous(), label.contiguous())
            parts.append((*pairs[0], *(pairs[2] if has_forces else ()), batch.z))
    finally:
        potential.train(training)
    errors: list[float | None] = [float(metric.compute()) for metric in metrics]
    errors += [None] * (4 - len(errors))
    columns = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
    return Evaluation(
        len(dataset),
        *errors,  # pyright: ignore[reportArgumentType] - energies always have errors
        energy=torch.stack([columns[1], columns[0]]),
        forces=torch.stack([columns[3], columns[2]]) if has_forces else None,
        z=columns[-1],
    )


def _rmse() -> MeanSquaredError:
    return MeanSquaredError(squared=False)


_METRICS = [MeanAbsoluteError, _rmse]
