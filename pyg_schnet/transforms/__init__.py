"""Transforms: edges from positions, and PyG's ``Data`` from ``ase.Atoms`` and SMILES."""

from pyg_schnet.transforms.ase_atoms import from_ase as from_ase
from pyg_schnet.transforms.ase_atoms import to_ase as to_ase
from pyg_schnet.transforms.radius_graph import RadiusGraph as RadiusGraph
from pyg_schnet.transforms.smiles import from_smiles as from_smiles
