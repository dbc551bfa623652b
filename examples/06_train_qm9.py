"""
Energies of QM9
===============

The shipped sample of 120 molecules in seconds, or all of QM9: ``--root data/qm9 --n_train 110000 --steps
1000000``. The recipe ``u0`` would do the same; here its options are set one by one.
"""

import argparse
import tempfile
from pathlib import Path

import pyg_schnet
from pyg_schnet.datasets import QM9

parser = argparse.ArgumentParser()
parser.add_argument("--root", help="folder of the full QM9, downloaded if absent")
parser.add_argument("--n_train", type=int, default=80)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", help="folder for the run")
options = parser.parse_args()

# %%
# A data set of many molecules. It is processed once, into a file that training reads.

folder = Path(tempfile.mkdtemp())
sample = Path(pyg_schnet.__file__).parents[1] / "datasets" / "qm9" / "sample.xyz.tar.bz2"
dataset = QM9(options.root) if options.root else QM9(folder / "qm9", source=sample)
print(dataset)

# %%
# Energies relative to fitted references of the atoms, by mean absolute errors. ``energy`` is U0 in eV.

run = pyg_schnet.train(
    Path(dataset.processed_paths[0]),
    out=options.out or folder / "run",
    data={"n_train": options.n_train, "n_val": 10},
    trainer={"max_steps": options.steps, "val_every": max(1, options.steps // 10), "loss": "absolute"},
    report=print,
)

# %%
# Errors on molecules that were not trained on.

print(pyg_schnet.evaluate(run, Path(dataset.processed_paths[0]), part="test"))
