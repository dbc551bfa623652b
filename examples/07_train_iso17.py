"""Energies and forces of ISO17 in plain PyG code: the shipped stand-in in seconds, or the real set.

The test sets are other conformations of the molecules of the training set, and molecules that are not in it.

python examples/07_train_iso17.py --steps 100
python examples/07_train_iso17.py --root data/iso17 --steps 1000000
"""

import argparse
import tempfile
from pathlib import Path

import torch

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import ISO17
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.loader import DataLoader
from pyg_schnet.potentials.metrics import evaluate

SAMPLE = Path(__file__).parents[1] / "datasets" / "iso17" / "iso17_standin_sample.tar.gz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--root", help="folder of the full ISO17, downloaded if absent (0.8 GB)")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()

torch.manual_seed(0)
root = options.root or tempfile.mkdtemp()
source = {} if options.root else {"source": SAMPLE}
reference = ISO17(root, "reference", **source)  # energies in eV, forces in eV/Å
train = reference[reference.split("official").train]

potential = Potential(SchNet.paper(), train.scale(), train.atomref(), train.elements())
potential.compile()  # the same numbers, several times faster
optimizer = torch.optim.Adam(potential.parameters(), lr=2e-3)
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
        if step % max(1, options.steps // 10) == 0:
            print(f"step {step:7,}  loss {loss.item():.2e}")
        if step == options.steps:
            break

potential.eval()
for fold, what in (("test_within", "known molecules"), ("test_other", "unknown molecules")):
    errors = evaluate(potential, ISO17(root, fold, **source))
    energy, forces = errors.energy_mae / kcal_per_mol, errors.forces_mae / kcal_per_mol
    print(f"{what}, {errors.n:,} frames: energy {energy:.2f} kcal/mol, forces {forces:.2f} kcal/mol/Å")
