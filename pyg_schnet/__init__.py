"""SchNet and continuous-filter convolutions for PyTorch Geometric."""

from pyg_schnet.checkpoint import load as load
from pyg_schnet.ensemble import Ensemble as Ensemble
from pyg_schnet.neighbors import RadiusGraph as RadiusGraph
from pyg_schnet.neighbors import neighbor_list as neighbor_list
from pyg_schnet.neighbors import radius_graph as radius_graph
from pyg_schnet.nn import CFConv as CFConv
from pyg_schnet.nn import SchNet as SchNet
from pyg_schnet.potential import Potential as Potential

__version__ = "0.1.0"
