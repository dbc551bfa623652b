"""The energy of a molecule from its SMILES: RDKit builds the structure, SchNet predicts.

python examples/01_energy_from_smiles.py CCO --model runs/demo/model.safetensors

Without --model the network has random weights: the number then shows only that everything works.
"""

import argparse

import torch

from pyg_schnet import Potential, SchNet, load
from pyg_schnet.transforms.smiles import from_smiles

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("smiles", nargs="?", default="CCO")
parser.add_argument("--model", help="a checkpoint of pyg-schnet train")
options = parser.parse_args()

torch.manual_seed(0)
potential = load(options.model) if options.model else Potential(SchNet()).eval()
molecule = from_smiles(options.smiles)
energy = potential(molecule, forces=False)["energy"]
print(f"{options.smiles}: {len(molecule.z)} atoms, energy {energy.item():.4f} eV")
