"""Potentials: energies, forces and stress in physical units, with checkpoints and metrics."""

from pyg_schnet.potentials.checkpoint import load as load
from pyg_schnet.potentials.checkpoint import save as save
from pyg_schnet.potentials.ensemble import Ensemble as Ensemble
from pyg_schnet.potentials.metrics import Evaluation as Evaluation
from pyg_schnet.potentials.metrics import PropertyErrors as PropertyErrors
from pyg_schnet.potentials.metrics import evaluate as evaluate
from pyg_schnet.potentials.potential import Potential as Potential
from pyg_schnet.potentials.targets import Target as Target
