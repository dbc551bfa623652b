"""
Molecular dynamics
==================

Relax a molecule, heat it in a bath, and follow temperature and energy. :func:`pyg_schnet.md` uses ASE's
integrators and stops where the potential leaves its training data; in ASE itself, the potential is a
calculator.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--duration", type=float, default=1.0, help="duration of the dynamics in ps")
options = parser.parse_args()

# %%
# The nearest minimum, to forces below 0.01 eV/Å.

relaxed = pyg_schnet.relax(options.model, molecule("CH3CH2OH"))
print(f"relaxed: {relaxed.get_potential_energy():.4f} eV after {relaxed.info['steps']} steps")

# %%
# Langevin dynamics at 300 K with steps of 0.5 fs. The trajectory opens in any program that reads extended
# xyz.

folder = Path(tempfile.mkdtemp())
result = pyg_schnet.md(
    *(options.model, relaxed, folder / "path.extxyz"),
    thermostat="langevin",
    temperature=300,
    duration=options.duration,
)
print(f"{result.duration:g} ps at {result.temperature:.0f} K: {result.stopped or 'complete'}")

with open(result.log) as file:
    rows = list(csv.DictReader(file))
time = [float(row["time_ps"]) for row in rows]
energy = [1e3 * (float(row["potential_eV"]) - relaxed.get_potential_energy()) for row in rows]
figure, axes = plt.subplots(2, 1, figsize=(6, 3.6), sharex=True, layout="constrained")
axes[0].plot(time, [float(row["temperature_K"]) for row in rows], color="#D55E00", linewidth=0.8)
axes[0].axhline(300, color="#888888", linewidth=0.8)
axes[0].set_ylabel("temperature (K)")
axes[1].plot(time, energy, color="#0072B2", linewidth=0.8)
axes[1].set_ylabel("potential energy\nabove minimum (meV)")
axes[1].set_xlabel("time (ps)")
plt.show()

# %%
# The same potential as a calculator, in an integrator of ASE: constant energy from the last frame.

atoms = result.atoms
atoms.calc = SchNetCalculator(options.model)
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
for _ in range(5):
    dynamics.run(max(1, round(100 * options.duration)))
    print(
        f"{dynamics.get_time() / units.fs:7.1f} fs  T {atoms.get_temperature():4.0f} K  "
        f"total energy {atoms.get_total_energy():.4f} eV"
    )
