"""
Fine-tuning on other labels
===========================

A potential trained on many frames of one method is continued on fifty frames of another: here from GFN2-xTB
to GFN1-xTB, which tblite computes. Beside it, a training from random weights on five hundred frames.
Forces' errors on 100 other frames, of one seed: 27.9 meV/Å from 50 frames in 300 steps, 34.9 from random
weights and 500 frames in 1,000 steps; before fine-tuning, 90.7.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

import pyg_schnet
from pyg_schnet.datasets import AtomsDataset

try:
    from tblite.ase import TBLite
except ImportError:
    raise SystemExit("tblite, which labels, is missing: pip install 'pyg-schnet[tblite]'") from None

parser = argparse.ArgumentParser()
parser.add_argument(
    "--model", help="run or checkpoint of a potential for H, C and O; by default trained here"
)
parser.add_argument("--n_train", type=int, default=50, help="number of frames with the other labels")
parser.add_argument("--n_scratch", type=int, default=500, help="number of frames without a trained model")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--scratch_steps", type=int, default=1000)
options = parser.parse_args()

# %%
# The trained potential, from the first 800 of 1,500 frames.

folder = Path(tempfile.mkdtemp())
sample = np.load(Path(pyg_schnet.__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz")
many = folder / "gfn2_xtb.npz"
np.savez(many, z=sample["z"], **{key: sample[key][:800] for key in "REF"})
model = options.model or pyg_schnet.train(
    many, out=folder / "ethanol", data={"n_val": 50}, trainer={"max_steps": 1000}
)

# %%
# Other frames with the other labels; 100 more to test.


def label(positions: np.ndarray) -> Atoms:
    """Compute energy (eV) and forces (eV/Å) by GFN1-xTB."""
    atoms = Atoms(sample["z"], positions)
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    atoms.get_forces()
    return atoms


most = max(options.n_train, options.n_scratch)
frames = [label(positions) for positions in sample["R"][800 : 800 + most]]
write(folder / "few.extxyz", frames[: options.n_train])
write(folder / "scratch.extxyz", frames[: options.n_scratch])
write(folder / "test.extxyz", [label(positions) for positions in sample["R"][-100:]])
test = AtomsDataset(path=folder / "test.extxyz")

# %%
# Before, after, and from random weights. With ``init``, architecture and weights are those of the model,
# and its references are fitted to the other method's energies.

trainer = {"batch_size": 10, "val_every": 50, "max_steps": options.steps}
print("\nbefore fine-tuning")
print(pyg_schnet.evaluate(model, test))
print("\nafter fine-tuning")
few = pyg_schnet.train(folder / "few.extxyz", init=model, out=folder / "tuned", trainer=trainer)
print(pyg_schnet.evaluate(few, test))
print("\ntrained from random weights")
trainer["max_steps"] = options.scratch_steps
print(
    pyg_schnet.evaluate(
        pyg_schnet.train(folder / "scratch.extxyz", out=folder / "new", trainer=trainer), test
    )
)
