"""Data sets for any PyG project: in eV and Å, labels in float64."""

from pyg_schnet.datasets.atoms import AtomsDataset as AtomsDataset
from pyg_schnet.datasets.npz import read_npz as read_npz
