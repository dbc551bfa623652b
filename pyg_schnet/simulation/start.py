"""The start of a simulation: what no simulation can begin with."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.transforms.ase_atoms import from_ase

_OVERLAP = 0.1  # Å; a mistake of the file, whatever the calculator: the shortest bond, of H2, has 0.74


def check_start(atoms: Atoms) -> None:
    """Refuse a structure whose numbers cannot be meant, whatever the calculator.

    Raises:
        ValueError: If positions, momenta or masses are not finite, the cell is singular, left-handed or
            absent where it is periodic, or atoms overlap.
    """
    for name, values in (("positions", atoms.positions), ("momenta", atoms.get_momenta())):
        wrong = ~np.isfinite(values).all(axis=1)
        if wrong.any():
            atom = int(wrong.argmax())
            raise ValueError(
                f"`atoms` must have finite {name}, got {values[atom].tolist()} of atom {atom}; set them anew"
            )
    masses = atoms.get_masses()
    if not (masses > 0).all():
        atom = int((~(masses > 0)).argmax())
        raise ValueError(f"`atoms` must have positive masses, got {masses[atom]} of atom {atom}")
    data = from_ase(atoms)  # which refuses a periodic direction without a lattice vector
    if atoms.pbc.all() and np.linalg.det(atoms.cell.array) < 0:
        raise ValueError(
            f"`atoms.cell` must be right-handed, got {atoms.cell.array.tolist()}; exchange two of its "
            "vectors by ase.build.make_supercell(atoms, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])"
        )
    assert data.pos is not None
    (source, target), _ = neighbor_list(data.pos, _OVERLAP, None, data.get("cell"), data.get("pbc"))
    if len(source):
        raise ValueError(
            f"`atoms` must not overlap, got atoms {int(target[0])} and {int(source[0])} closer than "
            f"{_OVERLAP} Å; check positions and cell"
        )
