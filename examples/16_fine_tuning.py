"""
Fine-tuning on other labels
===========================

A potential trained on many frames of one method is continued on fifty frames of another: here from GFN2-xTB
to GFN1-xTB, which tblite computes. Beside it, the same training from random weights.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from ase import Atoms
from ase.io import write

import pyg_schnet
from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import DataLoader
from pyg_schnet.training import potential_loss
from pyg_schnet.transforms import to_ase

try:
    from tblite.ase import TBLite
except ImportError:
    raise SystemExit("tblite, which labels, is missing: pip install 'pyg-schnet[tblite]'") from None

parser = argparse.ArgumentParser()
parser.add_argument(
    "--model", help="run or checkpoint of a potential for H, C and O; by default trained here"
)
parser.add_argument("--n_train", type=int, default=50, help="number of frames with the other labels")
parser.add_argument("--steps", type=int, default=300)
options = parser.parse_args()

# %%
# The trained potential.

root = Path(pyg_schnet.__file__).parents[1]  # the clone
sample = root / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
run = options.model or pyg_schnet.train(
    sample, out=root / "runs" / "ethanol", data={"n_train": 1000}, trainer={"max_steps": 800}, resume=True
)

# %%
# Frames with the other labels; 100 more to test.


def label(atoms: Atoms) -> Atoms:
    """Compute energy (eV) and forces (eV/Å) by GFN1-xTB."""
    copy = Atoms(atoms.numbers, atoms.positions)
    copy.calc = TBLite(method="GFN1-xTB", verbosity=0)
    copy.get_forces()
    return copy


frames = AtomsDataset(path=sample)[-options.n_train - 100 :]
file = Path(tempfile.mkdtemp()) / "gfn1_xtb.extxyz"
write(file, [label(to_ase(frame)) for frame in frames])
labelled = AtomsDataset(path=file)
train, test = labelled[:-100], labelled[-100:]

# %%
# The other method has other energies of atoms: their mean difference goes into the references, so that the
# network learns only what is left.


def fit(potential: Potential, lr: float) -> None:
    """Train a potential on the frames of the other method, and print its errors."""
    optimizer = torch.optim.Adam(potential.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    step = 0
    while step < options.steps:
        for batch in DataLoader(train, batch_size=10, shuffle=True):
            loss = potential_loss(potential(batch), batch, energy_weight=0.1, scale=potential.scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    print(pyg_schnet.evaluate(potential, test))


torch.manual_seed(0)
potential = pyg_schnet.load(run)
potential.train().requires_grad_(True)
errors = pyg_schnet.evaluate(potential, train)
shift = (errors.energy[0] - errors.energy[1]).mean() / errors.sizes[0]
potential.atomref[list(potential.elements)] += shift
print(f"references shifted by {shift:.3f} eV per atom")

# %%
# Before, after, and from random weights.

print("\nbefore fine-tuning")
print(pyg_schnet.evaluate(potential, test))
print("\nafter fine-tuning")
fit(potential, lr=3e-4)
print("\ntrained from random weights")
fit(Potential(SchNet.paper(), train.scale(), train.atomref(), train.elements()), lr=1e-3)
