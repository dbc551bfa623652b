"""Layers: the continuous-filter convolution, its filters, SchNet and its readouts."""

from typing import TYPE_CHECKING

from pyg_schnet._lazy import lazy_names

if TYPE_CHECKING:
    from pyg_schnet.nn.cfconv import CFConv as CFConv
    from pyg_schnet.nn.config import SchNetConfig as SchNetConfig
    from pyg_schnet.nn.filters import FilterNetwork as FilterNetwork
    from pyg_schnet.nn.interaction import Interaction as Interaction
    from pyg_schnet.nn.radial import CosineEnvelope as CosineEnvelope
    from pyg_schnet.nn.radial import GaussianSmearing as GaussianSmearing
    from pyg_schnet.nn.radial import PolynomialEnvelope as PolynomialEnvelope
    from pyg_schnet.nn.radial import ShiftedSoftplus as ShiftedSoftplus
    from pyg_schnet.nn.readout import AtomicMean as AtomicMean
    from pyg_schnet.nn.readout import AtomicSum as AtomicSum
    from pyg_schnet.nn.readout import AtomicValues as AtomicValues
    from pyg_schnet.nn.readout import AtomwiseNetwork as AtomwiseNetwork
    from pyg_schnet.nn.readout import DipoleMagnitude as DipoleMagnitude
    from pyg_schnet.nn.readout import SpatialExtent as SpatialExtent
    from pyg_schnet.nn.schnet import SchNet as SchNet

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CFConv": "cfconv",
        "SchNetConfig": "config",
        "FilterNetwork": "filters",
        "Interaction": "interaction",
        "CosineEnvelope": "radial",
        "GaussianSmearing": "radial",
        "PolynomialEnvelope": "radial",
        "ShiftedSoftplus": "radial",
        "AtomicMean": "readout",
        "AtomicSum": "readout",
        "AtomicValues": "readout",
        "AtomwiseNetwork": "readout",
        "DipoleMagnitude": "readout",
        "SpatialExtent": "readout",
        "SchNet": "schnet",
    },
)
