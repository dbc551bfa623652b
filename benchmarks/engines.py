"""One potential in all engines: is energy conserved, and is the mean potential energy the same?

    python benchmarks/engines.py [runs/demo/model.safetensors] [--duration 20] [--json FILE]

Ethanol at 300 K, steps of 0.5 fs: at constant energy through each engine that is installed and in
`run_md_batched`, and again with each engine's Langevin bath. Drifts are slopes of total energies; mean
potential energies are those of the baths, above the minimum, with the deviation of the mean of blocks of
2 ps. The exit status is 1 if a drift is beyond 0.05 meV/atom/ps, or two means are further apart than four of
their deviations. Steps a second are those of a molecule. The model is `make demo`'s.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from rich.console import Console
from rich.table import Table

from pyg_schnet.simulation import (
    SchNetCalculator,
    attach_to_lammps,
    openmm_system,
    relax_batched,
    run_md,
    run_md_batched,
    start_lammps,
)
from pyg_schnet.simulation.statistics import fit_drift
from pyg_schnet.simulation.velocities import draw_momenta

TEMPERATURE, TIMESTEP, FRICTION, INTERVAL = 300.0, 0.5, 0.01, 10  # K, fs, 1/fs, steps
GOAL = 0.05  # meV/atom/ps
kJ_per_mol = units.kJ / units.mol


@dataclass(frozen=True)
class Run:
    """What an engine did.

    Attributes:
        potential: Energies in eV at every ``INTERVAL`` steps, ``(frames,)`` or one column a replica.
        total: The same with kinetic energies.
        seconds: For one step of one molecule.
    """

    potential: np.ndarray
    total: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Line:
    """A line of the table: drift in meV/atom/ps, mean and its deviation in meV, steps a second."""

    engine: str
    drift: float
    mean: float
    deviation: float
    speed: float


def through_ase(model: str, atoms: Atoms, steps: int, bath: bool, seed: int) -> Run:
    """Run `run_md`, which is ASE's velocity Verlet or Langevin."""
    atoms.calc = SchNetCalculator(model, compile=True)
    rows: list[tuple[float, float]] = []

    def look(step: int, frame: Atoms) -> None:
        if step % INTERVAL == 0:
            rows.append((frame.get_potential_energy(), frame.get_total_energy()))

    began = time.perf_counter()
    run_md(
        atoms,
        temperature=TEMPERATURE,
        timestep=TIMESTEP,
        duration=1e-3 * steps * TIMESTEP,
        thermostat="langevin" if bath else "nve",
        friction=FRICTION,
        seed=seed,
        on_step=look,
    )
    potential, total = np.array(rows).T
    return Run(potential, total, (time.perf_counter() - began) / steps)


def in_openmm(model: str, atoms: Atoms, steps: int, bath: bool, seed: int, build=openmm_system) -> Run:
    """Run OpenMM's Verlet or Langevin integrator, in double precision."""
    import openmm

    dt = 1e-3 * TIMESTEP  # ps
    integrator = openmm.VerletIntegrator(dt)
    if bath:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1e3 * FRICTION, dt)
        integrator.setRandomNumberSeed(seed + 1)
    system = build(model, atoms)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions / 10)
    context.setVelocities(atoms.get_velocities() * 1e3 * units.fs / 10)  # nm/ps

    def look() -> tuple[float, float]:
        state = context.getState(energy=True)
        potential = state.getPotentialEnergy()._value * kJ_per_mol
        return potential, potential + state.getKineticEnergy()._value * kJ_per_mol

    return _run(steps, look, integrator.step)


def in_openmm_ml(model: str, atoms: Atoms, steps: int, bath: bool, seed: int) -> Run:
    """Run OpenMM with a system of OpenMM-ML."""
    from openmm import app
    from openmmml import MLPotential

    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)

    def build(model: str, atoms: Atoms):
        return MLPotential("schnet", model=model).createSystem(topology, removeCMMotion=False)

    return in_openmm(model, atoms, steps, bath, seed, build)


