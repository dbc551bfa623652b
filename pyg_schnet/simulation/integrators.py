"""Settings of molecular dynamics and ASE's integrators for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import (
    MTKNPT,
    IsotropicMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)
from ase.md.verlet import VelocityVerlet

from pyg_schnet.io.spelling import nearest
from pyg_schnet.simulation.velocities import degrees_of_freedom, holds_center

THERMOSTATS = ("nve", "langevin", "baoab", "bussi", "nose-hoover")
_BAROSTATS = ("isotropic", "full")
# Attributes of ASE's integrators that hold their state beside the structure: pistons, cells and chains.
_MEMORY = (
    *("p_eps", "force_eps", "transferred_energy", "_volume0", "_cell0", "_eps", "_p_eps", "_h", "_p_g"),
    *("_thermostat._eta", "_thermostat._p_eta", "_barostat._xi", "_barostat._p_xi"),
)


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
    barostat: str = "isotropic"  # absent in restart files of earlier versions

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
        """Return whether the cell changes to keep a pressure."""
        return self.pressure is not None

    @property
    def has_conserved_quantity(self) -> bool:
        """Return whether there is no noise from a bath, or the energy that it exchanges is known."""
        return self.thermostat in ("nve", "bussi", "nose-hoover")

    def modes(self, atoms: Atoms) -> dict[str, bool]:
        """Return :func:`modes_of_motion` of a structure."""
        return modes_of_motion(self.thermostat, self.has_barostat, bool(atoms.pbc.any()))

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
        self._check_bath(atoms)
        check_positive("equilibration", self.equilibration, "ps", zero=True)
        if self.seed < 0:
            raise ValueError(f"`seed` must be a whole number from 0, got {self.seed}")
        check_positive("pressure_time", self.pressure_time, "fs")
        if self.barostat not in _BAROSTATS:
            raise ValueError(
                f"`barostat` must be one of {', '.join(_BAROSTATS)}; got {self.barostat!r}."
                f"{nearest(self.barostat, _BAROSTATS)}"
            )
        if self.barostat != "isotropic" and self.pressure is None:
            raise ValueError(f"`barostat` needs a `pressure` in GPa, got {self.barostat!r} without one")
        if self.pressure is not None:
            self._check_pressure(self.pressure, atoms)

    def _check_bath(self, atoms: Atoms) -> None:
        if self.temperature == 0 and self.thermostat in ("bussi", "nose-hoover"):
            raise ValueError(
                f"`temperature` must be positive for thermostat='{self.thermostat}', which scales "
                "velocities, got 0; use 'langevin'"
            )
        others = [each for each in atoms.constraints if not isinstance(each, FixAtoms)]
        if others and self.thermostat in ("baoab", "nose-hoover"):
            raise ValueError(
                f"`thermostat` must be nve, langevin or bussi with constraints other than fixed atoms, got "
                f"{self.thermostat} and a {type(others[0]).__name__}"
            )

    def _check_pressure(self, pressure: float, atoms: Atoms) -> None:
        if not math.isfinite(pressure):
            raise ValueError(f"`pressure` must be finite and in GPa, got {pressure}")
        if self.thermostat in ("nve", "bussi") or self.temperature == 0:
            raise ValueError(
                "`pressure` needs a bath at a positive temperature, got "
                f"thermostat='{self.thermostat}' at {self.temperature:g} K; use thermostat='langevin' or "
                "'nose-hoover'"
            )
        if self.barostat == "full" and self.thermostat != "nose-hoover":
            raise ValueError(
                f"`barostat` must be isotropic with thermostat='{self.thermostat}', got 'full'; use "
                "thermostat='nose-hoover'"
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


def modes_of_motion(thermostat: str, has_barostat: bool, is_periodic: bool) -> dict[str, bool]:
    """Return whether a structure rotates and moves as a whole, as :func:`degrees_of_freedom` takes it.

    Scaling of velocities neither turns nor moves it, noise does. That of ``"langevin"`` leaves the center of
    mass at rest, if there is no barostat.
    """
    noise = thermostat in ("langevin", "baoab")
    drift = thermostat == "baoab" or (noise and has_barostat)
    return {"rotation": noise or is_periodic, "drift": drift}


def number_of_steps(duration: float, timestep: float) -> int:
    """Return the number of steps, at least one, of a duration in ps and a time step in fs."""
    return max(1, round(1000 * duration / timestep))


def ns_per_day(steps: int, timestep: float, seconds: float) -> float | None:
    """Return the simulated time in ns per day of steps in fs; ``None`` without steps or time."""
    return steps * timestep * 1e-6 * 86_400 / seconds if steps > 0 and seconds > 0 else None


def check_settings(
    thermostat: str,
    interval: int,
    temperature: float,
    timestep: float,
    duration: float,
    friction: float,
    known: Sequence[str] = THERMOSTATS,
) -> None:
    """Raise if a setting of molecular dynamics is out of range; see :func:`run_md` for their meaning.

    Raises:
        ValueError: With the name and requirement of the setting.
    """
    if thermostat not in known:
        raise ValueError(
            f"`thermostat` must be one of {', '.join(known)}; got {thermostat!r}.{nearest(thermostat, known)}"
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
        system: Structure with momenta and calculator. Langevin's bath without a barostat constrains its
            center of mass, unless constraints hold it.
        settings: Settings of the run.
        bath: Whether to use the thermostat and, if there is a pressure, the barostat; without a thermostat,
            Langevin's.
    """
    timestep = settings.timestep * units.fs
    rng = np.random.default_rng(0)  # replaced before each step
    if not bath:
        return VelocityVerlet(system, timestep)
    if settings.thermostat == "nose-hoover":
        return _nose_hoover(system, settings)
    if settings.pressure is not None:
        return _langevin_barostat(system, settings, settings.pressure)
    temperature, friction = settings.temperature, settings.friction / units.fs
    if settings.thermostat == "baoab":
        return LangevinBAOAB(system, timestep, temperature_K=temperature, T_tau=1 / friction, rng=rng)
    if settings.thermostat == "bussi":
        bussi = Bussi(system, timestep, temperature, taut=1 / friction, rng=rng)
        # ASE counts the motion of the whole, which has no energy here.
        bussi.ndof = degrees_of_freedom(system, **settings.modes(system))
        bussi.target_kinetic_energy = 0.5 * bussi.ndof * units.kB * temperature
        return bussi
    if not holds_center(system):
        system.set_constraint([*system.constraints, FixCom()])
    return Langevin(system, timestep, temperature_K=temperature, friction=friction, fixcm=False, rng=rng)


