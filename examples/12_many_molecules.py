"""Many molecules in one batch: relax conformers from SMILES, then run dynamics.

python examples/12_many_molecules.py CCO --model runs/demo/model.safetensors --n 64

Any molecules may be mixed whose elements the potential knows: give several SMILES.
"""

import argparse
import time

import numpy as np

from pyg_schnet.simulation import SchNetCalculator, relax_batched, run_md, run_md_batched
from pyg_schnet.transforms.ase_atoms import to_ase
from pyg_schnet.transforms.smiles import from_smiles

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("smiles", nargs="*", default=["CCO"])
parser.add_argument("--model", required=True, help="checkpoint of a potential for the elements")
parser.add_argument("--n", type=int, default=64, help="conformers of each molecule")
parser.add_argument("--duration", type=float, default=0.2, help="duration of the dynamics in ps")
parser.add_argument("--temperature", type=float, default=300.0, help="temperature of the dynamics in K")
options = parser.parse_args()

names = [smiles for smiles in options.smiles for _ in range(options.n)]
starts = [to_ase(from_smiles(name, seed=number)) for number, name in enumerate(names)]

relaxations = relax_batched(options.model, starts, fmax=0.01)
converged = sum(relaxation.converged for relaxation in relaxations)
print(f"{converged} of {len(starts)} converged, in {max(one.steps for one in relaxations)} steps at most")
for smiles in dict.fromkeys(names):
    energies = np.array([one.energy for one, name in zip(relaxations, names, strict=True) if name == smiles])
    levels, counts = np.unique(np.round(energies - energies.min(), 3), return_counts=True)
    print(f"{smiles}: lowest energy {energies.min():.4f} eV; above it:")
    for level, count in list(zip(levels, counts, strict=True))[:5]:
        print(f"  {1e3 * level:6.0f} meV: {count} conformers")

minima = [relaxation.atoms for relaxation in relaxations]
settings = {"temperature": options.temperature, "duration": options.duration, "timestep": 0.5}
begin = time.perf_counter()
many = run_md_batched(options.model, minima, **settings)
batched = len(minima) * many.steps / (time.perf_counter() - begin)
print(f"dynamics of {len(minima)}: {np.mean(many.temperature):.0f} K, {batched:,.0f} molecules' steps/s")

begin = time.perf_counter()
minima[0].calc = SchNetCalculator(options.model, compile=True)
alone = run_md(minima[0], **settings)
single = alone.steps / (time.perf_counter() - begin)
print(f"dynamics of one: {single:,.0f} steps/s; batched {batched / single:.1f} times as many")
print("Both include compilation, which is negligible for a longer --duration.")
