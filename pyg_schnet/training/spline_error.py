"""What splines of filters change in a trained potential, in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.loader import DataLoader
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials.potential import Potential

ENERGY_BOUND = 1e-6  # of the energies' standard deviation
FORCES_BOUND = 1e-5  # of the forces' root mean square


@dataclass(frozen=True)
class SplineError:
    """Largest changes, relative to how much the predictions vary.

    Attributes:
        energy: Of an energy, in units of the standard deviation of the energies relative to the atomic
            references, without which different compositions would hide any change.
        forces: Of a component of a force, in units of the forces' root mean square.
    """

    energy: float
    forces: float

    def report(self) -> str:
        """Say it in one line."""
        text = (
            f"Splines of the filters change energies by {self.energy:.0e} of their spread and forces by "
            f"{self.forces:.0e} of their RMS at most (float64)"
        )
        if self.energy <= ENERGY_BOUND and self.forces <= FORCES_BOUND:
            return f"{text}."
        return f"{text}: more than {ENERGY_BOUND:.0e} and {FORCES_BOUND:.0e}; train with model.filters=exact."


def spline_error(potential: Potential, dataset: InMemoryDataset, batch_size: int = 32) -> SplineError | None:
    """Compare a potential with splines to itself with exact filters, both in float64.

    Args:
        potential: Any; it is not changed.
        dataset: Structures like those it is used for.
        batch_size: Structures at once.

    Returns:
        ``None`` for models without splines.
    """
    if not isinstance(potential.model, SchNet) or potential.model.filters == "exact" or len(dataset) < 2:
        return None
    own = copy.deepcopy(potential).double().eval()
    own.compiled = None
    found: dict[str, list[dict[str, Tensor]]] = {"exact": [], "spline": []}
    references: list[Tensor] = []
    for batch in DataLoader(dataset, batch_size, generator=torch.Generator()):
        batch.pos = batch.pos.double()
        for filters, results in found.items():
            own.model.filters = filters  # pyright: ignore[reportArgumentType]
            results.append(own(batch.to(own.scale.device)))
        none = torch.zeros(batch.num_graphs, dtype=torch.float64, device=own.scale.device)
        references.append(own.scaled(none, batch.z, batch.batch, batch.num_graphs))
    exact, spline = (
        {name: torch.cat([result[name] for result in results]) for name in ("energy", "forces")}
        for results in found.values()
    )
    energy = (spline["energy"] - exact["energy"]).abs().max() / (
        exact["energy"] - torch.cat(references)
    ).std()
    forces = (spline["forces"] - exact["forces"]).abs().max() / exact["forces"].square().mean().sqrt()
    return SplineError(float(energy), float(forces))