def in_torchsim(model: str, atoms: Atoms, steps: int, bath: bool, seed: int) -> Run:
    """Run TorchSim's velocity Verlet, or its Langevin integrator."""
    import torch_sim as ts

    from pyg_schnet.simulation import SchNetModel

    network, unit = SchNetModel(model, compile=True), ts.units.MetalUnits
    options = {
        "kT": torch.tensor(TEMPERATURE * unit.temperature),
        "dt": torch.tensor(1e-3 * TIMESTEP * unit.time),
    }
    if bath:
        options["gamma"] = torch.tensor(1e3 * FRICTION / unit.time)
    start, step = (ts.nvt_langevin if bath else ts.nve)(model=network, **options)
    torch.manual_seed(seed)
    state = start(ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64), seed=seed)
    state.momenta = torch.from_numpy(atoms.get_momenta())  # of the same units as ASE's

    def move(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = step(state)

    def look() -> tuple[float, float]:
        kinetic = ts.calc_kinetic_energy(masses=state.masses, momenta=state.momenta)
        return state.energy.item(), state.energy.item() + kinetic.item()

    return _run(steps, look, move)


def in_ipi(model: str, atoms: Atoms, steps: int, bath: bool, seed: int) -> Run:
    """Run i-PI's velocity Verlet of one bead in this process, or with its Langevin thermostat."""
    from ase.io import write
    from ipi.scripting import InteractiveSimulation, simulation_xml

    from pyg_schnet.simulation.engines import ipi_driver

    model = os.path.abspath(model) if os.path.exists(model) else model
    before, start = os.getcwd(), atoms.copy()
    start.center(vacuum=50.0)
    thermostat = f"<thermostat mode='langevin'><tau units='femtosecond'>{1 / FRICTION}</tau></thermostat>"
    motion = (
        f"<motion mode='dynamics'><fixcom>False</fixcom><dynamics mode='{'nvt' if bath else 'nve'}'>"
        f"<timestep units='femtosecond'>{TIMESTEP}</timestep>{thermostat if bath else ''}</dynamics></motion>"
    )
    forces = (
        f"<ffdirect name='schnet'><pes>custom</pes><pes_path>{ipi_driver.__file__}</pes_path>"
        f"<parameters>{{model: {model}, template: start.extxyz}}</parameters></ffdirect>"
    )
    output = "<output prefix='none'><checkpoint stride='1000000'/></output>"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where i-PI writes its files
        write("start.extxyz", start)
        simulation = InteractiveSimulation(simulation_xml(start, forces, motion, TEMPERATURE, output))
        simulation.set_structures(start)

        def look() -> tuple[float, float]:
            potential = simulation.properties("potential")
            return potential, potential + simulation.properties("kinetic_md")

        run = _run(steps, look, lambda count: simulation.run(count, write_outputs=False))
        os.chdir(before)
        return run


def in_lammps(model: str, atoms: Atoms, steps: int, bath: bool, seed: int) -> Run:
    """Run LAMMPS's `fix nve`, with its `fix langevin`."""
    symbols = sorted(set(atoms.symbols))
    types = [symbols.index(symbol) + 1 for symbol in atoms.symbols]
    lmp = start_lammps("-screen", "none", "-log", "none")
    lmp.commands_string(
        "units metal\natom_style atomic\natom_modify map array\nboundary f f f\n"
        f"region box block -50 50 -50 50 -50 50\ncreate_box {len(symbols)} box\n"
        f"timestep {1e-3 * TIMESTEP}\nthermo_modify norm no"
    )
    for kind, mass in dict(zip(types, atoms.get_masses(), strict=True)).items():
        lmp.command(f"mass {kind} {mass}")
    velocities = atoms.get_velocities() * 1e3 * units.fs  # Å/ps
    tags = list(range(1, len(atoms) + 1))
    lmp.create_atoms(len(atoms), tags, types, atoms.positions.flatten(), velocities.flatten())
    attach_to_lammps(lmp, model, symbols)
    lmp.command("fix move all nve")
    if bath:
        lmp.command(f"fix bath all langevin {TEMPERATURE} {TEMPERATURE} {1e-3 / FRICTION} {seed + 1}")
    lmp.command("run 0")

    def look() -> tuple[float, float]:
        potential = lmp.get_thermo("pe")
        return potential, potential + lmp.get_thermo("ke")

    return _run(steps, look, lambda count: lmp.command(f"run {count} pre no post no"))


def _run(steps: int, look: Callable[[], tuple[float, float]], move: Callable[[int], object]) -> Run:
    rows, began = [look()], time.perf_counter()
    for _ in range(steps // INTERVAL):
        move(INTERVAL)
        rows.append(look())
    potential, total = np.array(rows).T
    return Run(potential, total, (time.perf_counter() - began) / steps)


def line(engine: str, atoms: int, free: Run, bath: Run, lowest: float) -> Line:
    """Sum up an engine's two runs."""
    drift, _ = fit_drift(list(free.total), INTERVAL * TIMESTEP, atoms)
    frames = round(2000 / (INTERVAL * TIMESTEP))  # of a block of 2 ps, in which ethanol's OH turns
    energy = 1e3 * (bath.potential[1:] - lowest)
    blocks = energy[: max(len(energy) // frames, 1) * frames]
    means = blocks.reshape(-1, min(frames, len(blocks))).mean(1)
    deviation = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.inf
    return Line(engine, drift, float(means.mean()), deviation, 1 / free.seconds)


def batched(model: str, atoms: Atoms, steps: int, replicas: int, lowest: float) -> Line:
    """Run `run_md_batched`: the largest drift of all replicas, and the mean over all."""
    options = {"temperature": TEMPERATURE, "timestep": TIMESTEP, "duration": 1e-3 * steps * TIMESTEP}
    began = time.perf_counter()
    free = run_md_batched(model, replicas * [atoms], **options)
    seconds = (time.perf_counter() - began) / (steps * replicas)
    bath = run_md_batched(model, replicas * [atoms], **options, thermostat="langevin", friction=FRICTION)
    drifts = [drift for drift in free.drift or [] if drift is not None]
    if any(free.stopped) or any(bath.stopped):
        raise RuntimeError(f"a replica stopped: {next(filter(None, free.stopped + bath.stopped))}")
    means = 1e3 * (np.array(bath.potential_energy) - lowest)
    deviation = float(means.std(ddof=1) / math.sqrt(replicas)) if replicas > 1 else math.inf
    return Line(
        f"run_md_batched × {replicas}",
        max(drifts, key=abs),
        float(means.mean()),
        deviation,
        1 / seconds,
    )


def measure(model: str, duration: float, replicas: int) -> list[Line]:
    """Run all engines from one equilibrated molecule."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = SchNetCalculator(model, compile=True)
    steps = round(1000 * duration / TIMESTEP) // INTERVAL * INTERVAL
    start = run_md(atoms, temperature=TEMPERATURE, duration=2, thermostat="langevin", seed=1).atoms
    others = run_md_batched(model, 8 * [start], temperature=TEMPERATURE, duration=2, thermostat="langevin")
    lowest = min(found.energy for found in relax_batched(model, others.atoms))  # of all conformers
    start.calc = None
    draw_momenta(start, TEMPERATURE, np.random.default_rng(2), rotation=False)
    lines = []
    for name, (library, engine) in ENGINES.items():
        if find_spec(library) is None:
            continue
        runs = [engine(model, start.copy(), steps, bath, seed=3) for bath in (False, True)]
        lines.append(line(name, len(atoms), *runs, lowest))
    return [*lines, batched(model, start, steps, replicas, lowest)]


ENGINES: dict[str, tuple[str, Callable[..., Run]]] = {  # with their libraries
    "ASE": ("ase", through_ase),
    "OpenMM": ("openmm", in_openmm),
    "OpenMM-ML": ("openmmml", in_openmm_ml),
    "LAMMPS": ("lammps", in_lammps),
    "TorchSim": ("torch_sim", in_torchsim),
    "i-PI": ("ipi", in_ipi),
}


def agree(lines: list[Line]) -> bool:
    """Whether no two means are further apart than four of their deviations."""
    return all(abs(a.mean - b.mean) <= 4 * math.hypot(a.deviation, b.deviation) for a in lines for b in lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="runs/demo/model.safetensors", help="of ethanol")
    parser.add_argument("--duration", type=float, default=20.0, help="of each run, in ps")
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = measure(options.model, options.duration, options.replicas)
    table = Table(title=f"Ethanol, {TEMPERATURE:g} K, {options.duration:g} ps", title_justify="left")
    for name in ("engine", "drift", "mean potential energy", "steps/s"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for one in lines:
        mean = f"{one.mean:.1f} ± {one.deviation:.1f} meV"
        table.add_row(one.engine, f"{one.drift:+.4f} meV/atom/ps", mean, f"{one.speed:,.0f}")
    console = Console()
    console.print(table)
    console.print(f"{platform.machine()}, torch {torch.__version__}; one thread.", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in lines], indent=1), encoding="utf-8")
    return 0 if agree(lines) and all(abs(one.drift) <= GOAL for one in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
