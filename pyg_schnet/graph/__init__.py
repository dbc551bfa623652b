"""Graphs of atoms: neighbors, periodic images, pairs, strain, and validation of input."""

from pyg_schnet.graph.neighbors import neighbor_list as neighbor_list
from pyg_schnet.graph.neighbors import radius_graph as radius_graph
