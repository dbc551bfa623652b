"""Simulations with a trained potential: in ASE, OpenMM and LAMMPS."""

from pyg_schnet.prediction.predictor import predict as predict
from pyg_schnet.prediction.selection import select as select
from pyg_schnet.simulation.batched_md import BatchedDynamics as BatchedDynamics
from pyg_schnet.simulation.batched_md import run_md_batched as run_md_batched
from pyg_schnet.simulation.batched_relaxation import relax_batched as relax_batched
from pyg_schnet.simulation.batched_relaxation import relax_stream as relax_stream
from pyg_schnet.simulation.calculator import SchNetCalculator as SchNetCalculator
from pyg_schnet.simulation.engines.lammps import attach_to_lammps as attach_to_lammps
from pyg_schnet.simulation.engines.lammps import start_lammps as start_lammps
from pyg_schnet.simulation.engines.openmm import openmm_force as openmm_force
from pyg_schnet.simulation.engines.openmm import openmm_system as openmm_system
from pyg_schnet.simulation.md import Dynamics as Dynamics
from pyg_schnet.simulation.md import run_md as run_md
from pyg_schnet.simulation.relaxation import Relaxation as Relaxation
from pyg_schnet.simulation.relaxation import relax as relax
from pyg_schnet.simulation.structures import StructureError as StructureError
