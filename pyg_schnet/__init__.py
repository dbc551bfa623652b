"""SchNet and continuous-filter convolutions for PyTorch Geometric."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyg_schnet.checkpoint import load as load
    from pyg_schnet.ensemble import Ensemble as Ensemble
    from pyg_schnet.neighbors import RadiusGraph as RadiusGraph
    from pyg_schnet.neighbors import neighbor_list as neighbor_list
    from pyg_schnet.neighbors import radius_graph as radius_graph
    from pyg_schnet.nn import CFConv as CFConv
    from pyg_schnet.nn import SchNet as SchNet
    from pyg_schnet.potential import Potential as Potential

__version__ = "0.1.0"

# Imported at first use: torch and PyG take seconds, for which --help, --version and mistakes need not wait.
_MODULES = {
    "load": "checkpoint",
    "Ensemble": "ensemble",
    "RadiusGraph": "neighbors",
    "neighbor_list": "neighbors",
    "radius_graph": "neighbors",
    "CFConv": "nn",
    "SchNet": "nn",
    "Potential": "potential",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
