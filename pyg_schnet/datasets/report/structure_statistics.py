"""Statistics of each structure of a data set, from one pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.datasets.splits import fingerprints
from pyg_schnet.datasets.streaming import stream
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

_FIELDS = ("pos", "energy", "forces", "stress", "cell", "pbc")
_ELEMENTS = 256  # atomic numbers are stored in a byte


@dataclass(frozen=True)
class StructureStatistics:
    """Statistics of each structure, shape ``(structures,)``, float64 unless stated otherwise.

    Attributes:
        atoms: Number of atoms, int64.
        fingerprint: Hash that is equal for duplicates, int64.
        periodic: Whether any direction is periodic, bool.
        energy: Energy in eV; ``None`` without energies.
        forces_squares: Sum of the squares of all force components, in eV²/Å²; ``None`` without forces.
        forces_largest: Magnitude of the largest component, in eV/Å; ``None`` without forces.
        net_force_squares: Squared norm of the net force, in eV²/Å²; ``None`` without forces.
        stress_squares: Sum of the squares of the nine components, in eV²/Å⁶; ``None`` without stress.
        stress_largest: Magnitude of the largest component, in eV/Å³; ``None`` without stress.
        composition: Index of its composition, int64.
        counts: Number of atoms of each element in each composition, shape ``(compositions, 256)``, int64.
    """

    atoms: Tensor
    fingerprint: Tensor
    periodic: Tensor
    composition: Tensor
    counts: Tensor
    energy: Tensor | None = None
    forces_squares: Tensor | None = None
    forces_largest: Tensor | None = None
    net_force_squares: Tensor | None = None
    stress_squares: Tensor | None = None
    stress_largest: Tensor | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    def frequencies(self) -> Tensor:
        """Return the number of structures of each composition, shape ``(compositions,)``, int64."""
        return torch.bincount(self.composition, minlength=len(self.counts))

    def elements(self) -> list[int]:
        """Return the atomic numbers that occur, sorted."""
        return self.counts.sum(0).nonzero().flatten().tolist()

    def relative_energy(self) -> Tensor:
        """Return energies relative to fitted atomic references, in eV per atom, shape ``(structures,)``.

        Raises:
            ValueError: If there are no energies.
        """
        if self.energy is None:
            raise ValueError("`energy` must be among the labels of the data, got none; set `energy_key`")
        frequencies = self.frequencies().double()
        total = torch.zeros_like(frequencies).index_add_(0, self.composition, self.energy)
        counts = self.counts[:, : MAX_ATOMIC_NUMBER + 1].double()
        fitted = References.fit(Compositions(counts, frequencies, total / frequencies)).energy
        return (self.energy - (counts @ fitted)[self.composition]) / self.atoms


def compute_statistics(dataset: MoleculeDataset) -> StructureStatistics:
    """Compute the statistics of a data set.

    Args:
        dataset: Data set with at least one structure; its ``transform`` is not applied.

    Raises:
        ValueError: If the data set is empty.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one structure, got 0")
    parts = [_columns(batch) for _, batch in stream(dataset, _FIELDS)]
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    code, composition = columns.pop("composition_code").unique(return_inverse=True)
    first = torch.full_like(code, len(dataset)).scatter_reduce_(
        0, composition, torch.arange(len(dataset)), "amin"
    )
    counts = torch.cat([_counts(batch) for _, batch in stream(dataset, (), first)])
    return StructureStatistics(**columns, composition=composition, counts=counts)


def _columns(batch: Data) -> dict[str, Tensor]:
    molecule, ptr = cast(Tensor, batch.batch), cast(Tensor, batch.ptr)
    structures = len(ptr) - 1
    columns = {
        "atoms": ptr.diff(),
        "fingerprint": fingerprints(batch),
        "composition_code": torch.zeros(structures, dtype=torch.int64).index_add_(
            0, molecule, _CODES[batch.z]
        ),
        "periodic": batch.pbc.any(1) if "pbc" in batch else torch.zeros(structures, dtype=torch.bool),
    }
    if "energy" in batch:
        columns["energy"] = batch.energy.double()
    if "forces" in batch:
        forces = batch.forces.double()
        net = torch.zeros(structures, 3, dtype=torch.float64).index_add_(0, molecule, forces)
        columns["net_force_squares"] = net.square().sum(1)
        columns["forces_squares"] = torch.zeros(structures, dtype=torch.float64).index_add_(
            0, molecule, forces.square().sum(1)
        )
        columns["forces_largest"] = torch.zeros(structures, dtype=torch.float64).scatter_reduce_(
            0, molecule, forces.abs().amax(1), "amax"
        )
    if "stress" in batch:
        stress = batch.stress.double().flatten(1)
        columns |= {"stress_squares": stress.square().sum(1), "stress_largest": stress.abs().amax(1)}
    return columns


def _counts(batch: Data) -> Tensor:
    structures = len(batch.ptr) - 1
    flat = torch.bincount(cast(Tensor, batch.batch) * _ELEMENTS + batch.z, minlength=structures * _ELEMENTS)
    return flat.view(structures, _ELEMENTS)


# Compositions are distinguished by sums of these; two have the same sum with a probability of 2⁻⁶³.
_CODES = torch.randint(-(2**62), 2**62, (_ELEMENTS,), generator=torch.Generator().manual_seed(0))
