"""Settings of molecular dynamics and ASE's integrators for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from pyg_schnet.io.spelling import nearest

_THERMOSTATS = ("nve", "langevin")
_PISTON = ("p_eps", "force_eps")  # attributes of ASE's barostat


@dataclass(frozen=True)
class MDSettings:
    """Settings that determine a trajectory together with structure and potential; see :func:`run_md`."""

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
        for field in fields(self):  # restart files hold no numbers of NumPy and PyTorch
            value = getattr(self, field.name)
            if hasattr(value, "item"):
                object.__setattr__(self, field.name, value.item())

    @property
    def conserves_energy(self) -> bool:
        """Return whether there is no thermostat."""
        return self.thermostat == "nve"

    @property
    def has_barostat(self) -> bool:
        """Return whether the cell is scaled to a pressure."""
        return self.pressure is not None

    def check(self, duration: float, atoms: Atoms) -> None:
        """Raise if a setting is out of range, or impossible for these atoms.

        Args:
            duration: Simulated time in ps.
            atoms: The initial structure with its calculator.

        Raises:
            ValueError: With the name and requirement of the setting.
        """
        check_settings(
            self.thermostat, self.interval, self.temperature, self.timestep, duration, self.friction
        )
        check_positive("equilibration", self.equilibration, "ps", zero=True)
        if self.seed < 0:
            raise ValueError(f"`seed` must be a whole number from 0, got {self.seed}")
        check_positive("pressure_time", self.pressure_time, "fs")
        if self.pressure is not None:
            self._check_pressure(self.pressure, atoms)

    def _check_pressure(self, pressure: float, atoms: Atoms) -> None:
        if not math.isfinite(pressure):
            raise ValueError(f"`pressure` must be finite and in GPa, got {pressure}")
        if self.conserves_energy or self.temperature == 0:
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
    """Return the number of steps, at least one, of a duration in ps and a time step in fs."""
    return max(1, round(1000 * duration / timestep))


def check_settings(
    thermostat: str, interval: int, temperature: float, timestep: float, duration: float, friction: float
) -> None:
    """Raise if a setting of molecular dynamics is out of range; see :func:`run_md` for their meaning.

    Raises:
        ValueError: With the name and requirement of the setting.
    """
    if thermostat not in _THERMOSTATS:
        raise ValueError(
            f"`thermostat` must be one of {', '.join(_THERMOSTATS)}; got {thermostat!r}."
            f"{nearest(thermostat, _THERMOSTATS)}"
        )
    if interval < 1:
        raise ValueError(f"`interval` must be at least 1 step, got {interval}")
    check_positive("temperature", temperature, "K", zero=True)
    check_positive("timestep", timestep, "fs")
    check_positive("duration", duration, "ps")
    check_positive("friction", friction, "1/fs")


def check_positive(name: str, value: float, unit: str, zero: bool = False) -> None:
    """Raise if a quantity is not finite and positive, or zero where ``zero`` allows that."""
    if not (0 < value < math.inf or (zero and value == 0)):
        sign = "zero or positive" if zero else "positive"
        raise ValueError(f"`{name}` must be {sign} and in {unit}, got {value}")


def build_integrator(system: Atoms, settings: MDSettings, bath: bool) -> MolecularDynamics:
    """Return ASE's integrator for a structure.

    Args:
        system: Structure with momenta and calculator. A bath without a barostat constrains its center of
            mass, unless it has constraints.
        settings: Settings of the run.
        bath: Whether to use the thermostat and, if there is a pressure, the barostat.
    """
    timestep = settings.timestep * units.fs
    if not bath:
        return VelocityVerlet(system, timestep)
    if settings.pressure is not None:
        return _barostat(system, settings, settings.pressure)
    if not system.constraints:
        system.set_constraint(FixCom())
    return Langevin(
        system,
        timestep,
        temperature_K=settings.temperature,
        friction=settings.friction / units.fs,
        fixcm=False,
        rng=np.random.default_rng(0),  # replaced before each step
    )


def _barostat(system: Atoms, settings: MDSettings, pressure: float) -> MolecularDynamics:
    time = settings.pressure_time * units.fs
    # Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994): the piston's mass for a time constant.
    mass = 3 * (len(system) + 1) * units.kB * settings.temperature * time**2
    return LangevinBAOAB(
        system,
        settings.timestep * units.fs,
        temperature_K=settings.temperature,
        externalstress=-pressure * units.GPa,
        hydrostatic=True,
        T_tau=units.fs / settings.friction,
        P_tau=time,
        P_mass=mass,
        rng=np.random.default_rng(0),  # replaced before each step
    )


def integrator_state(integrator: MolecularDynamics) -> list[float]:
    """Return the state of an integrator beside the structure: momentum of the piston, and the force on it."""
    return [float(getattr(integrator, name)) for name in _PISTON if hasattr(integrator, name)]


def restore_integrator(integrator: MolecularDynamics, state: list[float]) -> None:
    """Set the state that :func:`integrator_state` returned."""
    for name, value in zip(_PISTON, state, strict=False):
        setattr(integrator, name, value)
