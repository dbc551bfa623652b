"""
Ethanol in water
================

OpenMM-ML mixes a potential with a force field: SchNet within ethanol, TIP3P for water, OPLS-AA between them.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import molecule

from pyg_schnet.simulation import SchNetCalculator

try:
    import openmm
    from openmm import app, unit
    from openmmml import MLPotential
except ImportError:
    raise SystemExit("OpenMM-ML is missing: pip install 'pyg-schnet[openmmml]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--steps", type=int, default=2000, help="number of steps of 0.5 fs")
parser.add_argument("--box", type=float, default=2.0, help="side of the box in nm")
options = parser.parse_args()
kJ_per_mol = units.kJ / units.mol  # eV

# %%
# The topology of ethanol, whose atoms are those of ASE and of the file of parameters.

ethanol = molecule("CH3CH2OH")
topology = app.Topology()
residue = topology.addResidue("ETH", topology.addChain())
atoms = []
for index, atom in enumerate(ethanol):
    atoms.append(topology.addAtom(f"{atom.symbol}{index}", app.Element.getBySymbol(atom.symbol), residue))
for first, second in ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)):
    topology.addBond(atoms[first], atoms[second])

# %%
# Water around it, as the force field sees both; then SchNet in place of what acts within ethanol.

parameters = Path(__file__).parent / "ethanol_opls.xml"
field = app.ForceField(str(parameters), "tip3p.xml")
modeller = app.Modeller(topology, ethanol.positions * unit.angstrom)
modeller.addSolvent(field, boxSize=openmm.Vec3(*3 * [options.box]) * unit.nanometer)
cutoff = min(0.9, 0.49 * options.box) * unit.nanometer
classical = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=cutoff)
potential = MLPotential("schnet", model=options.model)
mixed = potential.createMixedSystem(modeller.topology, classical, range(9), forceGroup=1)
print(f"{modeller.topology.getNumAtoms()} atoms, of which SchNet computes 9")

# %%
# Dynamics at 300 K. SchNet's force is in group 1: its energy is that of ethanol alone.

integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(modeller.topology, mixed, integrator, platform)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=200)
simulation.context.setVelocitiesToTemperature(300)
inner = []
for _ in range(20):
    simulation.step(options.steps // 20)
    state = simulation.context.getState(energy=True, positions=True, groups={1})
    inner.append(state.getPotentialEnergy()._value * kJ_per_mol)
bonds = np.linalg.norm(np.diff(state.getPositions(asNumpy=True)._value[1:4], axis=0), axis=1)
print(f"{options.steps * 0.0005:g} ps at 300 K; C-O {10 * bonds[0]:.2f} Å, O-H {10 * bonds[1]:.2f} Å")

# %%
# The last frame of ethanol in ASE.

ethanol.positions = 10 * state.getPositions(asNumpy=True)._value[:9]
ethanol.calc = SchNetCalculator(options.model)
print(f"OpenMM's energy of ethanol minus ASE's {1e6 * (inner[-1] - ethanol.get_potential_energy()):+.3f} µeV")
