"""
Energy and forces of a molecule
===============================

From a file of energies and forces to the energy of a molecule, in one minute: train a potential on the
shipped frames of ethanol, build a structure from its SMILES, and predict. ``--model`` takes a trained
potential instead.
"""

import argparse
from pathlib import Path

import pyg_schnet
from pyg_schnet.transforms import from_smiles, to_ase

parser = argparse.ArgumentParser()
parser.add_argument("smiles", nargs="?", default="CCO", help="a conformer of ethanol, or other H, C and O")
parser.add_argument("--model", help="run or checkpoint of a potential; by default it is trained here")
options = parser.parse_args()

# %%
# A trained model --------------- :func:`pyg_schnet.train` reads energies (eV) and forces (eV/Å), splits off
# validation structures, and keeps the best weights in a folder. 800 steps take a quarter of a minute; the
# default is half an hour, for smaller errors. With ``resume=True`` a finished run is used again.

root = Path(pyg_schnet.__file__).parents[1]  # the clone
model = options.model
if model is None:
    model = pyg_schnet.train(
        root / "datasets" / "md17" / "ethanol_gfn2_xtb.npz",
        out=root / "runs" / "ethanol",
        data={"n_train": 1000},
        trainer={"max_steps": 800},
        resume=True,
    )
    print(f"validation: energy {1e3 * model.best['val_energy_mae_eV']:.1f} meV, ", end="")
    print(f"forces {1e3 * model.best['val_forces_mae_eV_per_A']:.1f} meV/Å, mean absolute errors")

# %%
# A structure
# -----------
# RDKit builds it from the SMILES. Any ``ase.Atoms`` or file of structures works as well.

atoms = to_ase(from_smiles(options.smiles))

# %%
# Energy and forces
# -----------------
# A model is named by its run, its file, or a :class:`~pyg_schnet.Potential` in memory.

atoms = pyg_schnet.predict(model, atoms)
print(f"{options.smiles}: {len(atoms)} atoms, energy {atoms.get_potential_energy():.4f} eV")
for symbol, force in zip(atoms.symbols, atoms.get_forces(), strict=True):
    print(f"  {symbol:2}" + "".join(f"{component:9.3f}" for component in force) + "  eV/Å")
