"""Units: eV and Å inside, conversion factors from what data sets publish.

The kilocalorie is the thermochemical one (4184 J). Avogadro's number and the elementary charge are exact
in the SI of 2019; Hartree and Bohr are CODATA 2018 (https://physics.nist.gov/cuu/Constants).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

_ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
_AVOGADRO = 6.02214076e23  # 1/mol, exact

kJ_per_mol = 1e3 / (_AVOGADRO * _ELEMENTARY_CHARGE)  # eV
kcal_per_mol = 4.184 * kJ_per_mol  # eV
Hartree = 27.211386245988  # eV
Bohr = 0.529177210903  # Å

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": kcal_per_mol,
    "kJ/mol": kJ_per_mol,
    "Hartree": Hartree,
    "mHartree": 1e-3 * Hartree,
    "Rydberg": 0.5 * Hartree,
}
LENGTH = {"Å": 1.0, "Angstrom": 1.0, "nm": 10.0, "Bohr": Bohr}


@dataclass(frozen=True)
class Units:
    """The units of a file, as factors to eV and Å.

    Attributes:
        energy: Name of the unit of energies, a key of ``ENERGY``.
        length: Name of the unit of positions, a key of ``LENGTH``. Forces are in energy per length.
    """

    energy: str
    length: str = "Å"

    def __post_init__(self) -> None:
        _require(self.energy, ENERGY, "an energy")
        _require(self.length, LENGTH, "a length")

    @classmethod
    def parse(cls, text: str) -> Units:
        """Read ``"kcal/mol"`` or ``"Hartree, Bohr"``: energy, then length (Å unless given)."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 2:
            raise ValueError(f'`units` must read "ENERGY" or "ENERGY, LENGTH", got {text!r}')
        return cls(*parts)

    @property
    def energy_in_eV(self) -> float:
        """Factor from the file's energies to eV."""
        return ENERGY[self.energy]

    @property
    def length_in_angstrom(self) -> float:
        """Factor from the file's positions to Å."""
        return LENGTH[self.length]

    @property
    def forces_in_eV_per_angstrom(self) -> float:
        """Factor from the file's forces to eV/Å."""
        return self.energy_in_eV / self.length_in_angstrom


def _require(name: str, known: dict[str, float], kind: str) -> None:
    if name not in known:
        nearest = {key.lower(): key for key in known}
        match = difflib.get_close_matches(name.lower(), nearest, n=1)
        hint = f" Did you mean '{nearest[match[0]]}'?" if match else ""
        raise ValueError(f"`units` must name {kind} unit out of {', '.join(known)}; got {name!r}.{hint}")