def conserved_energy(integrator: MolecularDynamics, total: float) -> float:
    """Return the energy in eV that an integrator without noise conserves.

    Args:
        integrator: The integrator at its present step.
        total: Total energy of the structure in eV.
    """
    if isinstance(integrator, Bussi):
        return float(total - integrator.transferred_energy)
    if not hasattr(integrator, "_thermostat"):
        return total
    # As ASE's `get_conserved_energy`, which requires a `free_energy` of the calculator.
    chains: Any = integrator
    total += chains._thermostat.get_thermostat_energy()
    if hasattr(chains, "_barostat"):
        momentum = getattr(chains, "_p_eps", None)
        momentum = chains._p_g if momentum is None else momentum
        piston = float(np.sum(np.square(momentum))) / (2 * chains._barostat.W)
        total += piston + chains._barostat.get_barostat_energy() + chains._pressure_au * chains._get_volume()
    return float(total)


def _nose_hoover(system: Atoms, settings: MDSettings) -> MolecularDynamics:
    time = units.fs / settings.friction
    shared: dict[str, Any] = {
        "timestep": settings.timestep * units.fs,
        "temperature_K": settings.temperature,
        "tdamp": time,
    }
    if settings.pressure is None:
        integrator = NoseHooverChainNVT(system, **shared)
    else:
        barostat = IsotropicMTKNPT if settings.barostat == "isotropic" else MTKNPT
        piston: dict[str, Any] = {
            "pressure_au": settings.pressure * units.GPa,
            "pdamp": settings.pressure_time * units.fs,
        }
        integrator = barostat(system, **shared, **piston)
    # ASE counts the motion of the whole, which has no energy here: 3N is its only use of the number of atoms.
    count = degrees_of_freedom(system, **settings.modes(system))
    integrator._thermostat = NoseHooverChainThermostat(
        num_atoms_global=count / 3,  # pyright: ignore[reportArgumentType] - need not be whole
        masses=integrator.masses,
        temperature_K=settings.temperature,
        tdamp=time,
    )
    return integrator


def _langevin_barostat(system: Atoms, settings: MDSettings, pressure: float) -> MolecularDynamics:
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
    """Return the state of an integrator beside the structure, as numbers in a row."""
    return [float(x) for name in _memory_of(integrator) for x in np.ravel(attrgetter(name)(integrator))]


def restore_integrator(integrator: MolecularDynamics, state: list[float]) -> None:
    """Set the state that :func:`integrator_state` returned; none of a run that begins."""
    numbers = iter(state)
    for name in _memory_of(integrator) if state else ():
        owner, _, attribute = name.rpartition(".")
        part: Any = attrgetter(owner)(integrator) if owner else integrator
        old = getattr(part, attribute)
        values = [next(numbers) for _ in range(np.size(old))]
        setattr(part, attribute, np.reshape(values, old.shape) if isinstance(old, np.ndarray) else values[0])


def _memory_of(integrator: MolecularDynamics) -> list[str]:
    found = []
    for name in _MEMORY:
        with suppress(AttributeError):
            attrgetter(name)(integrator)
            found.append(name)
    return found
