"""SchNet and continuous-filter convolutions for PyTorch Geometric."""

from typing import TYPE_CHECKING

from pyg_schnet import _moved
from pyg_schnet._lazy import lazy_names

if TYPE_CHECKING:
    from pyg_schnet.graph import neighbor_list as neighbor_list
    from pyg_schnet.graph import radius_graph as radius_graph
    from pyg_schnet.nn import CFConv as CFConv
    from pyg_schnet.nn import SchNet as SchNet
    from pyg_schnet.potentials import Ensemble as Ensemble
    from pyg_schnet.potentials import Potential as Potential
    from pyg_schnet.potentials import load as load
    from pyg_schnet.potentials import save as save
    from pyg_schnet.prediction.prediction import predict as predict
    from pyg_schnet.prediction.relaxation import relax as relax
    from pyg_schnet.simulation.dynamics import md as md
    from pyg_schnet.training.evaluation import evaluate as evaluate
    from pyg_schnet.training.from_recipe import train as train
    from pyg_schnet.transforms import RadiusGraph as RadiusGraph

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "neighbor_list": "graph",
        "radius_graph": "graph",
        "CFConv": "nn",
        "SchNet": "nn",
        "Ensemble": "potentials",
        "Potential": "potentials",
        "load": "potentials",
        "save": "potentials",
        "predict": "prediction.prediction",
        "relax": "prediction.relaxation",
        "md": "simulation.dynamics",
        "evaluate": "training.evaluation",
        "train": "training.from_recipe",
        "RadiusGraph": "transforms",
    },
)
_moved.install()
