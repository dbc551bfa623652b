"""What energies, distances and forces tell of the units that they were published in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pyg_schnet.datasets.report.bond_lengths import Bonding
from pyg_schnet.datasets.report.force_energy import Work
from pyg_schnet.datasets.report.free_atoms import likely_unit
from pyg_schnet.io.units import ENERGY, Units

_STIFFNESS = 3.0  # times stiffer or softer than usual; 0.8 to 1.1 in MD17, and units differ by 4.184 and more
_CORRELATION, _HIGH = 0.8, 0.9  # of energy difference and work
_WORK = 1.6  # 0.92 to 1.03 in MD17; a Bohr makes 1.89 of it
# How far units may miss what is measured, as logarithms of factors.
_BOND, _SOFTER, _SLOPE, _ATOMS = 0.35, 0.7, 0.25, 0.05
_FORCES = ("Hartree/Bohr", "eV/Å", "kcal/mol/Å", "Hartree/Å")


@dataclass(frozen=True)
class Evidence:
    """What is known of a set that was read in some units.

    Attributes:
        units: In which it was read.
        atoms: Energies over those of the free atoms, if these are known.
        bonding: Distances of nearest neighbors, and the stiffness of their bonds.
        work: Energy differences over the work of the forces, if that is known.
    """

    units: Units
    atoms: float | None
    bonding: Bonding
    work: Work | None

    def doubt(self) -> str | None:
        """Return in a sentence why the units cannot be right, and which may be; ``None`` if they can."""
        likely = min(_candidates(self.units), key=self._misfit)
        fits = self._misfit(likely) < math.inf
        reasons = list(self._reasons(fits))
        if not reasons:
            return None
        text = "; ".join(reasons)
        advice = f'give the units, "{likely}"' if fits else "check the units"
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
                f"energies and forces do not belong together: between {self.work.pairs:,} pairs of near "
                f"structures the energy changes by {slope:.3g} times the work of the forces"
            )
        if length is not None and not self.bonding.is_possible:
            yield (
                f"atoms are {length:.2f} times as far from their nearest neighbors as covalent radii add up "
                "to, which no bond is"
            )
        if is_stiff:
            yield (f"bonds to hydrogen are {stiffness:.2g} times as stiff as usual, by the forces along them")

    def _slope(self) -> float | None:
        """Return energy differences over work, where they belong together, errors of both allowed for."""
        if self.work is None or self.work.correlation < _CORRELATION:
            return None
        return self.work.factor / self.work.correlation

    def _misfit(self, units: Units) -> float:
        """Tell how far what is known is from what it would be in other units; infinite if too far."""
        energy = units.energy_in_eV / self.units.energy_in_eV
        length = units.length_in_angstrom / self.units.length_in_angstrom
        force = units.forces_in_eV_per_angstrom / self.units.forces_in_eV_per_angstrom
        slope, known = self._slope(), []
        if self.bonding.length is not None:
            known.append((self.bonding.length * length, _BOND))
        if self.bonding.stiffness is not None:
            known.append((self.bonding.stiffness * force / length, _SOFTER))
        if slope is not None:
            known.append((slope * energy / (force * length), _SLOPE))
        misfit = sum((math.log(value) / scale) ** 2 for value, scale in known)
        if any(abs(math.log(value)) > scale for value, scale in known):
            return math.inf
        if self.atoms is not None and self.atoms > 0 and abs(math.log(self.atoms * energy)) < _ATOMS:
            misfit -= 5  # strong, but only for total energies
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
