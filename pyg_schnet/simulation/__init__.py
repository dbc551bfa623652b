"""Simulations with a trained potential, in ASE: dynamics, relaxation and predictions in bulk."""

from pyg_schnet.simulation.calculator import SchNetCalculator as SchNetCalculator
from pyg_schnet.simulation.dynamics import Dynamics as Dynamics
from pyg_schnet.simulation.dynamics import run_md as run_md
from pyg_schnet.simulation.prediction import predict as predict
from pyg_schnet.simulation.relaxation import Relaxation as Relaxation
from pyg_schnet.simulation.relaxation import relax as relax
