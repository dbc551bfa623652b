"""Energies of free atoms, to tell by which unit total energies were published in."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.io.units import ENERGY, Hartree

# Hartree; numerical Hartree-Fock, ground states: Bunge, Barrientos, Bunge and Cogordan, Phys. Rev. A 46, 3691
# (1992). Density functionals differ by less than 1 % (2 % for H and He). We computed them all again
# (unrestricted, def2-QZVP) and found the same to 2e-4.
_ATOMS = (
    *(-0.5, -2.861680),
    *(-7.432727, -14.573023, -24.529061, -37.688619, -54.400934, -74.809398, -99.409349, -128.547098),
    *(-161.858912, -199.614636, -241.876707, -288.854363, -340.718781, -397.504896, -459.482072, -526.817513),
    *(-599.164787, -676.758186, -759.735718, -848.405997, -942.884338, -1043.356377, -1149.866252),
    *(-1262.443665, -1381.414553, -1506.870908, -1638.963742, -1777.848116, -1923.261010, -2075.359734),
    *(-2234.238655, -2399.867612, -2572.441333, -2752.054977),
)
_UNITS = ("Hartree", "eV", "kcal/mol", "kJ/mol")
_TOLERANCE = 0.05  # bonds and functionals change total energies by less, with few exceptions such as H2


def ratio_to_free_atoms(counts: Tensor, composition: Tensor, energy: Tensor) -> float | None:
    """Divide energies by those of the free atoms, all electrons counted.

    Args:
        counts: Atoms of each element in the compositions, shape ``(compositions, elements)``, from 0.
        composition: Of each structure, shape ``(structures,)``.
        energy: Of each structure, in eV, shape ``(structures,)``.

    Returns:
        The median; near 1 for total energies of an all-electron method. ``None`` where an element is
        beyond krypton.
    """
    known = len(_ATOMS) + 1
    if bool((counts[:, known:].sum() > 0) | (counts[:, 0].sum() > 0)):
        return None
    atoms = counts[:, 1:known].double() @ torch.tensor(_ATOMS, dtype=torch.float64)
    return float((energy / (Hartree * atoms)[composition]).median())


def likely_unit(ratio: float, read_as: str) -> str | None:
    """Name another unit in which the energies would be total energies.

    Args:
        ratio: See :func:`ratio_to_free_atoms`.
        read_as: The unit that was taken for theirs, a key of ``ENERGY``.

    Returns:
        ``"Hartree"``, ``"eV"``, ``"kcal/mol"`` or ``"kJ/mol"``; ``None`` if none fits within 5 %, or the
        one that was taken does.
    """
    for unit in (read_as, *_UNITS):
        if abs(ratio * ENERGY[unit] / ENERGY[read_as] - 1) <= _TOLERANCE:
            return None if unit == read_as else unit
    return None
