"""Molecular dynamics in ASE with a trained potential: relax, heat, and monitor the energy.

python examples/04_molecular_dynamics.py runs/demo/model.safetensors
"""

import argparse

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="checkpoint of a potential for H, C and O")
parser.add_argument("--steps", type=int, default=1000, help="number of steps of 0.5 fs")
options = parser.parse_args()

atoms = molecule("CH3CH2OH")
atoms.calc = SchNetCalculator(options.model)
BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
print(f"relaxed: {atoms.get_potential_energy():.4f} eV")

# Maxwell-Boltzmann momenta, center of mass at rest. Half of the kinetic energy becomes potential energy:
# start with twice the temperature to arrive at 300 K.
masses = atoms.get_masses()[:, None]
momenta = np.sqrt(masses * units.kB * 600) * np.random.default_rng(0).standard_normal((len(atoms), 3))
atoms.set_momenta(momenta - masses / masses.sum() * momenta.sum(axis=0))
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
for _ in range(10):
    dynamics.run(options.steps // 10)
    print(
        f"{dynamics.get_time() / units.fs:7.1f} fs  T {atoms.get_temperature():4.0f} K  "
        f"total energy {atoms.get_total_energy():.4f} eV"
    )
