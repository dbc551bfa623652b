"""Relax ethanol and compute its vibrations, compared with GFN2-xTB if tblite is installed.

python examples/08_relax_and_vibrations.py --model runs/demo/model.safetensors

Without --model a potential is trained first, on the shipped frames, for half a minute.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.vibrations import Vibrations

from pyg_schnet import cli
from pyg_schnet.simulation import SchNetCalculator, relax

ROOT = Path(__file__).parents[1] / "datasets" / "md17"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", help="checkpoint of a potential for H, C and O")
parser.add_argument("--steps", type=int, default=1500, help="training steps, without --model")
parser.add_argument("--out", type=Path, help="folder for the trained model")
options = parser.parse_args()
out = options.out or Path(tempfile.mkdtemp())

model = options.model or out / "model.safetensors"
if options.model is None:
    data = ["--data.path", str(ROOT / "ethanol_gfn2_xtb.npz"), "--data.n_train", "1000"]
    steps = ["--trainer.max_steps", str(options.steps), "--quiet", "--out", str(out)]
    if cli.main(["train", str(ROOT / "recipes" / "own_file.yaml"), *data, *steps]) != 0:
        raise SystemExit(1)


def minimum_and_frequencies(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    """Relax, then displace each atom by ±0.01 Å; frequencies in 1/cm, imaginary ones negative."""
    relaxation = relax(atoms, fmax=0.001)
    relaxed = relaxation.atoms
    print(f"{relaxation.steps} steps to {relaxation.energy:.4f} eV, forces below {relaxation.fmax:.1e} eV/Å")
    relaxed.calc = atoms.calc
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(relaxed, name=f"{folder}/vibrations")
        vibrations.run()
        modes = vibrations.get_frequencies()
    return relaxed, np.sort(modes.real - modes.imag)[6:]  # without translations and rotations


ethanol = molecule("CH3CH2OH")
ethanol.calc = SchNetCalculator(model)
print("SchNet:", end=" ")
relaxed, ours = minimum_and_frequencies(ethanol)
print(f"C-C {relaxed.get_distance(0, 1):.3f} Å, C-O {relaxed.get_distance(1, 2):.3f} Å")

try:
    from tblite.ase import TBLite
except ImportError:
    print("tblite is not installed, so there is no reference: pip install 'pyg-schnet[tblite]'")
    print("frequencies in 1/cm:", " ".join(f"{one:.0f}" for one in ours))
else:
    ethanol.calc = TBLite(method="GFN2-xTB", verbosity=0)
    print("GFN2-xTB:", end=" ")
    relaxed, reference = minimum_and_frequencies(ethanol)
    print(f"C-C {relaxed.get_distance(0, 1):.3f} Å, C-O {relaxed.get_distance(1, 2):.3f} Å")
    print("mode  SchNet  GFN2-xTB  (1/cm)")
    for number, pair in enumerate(zip(ours, reference, strict=True), 1):
        print("{:4}  {:6.0f}  {:8.0f}".format(number, *pair))
    print(f"mean absolute error {np.abs(ours - reference).mean():.1f} 1/cm")
