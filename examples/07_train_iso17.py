"""
Energies and forces of ISO17
============================

Test sets are other conformations of the molecules of the training set, and molecules that are not in it. The
shipped stand-in takes seconds; ``--root data/iso17 --steps 1000000`` downloads and trains the real set.
"""

import argparse
import tempfile
from pathlib import Path

import pyg_schnet
from pyg_schnet.datasets import ISO17

parser = argparse.ArgumentParser()
parser.add_argument("--root", help="folder of the full ISO17, downloaded if absent (0.8 GB)")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--out", help="folder for the run")
options = parser.parse_args()

# %%
# The data set, in eV and Å, with its published split.

folder = Path(tempfile.mkdtemp())
sample = Path(pyg_schnet.__file__).parents[1] / "datasets" / "iso17" / "iso17_standin_sample.tar.gz"
root, source = (options.root, {}) if options.root else (folder / "iso17", {"source": sample})
reference = ISO17(root, "reference", **source)

# %%
# Training on the published split.

run = pyg_schnet.train(
    Path(reference.processed_paths[0]),
    out=options.out or folder / "run",
    data={"split": "official"},
    trainer={"max_steps": options.steps, "val_every": max(1, options.steps // 5)},
    report=print,
)

# %%
# Errors on both test sets.

for fold, what in (("test_within", "known molecules"), ("test_other", "unknown molecules")):
    print(f"\n{what}")
    print(pyg_schnet.evaluate(run, ISO17(root, fold, **source)))
