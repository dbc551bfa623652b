"""Energies of QM9 in plain PyG code: the shipped sample in seconds, or all of QM9.

python examples/06_train_qm9.py --steps 200
python examples/06_train_qm9.py --root data/qm9 --n_train 110000 --steps 1000000
"""

import argparse
from pathlib import Path

import torch

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import QM9
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.loader import DataLoader
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.training import Soap

SAMPLE = Path(__file__).parents[1] / "datasets" / "qm9" / "sample.xyz.tar.bz2"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--root", help="folder of the full QM9, downloaded if absent")
parser.add_argument("--n_train", type=int, default=90)
parser.add_argument("--steps", type=int, default=200)
options = parser.parse_args()

torch.manual_seed(0)
dataset = QM9(options.root) if options.root else QM9(source=SAMPLE)  # `energy` is U0 in eV
order = torch.randperm(len(dataset))
train, test = dataset[order[: options.n_train]], dataset[order[options.n_train :]]

# Energies relative to fitted atomic references, in units of the residual for each atom.
references = train.references()
potential = Potential(SchNet.paper(), train.scale(), references.energy, references.elements)
potential.compile()  # the same numbers, several times faster
optimizer = Soap(potential.parameters(), lr=4e-3)  # fewer steps than Adam
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
loader = DataLoader(train, batch_size=32, shuffle=True)

step = 0
while step < options.steps:
    for batch in loader:
        out = potential(batch, forces=False)
        loss = ((out["energy"] - batch.energy) / potential.scale).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % max(1, options.steps // 10) == 0:
            print(f"step {step:7,}  mean absolute error {loss.item() * float(potential.scale):.4f} eV")
        if step == options.steps:
            break

errors = evaluate(potential.eval(), test)
energy = errors.energy_mae
print(f"{errors.n:,} test molecules: U0 {energy:.4f} eV ({energy / kcal_per_mol:.3f} kcal/mol)")
