"""Units of energies, lengths, forces and stresses, and their conversion to eV and Å.

The kilocalorie is the thermochemical one (4184 J). Avogadro's number and the elementary charge are exact
in the SI of 2019; Hartree and Bohr are CODATA 2018 (https://physics.nist.gov/cuu/Constants).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pyg_schnet.io.spelling import nearest

_ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
_AVOGADRO = 6.02214076e23  # 1/mol, exact

#: One kJ/mol in eV.
kJ_per_mol = 1e3 / (_AVOGADRO * _ELEMENTARY_CHARGE)
#: One kcal/mol in eV.
kcal_per_mol = 4.184 * kJ_per_mol
#: One Hartree in eV.
Hartree = 27.211386245988
#: One Bohr in Å.
Bohr = 0.529177210903

#: Units of energy by name, in eV.
ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": kcal_per_mol,
    "kJ/mol": kJ_per_mol,
    "Hartree": Hartree,
    "mHartree": 1e-3 * Hartree,
    "Rydberg": 0.5 * Hartree,
}
#: Units of length by name, in Å.
LENGTH = {"Å": 1.0, "Angstrom": 1.0, "nm": 10.0, "Bohr": Bohr}
#: One GPa in eV/Å³.
GPa = 1e-21 / _ELEMENTARY_CHARGE
#: Units of pressure by name, in eV/Å³.
PRESSURE = {"GPa": GPa, "kbar": 0.1 * GPa}
# Debye, gigahertz, heat capacity, elementary charge, wave number, dimensionless: kept as published.
_KEPT = ("D", "GHz", "cal/mol/K", "e", "1/cm", "")


def _every_unit() -> dict[str, tuple[str, float]]:
    """Return dimension and factor to eV and Å of each named unit."""
    units = {name: ("energy", factor) for name, factor in ENERGY.items()}
    units |= {name: ("pressure", factor) for name, factor in PRESSURE.items()}
    units |= {name: (name, 1.0) for name in _KEPT}
    for name, factor in LENGTH.items():
        units[name] = ("length", factor)
        units |= {f"{name}^{power}": (f"length^{power}", factor**power) for power in (2, 3)}
        for energy, in_eV in ENERGY.items():
            units[f"{energy}/{name}"] = ("force", in_eV / factor)
            units[f"{energy}/{name}^3"] = ("pressure", in_eV / factor**3)
    return units


_UNITS = _every_unit()
# Spellings of units in other programs, in lower case.
_SPELLINGS: dict[str, str] = {
    **{name.lower(): name for name in (*ENERGY, *LENGTH, *PRESSURE) if "/" not in name},
    **dict.fromkeys(("ha", "eh", "hartrees", "hartree"), "Hartree"),
    **dict.fromkeys(("ry", "rydbergs"), "Rydberg"),
    **dict.fromkeys(("ang", "a", "angstroms", "angstrom"), "Å"),
    **dict.fromkeys(("a0", "bohrs"), "Bohr"),
    **dict.fromkeys(("electron_volt", "electron_volts", "electronvolt", "electronvolts"), "eV"),
    **dict.fromkeys(("kcal", "kilocalorie", "kilocalories"), "kcal"),
    **dict.fromkeys(("kj", "kilojoule", "kilojoules"), "kJ"),
    **{"mol": "mol", "mole": "mol", "nanometer": "nm", "nanometers": "nm", "debye": "D"},
}


def conversion(published: str, ours: str) -> float:
    """Return the factor from one unit to another of the same dimension.

    Known units are those of ``ENERGY`` and ``LENGTH``; squares and cubes of lengths (``"Bohr^3"``); energies
    per length (``"kcal/mol/Å"``) and per volume (``"eV/Å^3"``), ``"GPa"`` and ``"kbar"``; and units that
    convert only to themselves: ``"D"``, ``"GHz"``, ``"cal/mol/K"``, ``"e"``, ``"1/cm"``, ``""``.

    Args:
        published: Unit to convert from.
        ours: Unit to convert to.

    Returns:
        Factor by which a number in ``published`` is multiplied.

    Raises:
        ValueError: If a unit is unknown, or the dimensions differ.
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


_OPTIONAL = {
    "forces": ("force", ("eV/Å", "kcal/mol/Å", "Hartree/Bohr", "…")),
    "stress": ("pressure", ("eV/Å^3", "Hartree/Bohr^3", "GPa", "…")),
}


