"""
Many molecules in TorchSim
==========================

Conformers of ethanol are relaxed by FIRE in batches that they enter and leave, and then heated side by side.
"""

import argparse
import time

from pyg_schnet.simulation import SchNetCalculator, SchNetModel
from pyg_schnet.transforms import from_smiles, to_ase

try:
    import torch_sim as ts
except ImportError:
    raise SystemExit("TorchSim is missing: pip install 'pyg-schnet[torchsim]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
parser.add_argument("--n", type=int, default=16, help="number of conformers")
parser.add_argument("--steps", type=int, default=200, help="number of steps of 0.5 fs")
options = parser.parse_args()

# %%
# At most 8 molecules are in a batch; the next one enters when one has converged.

model = SchNetModel(options.model, compile=True)
conformers = [to_ase(from_smiles("CCO", seed=number)) for number in range(options.n)]
relaxed = ts.optimize(
    system=conformers,
    model=model,
    optimizer=ts.optimizers.fire,
    convergence_fn=ts.generate_force_convergence_fn(0.02, include_cell_forces=False),  # eV/Å
    max_steps=1000,
    autobatcher=ts.InFlightAutoBatcher(model, memory_scales_with="n_atoms", max_memory_scaler=8 * 9 + 1),
)
lowest = relaxed.energy.min()
above = sorted({round(1e3 * float(energy - lowest)) for energy in relaxed.energy})
print(f"{options.n} conformers in minima at {', '.join(map(str, above))} meV")

# %%
# A Langevin bath at 300 K for all of them, from rest in their minima.

start = time.perf_counter()
heated = ts.integrate(
    system=relaxed,
    model=model,
    integrator=ts.nvt_langevin,
    n_steps=options.steps,
    temperature=300,  # K
    timestep=0.0005,  # ps
)
rate = options.n * options.steps / (time.perf_counter() - start)
print(f"{options.steps * 0.0005:g} ps of each, {rate:,.0f} molecules' steps/s")

# %%
# The last frame in ASE.

difference = 0.0
for atoms, energy in zip(heated.to_atoms(), heated.energy, strict=True):
    atoms.calc = SchNetCalculator(options.model)
    difference = max(difference, abs(float(energy) - atoms.get_potential_energy()))
print(f"TorchSim's energies minus ASE's: at most {1e6 * difference:.3f} µeV")
