"""Units: eV and Å inside, conversion factors from what data sets publish.

The kilocalorie is the thermochemical one (4184 J). Avogadro's number and the elementary charge are exact
in the SI of 2019; Hartree and Bohr are CODATA 2018 (https://physics.nist.gov/cuu/Constants).
"""

from __future__ import annotations

from dataclasses import dataclass

from pyg_schnet.spelling import nearest

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
GPa = 1e-21 / _ELEMENTARY_CHARGE  # eV/Å³
_PRESSURE = {"GPa": GPa, "kbar": 0.1 * GPa}
# Debye, gigahertz, heat capacity, elementary charge, wave number, a pure number: published and kept.
_KEPT = ("D", "GHz", "cal/mol/K", "e", "1/cm", "")


def _every_unit() -> dict[str, tuple[str, float]]:
    """Return dimension and factor to eV and Å of each unit that has a name."""
    units = {name: ("energy", factor) for name, factor in ENERGY.items()}
    units |= {name: ("pressure", factor) for name, factor in _PRESSURE.items()}
    units |= {name: (name, 1.0) for name in _KEPT}
    for name, factor in LENGTH.items():
        units[name] = ("length", factor)
        units |= {f"{name}^{power}": (f"length^{power}", factor**power) for power in (2, 3)}
        for energy, in_eV in ENERGY.items():
            units[f"{energy}/{name}"] = ("force", in_eV / factor)
            units[f"{energy}/{name}^3"] = ("pressure", in_eV / factor**3)
    return units


_UNITS = _every_unit()


def conversion(published: str, ours: str) -> float:
    """Return the factor from one unit to another of the same dimension.

    Known are the names of ``ENERGY`` and ``LENGTH``; squares and cubes of lengths (``"Bohr^3"``); an energy
    by a length (``"kcal/mol/Å"``) or by its cube (``"eV/Å^3"``), ``"GPa"`` and ``"kbar"``; and the units that
    convert to nothing but themselves: ``"D"``, ``"GHz"``, ``"cal/mol/K"``, ``"e"``, ``"1/cm"``, ``""``.

    Args:
        published: The unit to convert from.
        ours: The unit to convert to.

    Returns:
        What a number in ``published`` is multiplied by to be one in ``ours``.

    Raises:
        ValueError: If a unit is not known, or if the two measure different things.
    """
    for label, name in {"published": published, "ours": ours}.items():
        if name not in _UNITS:
            raise ValueError(
                f"`{label}` must be a unit such as 'eV', 'kcal/mol', 'Å', 'Bohr^3', 'eV/Å' or 'GPa', "
                f"got {name!r}.{nearest(name, _UNITS)}"
            )
    (dimension, factor), (other, divisor) = _UNITS[published], _UNITS[ours]
    if dimension != other:
        raise ValueError(f"`published` and `ours` must measure the same, got {published!r} and {ours!r}")
    return factor / divisor


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
        raise ValueError(
            f"`units` must name {kind} unit out of {', '.join(known)}; got {name!r}.{nearest(name, known)}"
        )
