"""Mini-batches of structures: a faster version of PyG's DataLoader, and samplers of equal work."""

from pyg_schnet.loader.dataloader import DataLoader as DataLoader
from pyg_schnet.loader.dataloader import collate as collate
from pyg_schnet.loader.sampler import EdgeBudgetSampler as EdgeBudgetSampler
from pyg_schnet.loader.sampler import count_edges as count_edges
