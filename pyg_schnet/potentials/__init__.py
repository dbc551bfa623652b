"""Potentials: energies, forces and stress in physical units, with checkpoints and metrics."""

from typing import TYPE_CHECKING

from pyg_schnet._lazy import lazy_names

if TYPE_CHECKING:
    from pyg_schnet.potentials.checkpoint import load as load
    from pyg_schnet.potentials.checkpoint import save as save
    from pyg_schnet.potentials.ensemble import Ensemble as Ensemble
    from pyg_schnet.potentials.metrics import Evaluation as Evaluation
    from pyg_schnet.potentials.metrics import PropertyErrors as PropertyErrors
    from pyg_schnet.potentials.metrics import evaluate as evaluate
    from pyg_schnet.potentials.potential import Potential as Potential
    from pyg_schnet.potentials.targets import Target as Target

# Metrics import torchmetrics, which takes as long as a third of loading a model.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "load": "checkpoint",
        "save": "checkpoint",
        "Ensemble": "ensemble",
        "Evaluation": "metrics",
        "PropertyErrors": "metrics",
        "evaluate": "metrics",
        "Potential": "potential",
        "Target": "targets",
    },
)
