"""Units: eV and Å inside, conversion factors from what data sets publish.

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
# How other programs spell units, in lower case.
_SPELLINGS: dict[str, str] = {
    **{name.lower(): name for name in (*ENERGY, *LENGTH, *_PRESSURE) if "/" not in name},
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


_STATED_APART = {
    "forces": ("force", ("eV/Å", "kcal/mol/Å", "Hartree/Bohr", "…")),
    "stress": ("pressure", ("eV/Å^3", "Hartree/Bohr^3", "GPa", "…")),
}


@dataclass(frozen=True, repr=False)
class Units:
    """The units of a file, as factors to eV and Å.

    Attributes:
        energy: Name of the unit of energies, a key of ``ENERGY``; or of what a file has in their place, as
            ``"D"`` of dipole moments.
        length: Name of the unit of positions, a key of ``LENGTH``.
        forces: Name of the unit of forces, as ``"Hartree/Bohr"``; energy per length if ``None``.
        stress: Name of the unit of stresses, as ``"GPa"``; energy per length cubed if ``None``.
    """

    energy: str
    length: str = "Å"
    forces: str | None = None
    stress: str | None = None

    def __post_init__(self) -> None:
        _require(self.energy, ENERGY, "an energy", _in_place_of_energies())
        _require(self.length, LENGTH, "a length")
        own = {"forces": f"{self.energy}/{self.length}", "stress": f"{self.energy}/{self.length}^3"}
        for field, (dimension, examples) in _STATED_APART.items():
            value = getattr(self, field)
            if value is not None:
                known = {name: factor for name, (kind, factor) in _UNITS.items() if kind == dimension}
                _require(value, known, f"a {dimension}", shown=examples)
                if value == own[field]:  # one spelling of one meaning
                    object.__setattr__(self, field, None)

    def __repr__(self) -> str:
        named = (f"{name}={value!r}" for name, value in asdict(self).items() if value is not None)
        return f"Units({', '.join(named)})"

    def __str__(self) -> str:
        """Write the units as :meth:`parse` reads them."""
        length = None if self.length in ("Å", "Angstrom") else self.length
        return ", ".join(filter(None, (self.energy, length, self.forces, self.stress)))

    @classmethod
    def parse(cls, text: str) -> Units:
        """Read the units of a file.

        Args:
            text: The unit of energies and, where they differ from Å, energy per length and energy per length
                cubed, those of positions, forces and stresses: ``"kcal/mol"``, ``"Hartree, Bohr"``,
                ``"Hartree, Hartree/Bohr"``, ``"eV, GPa"``.

        Raises:
            ValueError: If a unit is not known, or two are of one kind.
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
        """Read the units that a file states, in any usual spelling.

        Args:
            energy: As ``"Ha"`` or ``"kcal/mol"``.
            length: As ``"Ang"`` or ``"a0"``; Å if ``None``.
            forces: As ``"Ha/Bohr"``; energy per length if ``None``.
            stress: As ``"eV/Ang/Ang/Ang"``; energy per length cubed if ``None``.

        Raises:
            ValueError: If a unit is not known, or is of another kind.
        """
        length = "Å" if length is None else _spelled(length)
        forces, stress = (None if text is None else _spelled(text) for text in (forces, stress))
        return cls(_spelled(energy), length, forces, stress)

    def agrees(self, other: Units) -> bool:
        """Whether numbers in both units are the same ones."""
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
        """Write the units for people, as ``"Hartree and Å, forces in Hartree/Bohr"``."""
        text = f"{self.energy} and {self.length}"
        for field in _STATED_APART:
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
    """Return the units of molecular properties that may be learned in place of an energy."""
    return {name for name, (kind, _) in _UNITS.items() if kind in _KEPT or kind.startswith("length^")} - {""}


def _spelled(text: str) -> str:
    """Return our name of a unit that another program spells, as ``"eV/Å^3"`` of ``"eV/Ang/Ang/Ang"``."""
    text = text.strip()
    if text in _UNITS:
        return text
    plain = text.replace("**", "^").replace("_per_", "/")  # pint's kilojoule_per_mole / nanometer
    powers: dict[str, int] = {}
    for slash, name, power in re.findall(r"(/?)\s*([^\s/*^]+)(?:\s*\^\s*(-?\d{1,3}))?", plain):
        own = _SPELLINGS.get(str(name).lower(), str(name))
        powers[own] = powers.get(own, 0) + int(power or 1) * (-1 if slash else 1)
    if powers.get("mol") == -1:  # wherever it stands among the others
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
