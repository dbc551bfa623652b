"""SchNet and continuous-filter convolutions for PyTorch Geometric."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pyg_schnet import _moved

if TYPE_CHECKING:
    from pyg_schnet.graph import neighbor_list as neighbor_list
    from pyg_schnet.graph import radius_graph as radius_graph
    from pyg_schnet.nn import CFConv as CFConv
    from pyg_schnet.nn import SchNet as SchNet
    from pyg_schnet.potentials import Ensemble as Ensemble
    from pyg_schnet.potentials import Potential as Potential
    from pyg_schnet.potentials import load as load
    from pyg_schnet.potentials import save as save
    from pyg_schnet.transforms import RadiusGraph as RadiusGraph

__version__ = "0.1.0"

# Imported at first use: torch and PyG take seconds, for which --help, --version and mistakes need not wait.
_PACKAGES = {
    "neighbor_list": "graph",
    "radius_graph": "graph",
    "CFConv": "nn",
    "SchNet": "nn",
    "Ensemble": "potentials",
    "Potential": "potentials",
    "load": "potentials",
    "save": "potentials",
    "RadiusGraph": "transforms",
}
_moved.install()


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        value = getattr(import_module(f"{__name__}.{_PACKAGES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES})
