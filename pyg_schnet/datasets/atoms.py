"""The user's own data as a PyG data set."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet.datasets.npz import read_npz
from pyg_schnet.loader import collate
from pyg_schnet.units import Units


class AtomsDataset(InMemoryDataset):
    """Structures with energies and forces from a file, in eV and Å.

    Each item is a :class:`~torch_geometric.data.Data` with ``z (atoms,)``, ``pos (atoms, 3)`` in Å,
    ``energy (1,)`` in eV and ``forces (atoms, 3)`` in eV/Å, both float64, and ``idx (1,)``,
    the number of the frame in the file, from 0.

    Args:
        path: An npz file with the keys of MD17 or revised MD17, see :func:`~pyg_schnet.datasets.read_npz`.
        energy_key: Which energies; the file's own by default.
        forces_key: Which forces; the file's own by default, ``"none"`` for none.
        units: As ``"kcal/mol"`` or ``"Hartree, Bohr"``; those of the layout by default.
        transform: Applied to each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        dtype: Of the positions; PyTorch's own by default. Labels are always float64.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold what is asked for; the message says which key and why.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        energy_key: str | None = None,
        forces_key: str | None = None,
        units: str | None = None,
        transform: Callable | None = None,
        *,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(None, transform)
        trajectory = read_npz(path, energy_key, forces_key, Units.parse(units) if units is not None else None)
        self.path = os.fspath(path)
        self.units = trajectory.units
        frames, atoms, _ = trajectory.positions.shape
        fields = {
            "z": torch.from_numpy(trajectory.numbers).repeat(frames),
            "pos": torch.from_numpy(trajectory.positions).to(dtype or torch.get_default_dtype()).view(-1, 3),
            "energy": torch.from_numpy(trajectory.energy),
            "idx": torch.arange(frames),
        }
        if trajectory.forces is not None:
            fields["forces"] = torch.from_numpy(trajectory.forces).view(-1, 3)
        self.data = Data(**fields)
        per_molecule = torch.arange(frames + 1)
        self.slices = {
            key: per_molecule if key in ("energy", "idx") else per_molecule * atoms for key in fields
        }

    @property
    def has_forces(self) -> bool:
        """Whether the file has forces."""
        return "forces" in (self.slices or {})

    def atomref(self) -> Tensor:
        """Fit atomic references, in eV by atomic number, shape ``(100,)``, float64.

        The minimum-norm least-squares fit of the energies by the composition. For one molecule it shares
        the mean energy among the atoms; an isolated atom's energy is another thing.
        """
        counts, energy = self._compositions()
        solution = torch.linalg.lstsq(counts, energy, driver="gelsd").solution
        return solution * (counts.sum(0) > 0)  # exactly zero for absent elements

    def scale(self) -> float:
        """Compute the unit of a network's output: the RMS of the forces, in eV/Å, as a number.

        Without forces, the standard deviation of the energy per atom relative to :meth:`atomref`, in eV.
        A set without any spread has 1.
        """
        counts, energy = self._compositions()
        if self.has_forces:
            spread = float(self._whole().forces.square().mean().sqrt())
        else:
            residual = (energy - counts @ self.atomref()) / counts.sum(1)
            spread = float(residual.square().mean().sqrt())
        return spread if spread > 1e-12 else 1.0

    def elements(self) -> list[int]:
        """Atomic numbers that occur, sorted."""
        return self._compositions()[0].sum(0).nonzero().flatten().tolist()

    def _whole(self) -> Data:
        return collate(self, range(len(self)))

    def _compositions(self) -> tuple[Tensor, Tensor]:
        batch = self._whole()
        counts = torch.zeros(len(self), 100, dtype=torch.float64)
        counts.index_put_((batch.batch, batch.z), torch.ones(1, dtype=torch.float64), accumulate=True)
        return counts, batch.energy
