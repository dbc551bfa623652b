"""Training on energies and forces in plain PyG code: a loop to copy into your own project.

python examples/03_training_loop.py --steps 1000
"""

import argparse
from pathlib import Path

import torch

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.loader import DataLoader
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.potentials.metrics import evaluate

SAMPLE = Path(__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--out", help="file to write the potential to")
options = parser.parse_args()

torch.manual_seed(0)
dataset = AtomsDataset(path=SAMPLE)  # energies in eV, forces in eV/Å
order = torch.randperm(len(dataset))
train, test = dataset[order[:1000]], dataset[order[1000:]]

# The network predicts in units of the forces' RMS, relative to the mean energy.
potential = Potential(SchNet.paper(), train.scale(), train.atomref(), train.elements())
optimizer = torch.optim.Adam(potential.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
loader = DataLoader(train, batch_size=32, shuffle=True)

step = 0
while step < options.steps:
    for batch in loader:
        out = potential(batch)
        energy_error = (out["energy"] - batch.energy) / potential.scale
        force_error = (out["forces"] - batch.forces) / potential.scale
        loss = energy_error.square().mean() + force_error.square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step:5}  loss {loss.item():.2e}")
        if step == options.steps:
            break

errors = evaluate(potential.eval(), test)
print(
    f"{errors.n} test frames: energy {errors.energy_mae / kcal_per_mol:.3f} kcal/mol, "
    f"forces {errors.forces_mae / kcal_per_mol:.3f} kcal/mol/Å"
)
if options.out:
    save(potential, options.out)
