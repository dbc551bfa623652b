"""Evidence for the units of a data set, from energies, distances and forces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_schnet.datasets.report.bond_lengths import Bonding
from pyg_schnet.datasets.report.force_energy import ForceEnergyConsistency
from pyg_schnet.io.units import ENERGY, Hartree, Units

_STIFFNESS = 3.0  # times stiffer or softer than usual; 0.8 to 1.1 in MD17, and units differ by 4.184 and more
_CORRELATION, _HIGH = 0.8, 0.9  # correlation of energy difference and work
_WORK = 1.6  # 0.92 to 1.03 in MD17; lengths in Bohr make it 1.89
# Largest deviations of units from the measured values, as logarithms of factors.
_BOND, _SOFTER, _SLOPE, _ATOMS = 0.35, 0.7, 0.25, 0.05
_FORCES = ("Hartree/Bohr", "eV/Å", "kcal/mol/Å", "Hartree/Å")
# Hartree; numerical Hartree-Fock, ground states: Bunge, Barrientos, Bunge and Cogordan, Phys. Rev. A 46, 3691
# (1992). Density functionals differ by less than 1 % (2 % for H and He). Recomputed (unrestricted,
# def2-QZVP): they agree to 2e-4.
_FREE_ATOMS = (
    *(-0.5, -2.861680),
    *(-7.432727, -14.573023, -24.529061, -37.688619, -54.400934, -74.809398, -99.409349, -128.547098),
    *(-161.858912, -199.614636, -241.876707, -288.854363, -340.718781, -397.504896, -459.482072, -526.817513),
    *(-599.164787, -676.758186, -759.735718, -848.405997, -942.884338, -1043.356377, -1149.866252),
    *(-1262.443665, -1381.414553, -1506.870908, -1638.963742, -1777.848116, -1923.261010, -2075.359734),
    *(-2234.238655, -2399.867612, -2572.441333, -2752.054977),
)
_TOTAL_UNITS = ("Hartree", "eV", "kcal/mol", "kJ/mol")
_TOTAL_TOLERANCE = 0.05  # bonds and functionals change total energies by less, with few exceptions such as H2


@dataclass(frozen=True)
class Evidence:
    """Quantities of a data set that depend on the units in which it was read.

    Attributes:
        units: Units in which it was read.
        atoms: Ratio of energies to those of the free atoms; ``None`` if unknown.
        bonding: Distances of nearest neighbors, and stiffness of their bonds.
        work: Ratio of energy differences to the work of the forces; ``None`` if unknown.
    """

    units: Units
    atoms: float | None
    bonding: Bonding
    work: ForceEnergyConsistency | None

    def warning(self) -> str | None:
        """Return a sentence on why the units are wrong, with likely ones; ``None`` if they may be right."""
        likely = min(_candidates(self.units), key=self._misfit)
        fits = self._misfit(likely) < math.inf
        reasons = list(self._reasons(fits))
        if not reasons:
            return None
        text = "; ".join(reasons)
        advice = f'pass the units, "{likely}"' if fits else "check the units"
        return f"{text[0].upper()}{text[1:]}; {advice}."

    def _reasons(self, fits: bool) -> Iterator[str]:
        slope, stiffness, length = self._slope(), self.bonding.stiffness, self.bonding.length
        is_stiff = stiffness is not None and not 1 / _STIFFNESS < stiffness < _STIFFNESS
        does_work = slope is None or 1 / _WORK < slope < _WORK
        unit = None
        if self.atoms is not None and self.units.energy in ENERGY:
            unit = likely_unit(self.atoms, self.units.energy)
        confirmed = stiffness is not None and not is_stiff and slope is not None and does_work
        if unit is not None and not confirmed:
            yield (
                f"energies look like {unit}, but were read as {self.units.energy}: they are "
                f"{self.atoms:.3g} times those of the free atoms"
            )
        if self.work is not None and self.work.correlation > _HIGH and not does_work and fits:
            yield (
                f"energies and forces are inconsistent: between {self.work.pairs:,} pairs of similar "
                f"structures the energy changes by {slope:.3g} times the work of the forces"
            )
        if length is not None and not self.bonding.is_possible:
            yield (
                f"distances to nearest neighbors are {length:.2f} times the sum of the covalent radii, which "
                "no bond is"
            )
        if is_stiff:
            yield f"bonds to hydrogen are {stiffness:.2g} times as stiff as usual, by the forces along them"

    def _slope(self) -> float | None:
        """Return the slope of energy differences over work with errors in both; ``None`` if uncorrelated."""
        if self.work is None or self.work.correlation < _CORRELATION:
            return None
        return self.work.factor / self.work.correlation

    def _misfit(self, units: Units) -> float:
        """Return the deviation from typical values in other units, infinite if too large."""
        energy = units.energy_in_eV / self.units.energy_in_eV
        length = units.length_in_angstrom / self.units.length_in_angstrom
        force = units.forces_in_eV_per_angstrom / self.units.forces_in_eV_per_angstrom
        slope, evidence = self._slope(), []
        if self.bonding.length is not None:
            evidence.append((self.bonding.length * length, _BOND))
        if self.bonding.stiffness is not None:
            evidence.append((self.bonding.stiffness * force / length, _SOFTER))
        if slope is not None:
            evidence.append((slope * energy / (force * length), _SLOPE))
        misfit = sum((math.log(value) / scale) ** 2 for value, scale in evidence)
        if any(abs(math.log(value)) > scale for value, scale in evidence):
            return math.inf
        if self.atoms is not None and self.atoms > 0 and abs(math.log(self.atoms * energy)) < _ATOMS:
            misfit -= 5  # strong evidence, but only for total energies
        misfit += (
            1 * (units.forces is not None) + 0.5 * (units.energy == "Rydberg") + 0.5 * (units.length == "nm")
        )
        return misfit + 0.2 * (units.energy != ("Hartree" if units.length == "Bohr" else self.units.energy))


def _candidates(read: Units) -> Iterator[Units]:
    for energy in ("Hartree", "eV", "kcal/mol", "kJ/mol", "Rydberg"):
        for length in ("Å", "Bohr", "nm"):
            yield Units(energy, length)
            yield from (Units(energy, length, forces) for forces in _FORCES)
    yield read


def ratio_to_free_atoms(counts: Tensor, composition: Tensor, energy: Tensor) -> float | None:
    """Return the median ratio of energies to those of the free atoms, with all electrons.

    Args:
        counts: Number of atoms by composition and atomic number, shape ``(compositions, elements)``.
        composition: Index of the composition of each structure, shape ``(structures,)``.
        energy: Energy of each structure in eV, shape ``(structures,)``.

    Returns:
        Median ratio, near 1 for total energies of an all-electron method; ``None`` if an element is
        beyond krypton.
    """
    known = len(_FREE_ATOMS) + 1
    if bool((counts[:, known:].sum() > 0) | (counts[:, 0].sum() > 0)):
        return None
    atoms = counts[:, 1:known].double() @ torch.tensor(_FREE_ATOMS, dtype=torch.float64)
    return float((energy / (Hartree * atoms)[composition]).median())


def likely_unit(ratio: float, read_as: str) -> str | None:
    """Return another unit in which the energies would be total energies.

    Args:
        ratio: Ratio of :func:`ratio_to_free_atoms`.
        read_as: Unit in which they were read, a key of ``ENERGY``.

    Returns:
        ``"Hartree"``, ``"eV"``, ``"kcal/mol"`` or ``"kJ/mol"``; ``None`` if none fits within 5 %, or
        ``read_as`` does.
    """
    for unit in (read_as, *_TOTAL_UNITS):
        if abs(ratio * ENERGY[unit] / ENERGY[read_as] - 1) <= _TOTAL_TOLERANCE:
            return None if unit == read_as else unit
    return None
