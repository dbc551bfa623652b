"""
Energy and forces of a molecule
===============================

A structure from its SMILES, and its energy and forces from a pretrained potential. ``--model`` takes one of
your own instead: a run, a checkpoint, or its name.
"""

import argparse

import pyg_schnet
from pyg_schnet.transforms import from_smiles, to_ase

parser = argparse.ArgumentParser()
parser.add_argument("smiles", nargs="?", default="CCO", help="a molecule that the potential knows")
parser.add_argument("--model", default="rmd17-ethanol", help="pretrained model, run or checkpoint")
options = parser.parse_args()

# %%
# A trained model
# ---------------
# Its card says for which structures it is made, and how far to trust it; ``pyg-schnet models`` lists all. To
# train one on your own file takes minutes: :func:`pyg_schnet.train`.

potential = pyg_schnet.load(options.model)
if potential.card is not None:
    print(f"{potential.card.title} ({potential.card.level_of_theory})")
    print(f"for {potential.card.limits}")
    for error in potential.card.errors:
        print(f"  {error.quantity}: mean absolute error {error.mae:.4f} {error.unit}")

# %%
# A structure
# -----------
# RDKit builds it from the SMILES. Any ``ase.Atoms`` or file of structures works as well.

atoms = to_ase(from_smiles(options.smiles))

# %%
# Energy and forces
# -----------------
# A model is a :class:`~pyg_schnet.Potential` in memory as here, or the name of a run or file.

atoms = pyg_schnet.predict(potential, atoms)
print(f"{options.smiles}: {len(atoms)} atoms, energy {atoms.get_potential_energy():.4f} eV")
for symbol, force in zip(atoms.symbols, atoms.get_forces(), strict=True):
    print(f"  {symbol:2}" + "".join(f"{component:9.3f}" for component in force) + "  eV/Å")
