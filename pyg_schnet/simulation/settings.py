"""The settings of a dynamics, and what is wrong with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ase import Atoms

from pyg_schnet.io.spelling import nearest

_THERMOSTATS = ("nve", "langevin")


@dataclass(frozen=True)
class Settings:
    """What a trajectory depends on, beside structure and potential; see :func:`run_md`."""

    temperature: float
    timestep: float
    thermostat: str
    friction: float
    pressure: float | None
    pressure_time: float
    equilibration: float
    seed: int
    interval: int

    def __post_init__(self) -> None:
        for field in fields(self):  # numbers of NumPy and PyTorch, which no restart file holds
            value = getattr(self, field.name)
            if hasattr(value, "item"):
                object.__setattr__(self, field.name, value.item())

    def check(self, duration: float, atoms: Atoms) -> None:
        """Refuse settings that no dynamics has, or not of these atoms.

        Raises:
            ValueError: With the name and its requirement.
        """
        check_settings(
            self.thermostat, self.interval, self.temperature, self.timestep, duration, self.friction
        )
        check_quantity("equilibration", self.equilibration, "ps", zero=True)
        if self.seed < 0:
            raise ValueError(f"`seed` must be a whole number from 0, got {self.seed}")
        check_quantity("pressure_time", self.pressure_time, "fs")
        if self.pressure is not None:
            self._check_pressure(self.pressure, atoms)

    def _check_pressure(self, pressure: float, atoms: Atoms) -> None:
        if not math.isfinite(pressure):
            raise ValueError(f"`pressure` must be finite and in GPa, got {pressure}")
        if self.thermostat == "nve" or self.temperature == 0:
            raise ValueError(
                "`pressure` needs a bath at a positive temperature, got "
                f"thermostat='{self.thermostat}' at {self.temperature:g} K; use thermostat='langevin'"
            )
        if not atoms.pbc.all():
            raise ValueError(
                f"`pressure` needs atoms that are periodic in all directions, got pbc {atoms.pbc.tolist()}"
            )
        if atoms.constraints:
            raise ValueError(
                f"`pressure` needs atoms without constraints, got {atoms.constraints[0]}; remove them, or "
                "keep the cell"
            )
        if atoms.calc is not None and "stress" not in atoms.calc.implemented_properties:
            raise ValueError(f"`pressure` needs a calculator of stresses, got {type(atoms.calc).__name__}")


def number_of_steps(duration: float, timestep: float) -> int:
    """Count the steps of a duration in ps, by the step in fs: one at least."""
    return max(1, round(1000 * duration / timestep))


def check_settings(
    thermostat: str, interval: int, temperature: float, timestep: float, duration: float, friction: float
) -> None:
    """Refuse settings that no dynamics has.

    Raises:
        ValueError: With the name and its requirement.
    """
    if thermostat not in _THERMOSTATS:
        raise ValueError(
            f"`thermostat` must be one of {', '.join(_THERMOSTATS)}; got {thermostat!r}."
            f"{nearest(thermostat, _THERMOSTATS)}"
        )
    if interval < 1:
        raise ValueError(f"`interval` must be at least 1 step, got {interval}")
    check_quantity("temperature", temperature, "K", zero=True)
    check_quantity("timestep", timestep, "fs")
    check_quantity("duration", duration, "ps")
    check_quantity("friction", friction, "1/fs")


def check_quantity(name: str, value: float, unit: str, zero: bool = False) -> None:
    """Refuse what is not positive and finite, or zero where that has a meaning."""
    if not (0 < value < math.inf or (zero and value == 0)):
        sign = "zero or positive" if zero else "positive"
        raise ValueError(f"`{name}` must be {sign} and in {unit}, got {value}")
