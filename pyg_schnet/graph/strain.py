"""Strain: a homogeneous deformation, whose derivative of the energy is the stress."""

from __future__ import annotations

from copy import copy
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_cell


class Strain:
    r"""The deformation that is none, to differentiate an energy by.

    .. math::
        \mathbf r_i \to \mathbf r_i (1 + \varepsilon), \qquad \mathbf a_k \to \mathbf a_k (1 + \varepsilon),
        \qquad \sigma = \frac1V \frac{\partial E}{\partial \varepsilon}, \qquad \varepsilon = 0

    Args:
        data: Systems with ``cell``, and ``pbc`` that is true for some direction of some system.
        molecules: Their number.

    Attributes:
        strain: Zeros, ``(molecules, 3, 3)``, a leaf.

    Raises:
        ValueError: If no system has a stress.

    Source:
        Nielsen and Martin, Phys. Rev. B 32, 3780 (1985).
    """

    def __init__(self, data: Data, molecules: int):
        self._volume = volumes(data, molecules)
        self._cell = cast(Tensor, data.cell).reshape(-1, 3, 3).expand(molecules, 3, 3)
        self.strain = torch.zeros_like(self._cell, requires_grad=True, memory_format=torch.contiguous_format)

    def deform(self, data: Data, pos: Tensor) -> tuple[Data, Tensor]:
        """Give the same systems and positions, as functions of the strain."""
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
        """Turn the derivative of the energies by the strain, in eV, into stresses in eV/Å³, float64."""
        return per_volume(gradient, self._volume)


def volumes(data: Data, molecules: int) -> Tensor:
    """Give the volumes to which stresses refer, in Å³, ``(molecules,)``; NaN where there is none.

    Raises:
        ValueError: If no system has one.
    """
    cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
    flags = torch.as_tensor(False if pbc is None else pbc)
    if cell is None or not bool(flags.any()):
        raise ValueError(
            "`stress` needs a periodic system, with `cell` in Å and `pbc`; molecules have none: leave it out"
        )
    check_cell(cell)
    lattice = cast(Tensor, cell).detach().double().reshape(-1, 3, 3).expand(molecules, 3, 3)
    periodic = flags.to(lattice.device).reshape(-1, 3 if flags.dim() else 1).any(dim=1)
    volume = lattice.det().abs()
    known = periodic & (volume > 0)
    if not bool(known.any()):
        raise ValueError(
            f"`stress` needs a cell with a volume, got {lattice[0].tolist()}; give open directions a "
            "lattice vector too, which sets the volume that the stress refers to"
        )
    return torch.where(known, volume, torch.nan)


def per_volume(gradient: Tensor, volume: Tensor) -> Tensor:
    """Divide derivatives by strain, in eV, by volumes; a system without volume has NaN, and no gradient."""
    known = volume.isfinite()[:, None, None]  # apart: what is NaN would make gradients NaN
    return torch.where(known, gradient.double() / torch.where(known, volume[:, None, None], 1.0), torch.nan)


def virial_per_atom(stress: Tensor, data: Data) -> Tensor:
    """Turn stresses, ``(molecules, 3, 3)`` in eV/Å³, into energies an atom in eV, which losses compare."""
    atoms = (
        cast(Tensor, data.ptr).diff() if "ptr" in data else torch.tensor([len(data.z)], device=stress.device)
    )
    volume = data.cell.double().reshape(-1, 3, 3).det().abs()
    return stress * (volume / atoms)[:, None, None]
