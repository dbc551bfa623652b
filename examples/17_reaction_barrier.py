"""
The barrier of a rotation by NEB
================================

ASE's nudged elastic band finds the path over the barrier between two minima: here the methyl group of ethanol
turns by 120°. The potential is a calculator, as any of ASE's.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.mep import NEB
from ase.optimize import FIRE

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--images", type=int, default=7, help="number of images between the minima")
parser.add_argument("--fmax", type=float, default=0.05, help="longest force at convergence in eV/Å")
options = parser.parse_args()

# %%
# A minimum.

start = pyg_schnet.relax(options.model, molecule("CH3CH2OH"))

# %%
# The first path turns the three hydrogens of the methyl group in equal steps about the bond of both carbons.

carbons = [atom.index for atom in start if atom.symbol == "C"]
oxygen = next(atom.index for atom in start if atom.symbol == "O")
inner, outer = sorted(carbons, key=lambda carbon: start.get_distance(carbon, oxygen))
near = start.get_all_distances()[outer] < 1.3
methyl = [atom.index for atom in start if atom.symbol == "H" and near[atom.index]]
images = []
for angle in np.linspace(0, 120, options.images + 2):
    image = start.copy()
    image.calc = SchNetCalculator(options.model)
    image.rotate_dihedral(oxygen, inner, outer, methyl[0], angle, indices=methyl)
    images.append(image)

# %%
# The band, with an image that climbs to the top.

band = NEB(images, climb=True, method="improvedtangent")
optimizer = FIRE(band, logfile=None)
converged = optimizer.run(fmax=options.fmax, steps=200)
energies = np.array([image.get_potential_energy() for image in images])
energies = 1e3 * (energies - energies[0])
print(f"{'converged' if converged else 'NOT converged'} after {optimizer.nsteps} steps")
print(f"barrier {energies.max():.0f} meV, end minus start {energies[-1]:+.1f} meV")

angles = [image.get_dihedral(oxygen, inner, outer, methyl[0]) for image in images]
turned = np.unwrap(np.radians(angles))
turned = np.degrees(np.abs(turned - turned[0]))
figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
axes.plot(turned, energies, "o-", color="#0072B2")
axes.set_xlabel("rotation of the methyl group (°)")
axes.set_ylabel("energy above the minimum (meV)")
plt.show()
