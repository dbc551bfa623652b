"""
A transition state by Sella
===========================

Sella searches for a saddle point of the energy: it climbs along one direction and descends along all others.
Here the methyl group of ethanol turns by 120°, and the transition state is half-way. Sella is an extra:
``pip install 'pyg-schnet[sella]'``.
"""

import argparse
import tempfile

import numpy as np
from ase.build import molecule
from ase.vibrations import Vibrations

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

try:
    from sella import Sella
except ImportError:
    raise SystemExit("Sella is not installed: pip install 'pyg-schnet[sella]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--fmax", type=float, default=0.005, help="longest force at convergence in eV/Å")
options = parser.parse_args()

# %%
# A minimum, and a guess of the transition state: the methyl group turned by 50°, not quite half-way.

minimum = pyg_schnet.relax(options.model, molecule("CH3CH2OH"))
oxygen = int(minimum.symbols.search("O")[0])
inner, outer = sorted(minimum.symbols.search("C"), key=lambda carbon: minimum.get_distance(carbon, oxygen))
near = minimum.get_all_distances()[outer] < 1.3
methyl = [atom.index for atom in minimum if atom.symbol == "H" and near[atom.index]]
saddle = minimum.copy()
angle = minimum.get_dihedral(oxygen, inner, outer, methyl[0])
saddle.set_dihedral(oxygen, inner, outer, methyl[0], angle + 50, indices=methyl)

# %%
# The search, in internal coordinates.

saddle.calc = SchNetCalculator(options.model)
search = Sella(saddle, order=1, internal=True, logfile=None)
converged = search.run(fmax=options.fmax, steps=200)
barrier = 1e3 * (saddle.get_potential_energy() - minimum.get_potential_energy())
turned = saddle.get_dihedral(oxygen, inner, outer, methyl[0]) - angle
print(f"{'converged' if converged else 'NOT converged'} after {search.nsteps} steps")
print(f"barrier {barrier:.0f} meV, methyl group turned by {turned % 360:.0f}°")

# %%
# At a transition state exactly one vibration has an imaginary frequency: the motion over the barrier.
# Translations and rotations are near zero.

with tempfile.TemporaryDirectory() as folder:
    vibrations = Vibrations(saddle, name=f"{folder}/vibrations")
    vibrations.run()
    frequencies = vibrations.get_frequencies()
imaginary = frequencies.imag[np.abs(frequencies.imag) > 50]
print("imaginary frequencies in 1/cm:", *(f"{value:.0f}i" for value in imaginary))
