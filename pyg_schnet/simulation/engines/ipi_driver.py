"""i-PI: a potential as a driver, which computes all beads of a path integral in one call.

i-PI loads this file as its custom driver: ``i-pi-py_driver -m custom -P …/ipi_driver.py``, or ``pes_path``.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read

from pyg_schnet.simulation.calculator import Model
from pyg_schnet.simulation.engines.evaluator import Evaluator
from pyg_schnet.simulation.structures import check_all_or_none_periodic

__DRIVER_NAME__, __DRIVER_CLASS__ = "schnet", "IpiDriver"  # read by i-PI


class IpiDriver:
    """Driver of i-PI, which computes in atomic units: energies and virials in Hartree, lengths in Bohr.

    Args:
        model: Path of a checkpoint or of a run, name of a pretrained model, or a potential or an ensemble.
        template: File that ASE reads, or ``Atoms``, with the elements in i-PI's order and the periodicity;
            positions and lattice vectors come from i-PI.
        device: Device of the computation; the CPU by default.
        skin: Distance in Å beyond the cutoff up to which neighbors of periodic systems are listed.
        verbosity, verbose: Of i-PI, ignored.

    Raises:
        ValueError: If the template is empty, or only some directions are periodic.
    """

    def __init__(
        self,
        model: Model,
        template: str | os.PathLike | Atoms,
        device: str | None = None,
        skin: float = 0.75,
        verbosity: Any = None,
        verbose: Any = None,
    ):
        atoms = template if isinstance(template, Atoms) else read(os.fspath(template))
        assert isinstance(atoms, Atoms)
        check_all_or_none_periodic(atoms, "i-PI")
        self.is_periodic = bool(atoms.pbc.all())
        self.evaluator = Evaluator(model, device, skin=skin)
        self._z = torch.tensor(atoms.numbers, device=self.evaluator.potential.scale.device)

    def __call__(self, cell: Any, pos: Any) -> Any:
        """Compute one structure, or those of lists; called by i-PI.

        Args:
            cell: Lattice vectors in columns, in Bohr, ``(3, 3)``.
            pos: Positions in Bohr, ``(atoms, 3)``.

        Returns:
            Energy in Hartree; forces in Hartree/Bohr, ``(atoms, 3)``; virial in Hartree, ``(3, 3)``,
            minus the stress times the volume, zero for molecules; an empty text. For lists, a list of these.

        Raises:
            ValueError: If the number of atoms is not the template's, or as the potential's.
        """
        if isinstance(cell, np.ndarray):
            return self._compute(cell[None], pos[None])[0]
        return self._compute(np.stack(cell), np.stack(pos))

    def _compute(self, cells: np.ndarray, positions: np.ndarray) -> list[tuple]:
        structures, atoms, _ = positions.shape
        if atoms != len(self._z):
            raise ValueError(
                f"`template` must have the {atoms} atoms of i-PI's simulation, got {len(self._z)}; write it "
                "from the same structure"
            )
        device = self._z.device
        pos = torch.tensor(positions.reshape(-1, 3) * units.Bohr, device=device)
        rows = torch.tensor(cells * units.Bohr, device=device).mT
        batch = torch.arange(structures, device=device).repeat_interleave(atoms)
        pbc = torch.full((structures, 3), self.is_periodic, device=device)
        out = self.evaluator(
            self._z.repeat(structures), pos, batch, structures, rows, pbc, stress=self.is_periodic
        )
        energy = out["energy"].cpu().numpy() / units.Hartree
        forces = out["forces"].double().cpu().numpy().reshape(positions.shape) * (units.Bohr / units.Hartree)
        virial = np.zeros((structures, 3, 3))
        if self.is_periodic:
            volume = rows.det().abs()[:, None, None]
            virial = (-out["stress"] * volume).double().cpu().numpy() / units.Hartree
        return [(energy[k], forces[k], virial[k], "") for k in range(structures)]
