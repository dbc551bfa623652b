"""Data sets for any PyG project: in eV and Å, labels in float64."""

from pyg_schnet.datasets.atoms import AtomsDataset as AtomsDataset
from pyg_schnet.datasets.iso17 import ISO17 as ISO17
from pyg_schnet.datasets.md17 import MD17 as MD17
from pyg_schnet.datasets.md22 import MD22 as MD22
from pyg_schnet.datasets.qm9 import QM9 as QM9
from pyg_schnet.io.formats.npz import read_npz as read_npz
from pyg_schnet.io.formats.registry import read_frames as read_frames
