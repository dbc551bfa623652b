"""
Vibrations of a molecule
========================

Relax ethanol and compute its vibrational frequencies, compared with those of GFN2-xTB, which labelled the
training data, if tblite is installed. The potential is trained for a quarter of a minute, or given by
``--model``.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import Vibrations

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser()
parser.add_argument(
    "--model", help="run or checkpoint of a potential for H, C and O; by default trained here"
)
options = parser.parse_args()

# %%
# A potential for ethanol.

root = Path(pyg_schnet.__file__).parents[1]  # the clone
model = options.model or pyg_schnet.train(
    root / "datasets" / "md17" / "ethanol_gfn2_xtb.npz",
    out=root / "runs" / "ethanol",
    data={"n_train": 1000},
    trainer={"max_steps": 800},
    resume=True,
)

# %%
# The minimum, and displacements of each atom by ±0.01 Å, which give the second derivatives.


def frequencies(minimum: Atoms) -> np.ndarray:
    """Return the frequencies in 1/cm, imaginary ones negative."""
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(minimum, name=f"{folder}/vibrations")
        vibrations.run()
        modes = vibrations.get_frequencies()
    return np.sort(modes.real - modes.imag)[6:]  # without translations and rotations


relaxed = pyg_schnet.relax(model, molecule("CH3CH2OH"), fmax=0.001)
print(f"SchNet: {relaxed.info['steps']} steps to {relaxed.get_potential_energy():.4f} eV")
print(f"C-C {relaxed.get_distance(0, 1):.3f} Å, C-O {relaxed.get_distance(1, 2):.3f} Å")
relaxed.calc = SchNetCalculator(model)
ours = frequencies(relaxed)

# %%
# The reference method, if it is installed.

figure, axes = plt.subplots(figsize=(6, 2), layout="constrained")
axes.vlines(ours, 0, 1, color="#0072B2", label="SchNet")
try:
    from tblite.ase import TBLite
except ImportError:
    print("tblite is not installed, so there is no reference: pip install 'pyg-schnet[tblite]'")
    print("frequencies in 1/cm:", " ".join(f"{one:.0f}" for one in ours))
else:
    relaxed.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(relaxed, logfile=None).run(fmax=0.001)
    print(f"GFN2-xTB: C-C {relaxed.get_distance(0, 1):.3f} Å, C-O {relaxed.get_distance(1, 2):.3f} Å")
    reference = frequencies(relaxed)
    print("mode  SchNet  GFN2-xTB  (1/cm)")
    for number, pair in enumerate(zip(ours, reference, strict=True), 1):
        print("{:4}  {:6.0f}  {:8.0f}".format(number, *pair))
    print(f"mean absolute error {np.abs(ours - reference).mean():.1f} 1/cm")
    axes.vlines(reference, -1, 0, color="#D55E00", label="GFN2-xTB")
axes.set_yticks([])
axes.set_xlabel("frequency (1/cm)")
axes.legend(frameon=False)
plt.show()
