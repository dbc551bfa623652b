"""Strain: the homogeneous deformation by which the derivative of the energy is the stress."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_cell
from pyg_schnet.kernels import on_accelerator


class Strain:
    r"""A strain of zero, as a variable of the energy of models that find their own pairs.

    .. math::
        \mathbf r_i \to \mathbf r_i (1 + \varepsilon), \qquad \mathbf a_k \to \mathbf a_k (1 + \varepsilon),
        \qquad \sigma = \frac1V \frac{\partial E}{\partial \varepsilon}, \qquad \varepsilon = 0

    Args:
        data: Systems with ``cell``, and ``pbc`` that is true for some direction of some system.
        num_molecules: Number of systems.

    Attributes:
        strain: Zeros, ``(molecules, 3, 3)``, a leaf.

    Raises:
        ValueError: If no system has a stress.

    Source:
        Nielsen and Martin, Phys. Rev. B 32, 3780 (1985).
    """

    def __init__(self, data: Data, num_molecules: int):
        self._volume = volumes(getattr(data, "cell", None), getattr(data, "pbc", None), num_molecules)
        self._cell = cast(Tensor, data.cell).reshape(-1, 3, 3).expand(num_molecules, 3, 3)
        self.strain = torch.zeros_like(self._cell, requires_grad=True, memory_format=torch.contiguous_format)

    def deform(self, data: Data, pos: Tensor) -> tuple[Data, Tensor]:
        """Return the systems and their positions as functions of the strain."""
        symmetric = (self.strain + self.strain.mT) / 2  # a rotation costs no energy
        batch = getattr(data, "batch", None)
        own = symmetric[0] if batch is None else symmetric.index_select(0, batch)
        data = copy(data)
        deformed, given = self._cell + self._cell @ symmetric, cast(Tensor, data.cell)
        data.cell = deformed.view(given.shape) if given.numel() == deformed.numel() else deformed
        if batch is None:
            return data, pos + pos @ own.to(pos.dtype)
        return data, pos + (pos[:, None] @ own.to(pos.dtype)).squeeze(1)

    def stress(self, gradient: Tensor) -> Tensor:
        """Compute stresses in eV/Å³, float64, from the derivative of the energies by the strain, in eV."""
        return stress_of_virial(gradient, self._volume)


def volumes(
    cell: Tensor | None,
    pbc: Tensor | Sequence[bool] | bool | None,
    num_molecules: int,
    checked: bool = False,
) -> Tensor:
    """Compute the volumes that stresses refer to, in Å³.

    Args:
        cell: Lattice vectors in rows, in Å, of each molecule or of all.
        pbc: Whether each lattice vector is periodic.
        num_molecules: Number of molecules.
        checked: Whether some molecule is known to have a volume, so that nothing is read by the host.

    Returns:
        ``(molecules,)``, float64; NaN for molecules that are not periodic or whose cell has no volume.

    Raises:
        ValueError: If no molecule has a volume.
    """
    flags = pbc if isinstance(pbc, Tensor) else torch.as_tensor(False if pbc is None else pbc)
    if cell is None or not (checked or bool(flags.any())):
        raise ValueError(
            "`stress` needs a periodic system, with `cell` in Å and `pbc`; molecules have none: leave it out"
        )
    if not checked:
        check_cell(cell)
    lattice = cell.detach().double().reshape(-1, 3, 3).expand(num_molecules, 3, 3)
    flags = flags if flags.device == lattice.device else flags.to(lattice.device)
    periodic = flags.reshape(-1, 3 if flags.dim() else 1).any(dim=1)
    volume = cell_volume(lattice)
    known = periodic & (volume > 0)
    if not checked and not bool(known.any()):
        raise ValueError(
            f"`stress` needs a cell with a volume, got {lattice[0].tolist()}; set a lattice vector "
            "of open directions too, which defines the volume that the stress refers to"
        )
    return torch.where(known, volume, torch.nan)


def cell_volume(lattice: Tensor) -> Tensor:
    """Compute the volumes of cells, ``(cells, 3, 3)``, in Å³, ``(cells,)``."""
    if not on_accelerator(lattice):
        return lattice.det().abs()
    a, b, c = lattice.unbind(1)  # a determinant of a batch needs a dozen launches
    return (a * torch.linalg.cross(b, c)).sum(1).abs()


def stress_of_virial(virial: Tensor, volume: Tensor) -> Tensor:
    """Compute stresses in eV/Å³, float64, from derivatives by strain in eV and volumes in Å³.

    A molecule whose volume is NaN has a stress of NaN without gradient.
    """
    known = volume.isfinite()[:, None, None]  # a NaN in the quotient would make gradients NaN
    return torch.where(known, virial.double() / torch.where(known, volume[:, None, None], 1.0), torch.nan)


def virial_per_atom(stress: Tensor, data: Data) -> Tensor:
    """Convert stresses, ``(molecules, 3, 3)`` in eV/Å³, to energies per atom in eV, which losses compare."""
    atoms = (
        cast(Tensor, data.ptr).diff() if "ptr" in data else torch.tensor([len(data.z)], device=stress.device)
    )
    volume = cell_volume(data.cell.double().reshape(-1, 3, 3))
    return stress * (volume / atoms)[:, None, None]
