"""
Path integrals in i-PI
======================

The nuclei of ethanol at 300 K as ring polymers: hydrogen has three times its classical kinetic energy.
"""

import argparse
import os
import tempfile

import numpy as np
from ase import units
from ase.build import molecule
from ase.io import write

import pyg_schnet
from pyg_schnet.simulation.engines import ipi_driver

try:
    from ipi.scripting import InteractiveSimulation, motion_nvt_xml, simulation_xml
except ImportError:
    raise SystemExit("i-PI is missing: pip install 'pyg-schnet[ipi]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--beads", type=int, default=8, help="number of beads of the ring polymers")
parser.add_argument("--steps", type=int, default=4000, help="number of steps of 0.25 fs")
options = parser.parse_args()

# %%
# A minimum. The file has elements and periodicity for the driver; i-PI needs a cell, also for molecules.

atoms = pyg_schnet.relax(options.model, molecule("CH3CH2OH"))
atoms.center(vacuum=5.0)
model = os.path.abspath(options.model) if os.path.exists(options.model) else options.model
os.chdir(tempfile.mkdtemp())  # where i-PI writes its files
write("start.extxyz", atoms)

# %%
# All beads are one batch of the network.

forces = f"""
<ffdirect name="schnet">
  <pes>custom</pes> <pes_path>{ipi_driver.__file__}</pes_path> <batch_size>{options.beads}</batch_size>
  <parameters>{{model: {model}, template: start.extxyz}}</parameters>
</ffdirect>
"""
motion = motion_nvt_xml(0.25 * units.fs, path_integrals=True)
rings = [atoms] * options.beads
text = simulation_xml(rings, forces, motion, temperature=300, prefix="path")
simulation = InteractiveSimulation(text)
simulation.run(options.steps // 5)

# %%
# The estimator of the centroid virial, by element.

kinetic = {symbol: [] for symbol in ("H", "C", "O")}
for _ in range(40):
    simulation.run(options.steps // 50)
    for symbol, values in kinetic.items():
        values.append(simulation.properties(f"kinetic_cv({symbol})") / list(atoms.symbols).count(symbol))
print(f"kinetic energies of an atom; classical: {1.5 * units.kB * 300 * 1e3:.0f} meV")
for symbol, values in kinetic.items():
    print(f"{symbol}: {1e3 * np.mean(values):.0f} meV")
