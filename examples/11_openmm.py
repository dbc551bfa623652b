"""
Dynamics in OpenMM
==================

Ethanol at constant energy and with a thermostat, with the same energies and forces as in ASE.
"""

import argparse

import numpy as np
from ase import units
from ase.build import molecule

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator, openmm_system

try:
    import openmm
except ImportError:
    raise SystemExit("OpenMM is missing: pip install 'pyg-schnet[openmm]'") from None

kJ_per_mol = units.kJ / units.mol  # eV; OpenMM computes in nm, ps and kJ/mol

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--steps", type=int, default=2000, help="number of steps of 0.5 fs")
parser.add_argument("--temperature", type=float, default=300.0, help="temperature in K")
options = parser.parse_args()

# %%
# A minimum.

atoms = pyg_schnet.relax(options.model, molecule("CH3CH2OH"))

# %%
# Half of the kinetic energy becomes potential energy: without a thermostat, start with twice the temperature.
runs = {
    "constant energy": (openmm.VerletIntegrator(0.0005), 2 * options.temperature),
    "Langevin": (openmm.LangevinMiddleIntegrator(options.temperature, 10.0, 0.0005), options.temperature),
}
for name, (integrator, start) in runs.items():
    system = openmm_system(options.model, atoms)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(start, 0)
    total, kinetic = [], []
    for _ in range(20):
        integrator.step(options.steps // 20)
        state = context.getState(energy=True, positions=True)
        energies = [state.getPotentialEnergy()._value, state.getKineticEnergy()._value]
        kinetic.append(energies[1] * kJ_per_mol)
        total.append(sum(energies) * kJ_per_mol)
    temperature = 2 * np.mean(kinetic) / (3 * len(atoms) * units.kB)
    print(
        f"{name}: {options.steps * 0.0005:g} ps, mean temperature {temperature:.0f} K, total energy "
        f"{np.mean(total):.4f} eV, standard deviation {1e3 * np.std(total):.2f} meV"
    )

# %%
# The same frame in ASE.

atoms.positions = 10 * state.getPositions(asNumpy=True)._value
atoms.calc = SchNetCalculator(options.model)
difference = state.getPotentialEnergy()._value * kJ_per_mol - atoms.get_potential_energy()
print(f"last frame: OpenMM's energy minus ASE's {1e6 * difference:+.3f} µeV")
