"""
Many molecules in one batch
===========================

Relax conformers from SMILES, then run dynamics of all of them, one call of the potential a step. Molecules
whose elements the potential knows may be mixed: give several SMILES.
"""

import argparse
import time

import numpy as np

import pyg_schnet
from pyg_schnet.transforms import from_smiles, to_ase

parser = argparse.ArgumentParser()
parser.add_argument("smiles", nargs="*", default=["CCO"])
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--n", type=int, default=32, help="conformers of each molecule")
parser.add_argument("--duration", type=float, default=0.2, help="duration of the dynamics in ps")
parser.add_argument("--temperature", type=float, default=300.0, help="temperature of the dynamics in K")
options = parser.parse_args()

# %%
# Starts from RDKit.

names = [smiles for smiles in options.smiles for _ in range(options.n)]
starts = [to_ase(from_smiles(name, seed=number)) for number, name in enumerate(names)]

# %%
# The nearest minima, and how often each was found.

minima = pyg_schnet.relax(options.model, starts)
converged = sum(atoms.info["converged"] for atoms in minima)
steps = max(atoms.info["steps"] for atoms in minima)
print(f"{converged} of {len(starts)} converged, in {steps} steps at most")
for smiles in dict.fromkeys(names):
    own = [atoms for atoms, name in zip(minima, names, strict=True) if name == smiles]
    energies = np.array([atoms.get_potential_energy() for atoms in own])
    levels, counts = np.unique(np.round(energies - energies.min(), 3), return_counts=True)
    print(f"{smiles}: lowest energy {energies.min():.4f} eV; above it:")
    for level, count in list(zip(levels, counts, strict=True))[:5]:
        print(f"  {1e3 * level:6.0f} meV: {count} conformers")

# %%
# Dynamics of all, and of one for comparison.

settings = {"temperature": options.temperature, "duration": options.duration}
begin = time.perf_counter()
many = pyg_schnet.md(options.model, minima, **settings)
batched = len(minima) * many.steps / (time.perf_counter() - begin)
print(f"dynamics of {len(minima)}: {np.mean(many.temperature):.0f} K, {batched:,.0f} molecules' steps/s")

begin = time.perf_counter()
alone = pyg_schnet.md(options.model, minima[0], **settings)
single = alone.steps / (time.perf_counter() - begin)
print(f"dynamics of one: {single:,.0f} steps/s; batched {batched / single:.1f} times as many")
print("Both include compilation, which is negligible for a longer --duration.")
