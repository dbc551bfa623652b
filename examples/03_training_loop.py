"""
A training loop in plain PyG code
=================================

Energies and forces, with :class:`~pyg_schnet.Potential`, a data set and a loader: a loop to copy into your
own project. :func:`pyg_schnet.train` does the same with validation, checkpoints, averaged weights and
compiled kernels.
"""

import argparse
from itertools import count
from pathlib import Path

import torch

import pyg_schnet
from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import DataLoader
from pyg_schnet.training import potential_loss

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--out", help="file to write the potential to")
options = parser.parse_args()

# %%
# Data: 1,500 frames of ethanol, energies in eV and forces in eV/Å.

torch.manual_seed(0)
dataset = AtomsDataset(
    path=Path(pyg_schnet.__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
)
order = torch.randperm(len(dataset))
train, test = dataset[order[:1000]], dataset[order[1000:]]

# %%
# The network predicts in units of the forces' RMS, relative to the mean energy.

potential = Potential(SchNet.paper(), train.scale(), train.atomref(), train.elements())
optimizer = torch.optim.Adam(potential.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
loader = DataLoader(train, batch_size=32, shuffle=True)

# %%
# :func:`~pyg_schnet.training.potential_loss` is equation (5) of the paper: squared errors of energies and
# forces.

batches = (batch for _ in count() for batch in loader)
for step, batch in zip(range(1, options.steps + 1), batches, strict=False):
    loss = potential_loss(potential(batch), batch, energy_weight=0.1, scale=potential.scale)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 100 == 0:
        print(f"step {step:5}  loss {loss.item():.2e}")

# %%
# Errors on frames that were not trained on.

print(pyg_schnet.evaluate(potential, test))
if options.out:
    pyg_schnet.save(potential, options.out)