@dataclass(frozen=True, repr=False)
class Units:
    """Units of the numbers in a file, with their factors to eV and Å.

    Attributes:
        energy: Unit of energies, a key of ``ENERGY``; or the unit of a property that is learned in place of
            an energy, for instance ``"D"`` for dipole moments.
        length: Unit of positions and lattice vectors, a key of ``LENGTH``.
        forces: Unit of forces, for instance ``"Hartree/Bohr"``; ``energy`` per ``length`` if ``None``.
        stress: Unit of stresses, for instance ``"GPa"``; ``energy`` per ``length`` cubed if ``None``.
    """

    energy: str
    length: str = "Å"
    forces: str | None = None
    stress: str | None = None

    def __post_init__(self) -> None:
        _require(self.energy, ENERGY, "an energy", _in_place_of_energies())
        _require(self.length, LENGTH, "a length")
        own = {"forces": f"{self.energy}/{self.length}", "stress": f"{self.energy}/{self.length}^3"}
        for field, (dimension, examples) in _OPTIONAL.items():
            value = getattr(self, field)
            if value is not None:
                known = {name: factor for name, (kind, factor) in _UNITS.items() if kind == dimension}
                _require(value, known, f"a {dimension}", shown=examples)
                if value == own[field]:  # equal units compare equal
                    object.__setattr__(self, field, None)

    def __repr__(self) -> str:
        named = (f"{name}={value!r}" for name, value in asdict(self).items() if value is not None)
        return f"Units({', '.join(named)})"

    def __str__(self) -> str:
        """Return the notation of :meth:`parse`."""
        length = None if self.length in ("Å", "Angstrom") else self.length
        return ", ".join(filter(None, (self.energy, length, self.forces, self.stress)))

    @classmethod
    def parse(cls, text: str) -> Units:
        """Parse the units of a file.

        Args:
            text: Unit of energies, followed by the units of positions (if not Å), forces (if not energy per
                length) and stresses (if not energy per length cubed): ``"kcal/mol"``, ``"Hartree, Bohr"``,
                ``"Hartree, Hartree/Bohr"``, ``"eV, GPa"``.

        Raises:
            ValueError: If a unit is unknown, or two are of the same dimension.
        """
        energy, *others = (part.strip() for part in text.split(","))
        fields = {"length": "length", "force": "forces", "pressure": "stress"}
        named: dict[str, str] = {}
        for part in others:
            kind = _UNITS[part][0] if part in _UNITS else "force" if "/" in part else "length"
            field = fields.get(kind)
            if field is None or field in named or len(others) > len(fields):
                raise ValueError(
                    '`units` must read "ENERGY, LENGTH, FORCE, STRESS", of which only the first is needed, '
                    f"got {text!r}"
                )
            named[field] = part
        return cls(energy, **named)

    @classmethod
    def stated(
        cls, energy: str, length: str | None = None, forces: str | None = None, stress: str | None = None
    ) -> Units:
        """Parse the units that a file states, in any usual spelling.

        Args:
            energy: Unit of energies, for instance ``"Ha"`` or ``"kcal/mol"``.
            length: Unit of positions, for instance ``"Ang"`` or ``"a0"``; Å if ``None``.
            forces: Unit of forces, for instance ``"Ha/Bohr"``; energy per length if ``None``.
            stress: Unit of stresses, for instance ``"eV/Ang/Ang/Ang"``; energy per length cubed if ``None``.

        Raises:
            ValueError: If a unit is unknown, or of another dimension.
        """
        length = "Å" if length is None else _spelled(length)
        forces, stress = (None if text is None else _spelled(text) for text in (forces, stress))
        return cls(_spelled(energy), length, forces, stress)

    def agrees(self, other: Units) -> bool:
        """Return whether all factors to eV and Å are equal.

        Args:
            other: Units to compare with.
        """
        factors = [
            (
                own.energy_in_eV,
                own.length_in_angstrom,
                own.forces_in_eV_per_angstrom,
                own.stress_in_eV_per_cubic_angstrom,
            )
            for own in (self, other)
        ]
        return all(math.isclose(one, two, rel_tol=1e-9) for one, two in zip(*factors, strict=True))

    def sentence(self) -> str:
        """Return a description, for instance ``"Hartree and Å, forces in Hartree/Bohr"``."""
        text = f"{self.energy} and {self.length}"
        for field in _OPTIONAL:
            unit = getattr(self, field)
            text += "" if unit is None else f", {field} in {unit}"
        return text

    @property
    def energy_in_eV(self) -> float:
        """Factor from the file's energies to eV."""
        return _UNITS[self.energy][1]

    @property
    def length_in_angstrom(self) -> float:
        """Factor from the file's positions to Å."""
        return LENGTH[self.length]

    @property
    def forces_in_eV_per_angstrom(self) -> float:
        """Factor from the file's forces to eV/Å."""
        if self.forces is not None:
            return _UNITS[self.forces][1]
        return self.energy_in_eV / self.length_in_angstrom

    @property
    def stress_in_eV_per_cubic_angstrom(self) -> float:
        """Factor from the file's stresses to eV/Å³."""
        if self.stress is not None:
            return _UNITS[self.stress][1]
        return self.energy_in_eV / self.length_in_angstrom**3


def _in_place_of_energies() -> set[str]:
    """Return the units of properties that may be learned in place of an energy."""
    return {name for name, (kind, _) in _UNITS.items() if kind in _KEPT or kind.startswith("length^")} - {""}


def _spelled(text: str) -> str:
    """Return the name of a unit in another spelling, as ``"eV/Å^3"`` for ``"eV/Ang/Ang/Ang"``."""
    text = text.strip()
    if text in _UNITS:
        return text
    plain = text.replace("**", "^").replace("_per_", "/")  # pint's kilojoule_per_mole / nanometer
    powers: dict[str, int] = {}
    for slash, name, power in re.findall(r"(/?)\s*([^\s/*^]+)(?:\s*\^\s*(-?\d{1,3}))?", plain):
        own = _SPELLINGS.get(str(name).lower(), str(name))
        powers[own] = powers.get(own, 0) + int(power or 1) * (-1 if slash else 1)
    if powers.get("mol") == -1:  # at any position
        powers = {
            (f"{own}/mol" if own in ("kcal", "kJ") else own): p for own, p in powers.items() if own != "mol"
        }
    above = [own if power == 1 else f"{own}^{power}" for own, power in powers.items() if power > 0]
    below = [f"/{own}" if power == -1 else f"/{own}^{-power}" for own, power in powers.items() if power < 0]
    name = " ".join(above) + "".join(below)
    return name if name in _UNITS else text


def _require(
    name: str,
    known: dict[str, float],
    kind: str,
    others: Iterable[str] = (),
    shown: Iterable[str] | None = None,
) -> None:
    if name not in known and name not in others:
        raise ValueError(
            f"`units` must name {kind} unit out of {', '.join(shown or known)}; got {name!r}."
            f"{nearest(name, known)}"
        )
