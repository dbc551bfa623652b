"""The energy of a molecule from its SMILES: RDKit makes the structure, SchNet predicts.

python examples/01_energy_from_smiles.py CCO --model runs/demo/model.safetensors

Without --model the network has random weights: the number then shows only that everything works.
"""

import argparse

import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet, load


def from_smiles(smiles: str, seed: int = 0) -> Data:
    """Embed a molecule in space (ETKDG) and relax it (MMFF); positions in Å."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"`smiles` must be a valid SMILES, got {smiles!r}")
    molecule = Chem.AddHs(molecule)
    if AllChem.EmbedMolecule(molecule, randomSeed=seed) != 0:
        raise ValueError(f"RDKit found no structure for {smiles!r}; try another seed")
    AllChem.MMFFOptimizeMolecule(molecule)
    z = torch.tensor([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    pos = torch.tensor(molecule.GetConformer().GetPositions(), dtype=torch.float32)
    return Data(z=z, pos=pos)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("smiles", nargs="?", default="CCO")
parser.add_argument("--model", help="a checkpoint of pyg-schnet train")
options = parser.parse_args()

torch.manual_seed(0)
potential = load(options.model) if options.model else Potential(SchNet()).eval()
molecule = from_smiles(options.smiles)
energy = potential(molecule, forces=False)["energy"]
print(f"{options.smiles}: {len(molecule.z)} atoms, energy {energy.item():.4f} eV")
