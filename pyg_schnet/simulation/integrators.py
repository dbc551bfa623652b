"""Integrators: Newton's equations alone, with a heat bath, and with a piston."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from pyg_schnet.simulation.settings import Settings


def integrator_of(system: Atoms, settings: Settings, bath: bool) -> MolecularDynamics:
    """Make ASE's integrator for a structure, which gets the bath's own constraint.

    Args:
        system: With momenta and calculator.
        settings: Of the dynamics.
        bath: Whether there is one; with a pressure it has a piston, too.
    """
    timestep = settings.timestep * units.fs
    if not bath:
        return VelocityVerlet(system, timestep)
    if settings.pressure is not None:
        return _piston(system, settings, settings.pressure)
    if not system.constraints:
        system.set_constraint(FixCom())
    return Langevin(
        system,
        timestep,
        temperature_K=settings.temperature,
        friction=settings.friction / units.fs,
        fixcm=False,
        rng=np.random.default_rng(0),  # another one before each step
    )


def _piston(system: Atoms, settings: Settings, pressure: float) -> MolecularDynamics:
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
        rng=np.random.default_rng(0),  # another one before each step
    )


def memory_of(integrator: MolecularDynamics) -> list[float]:
    """Give what an integrator knows beside the structure: the piston's momentum and force."""
    names = ("p_eps", "force_eps")
    return [float(getattr(integrator, name)) for name in names if hasattr(integrator, name)]


def remember(integrator: MolecularDynamics, memory: list[float]) -> None:
    """Give an integrator back what :func:`memory_of` told."""
    for name, value in zip(("p_eps", "force_eps"), memory, strict=False):
        setattr(integrator, name, value)
