"""Simulations with a trained potential: in ASE and other engines."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyg_schnet._lazy import lazy_names

if TYPE_CHECKING:
    from pyg_schnet.simulation.batched_md import BatchedDynamics as BatchedDynamics
    from pyg_schnet.simulation.batched_md import run_md_batched as run_md_batched
    from pyg_schnet.simulation.batched_relaxation import relax_batched as relax_batched
    from pyg_schnet.simulation.batched_relaxation import relax_stream as relax_stream
    from pyg_schnet.simulation.calculator import SchNetCalculator as SchNetCalculator
    from pyg_schnet.simulation.constraints import RigidBonds as RigidBonds
    from pyg_schnet.simulation.engines.ipi_driver import IpiDriver as IpiDriver
    from pyg_schnet.simulation.engines.lammps import attach_to_lammps as attach_to_lammps
    from pyg_schnet.simulation.engines.lammps import build_lammps_plugin as build_lammps_plugin
    from pyg_schnet.simulation.engines.lammps import export_to_lammps as export_to_lammps
    from pyg_schnet.simulation.engines.lammps import set_lammps_pair_style as set_lammps_pair_style
    from pyg_schnet.simulation.engines.lammps import start_lammps as start_lammps
    from pyg_schnet.simulation.engines.openmm import openmm_force as openmm_force
    from pyg_schnet.simulation.engines.openmm import openmm_system as openmm_system
    from pyg_schnet.simulation.engines.torchsim import SchNetModel as SchNetModel
    from pyg_schnet.simulation.md import Dynamics as Dynamics
    from pyg_schnet.simulation.md import run_md as run_md
    from pyg_schnet.simulation.relaxation import Relaxation as Relaxation
    from pyg_schnet.simulation.relaxation import relax as relax
    from pyg_schnet.simulation.structures import StructureError as StructureError

_import, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BatchedDynamics": "batched_md",
        "run_md_batched": "batched_md",
        "relax_batched": "batched_relaxation",
        "relax_stream": "batched_relaxation",
        "SchNetCalculator": "calculator",
        "RigidBonds": "constraints",
        "IpiDriver": "engines.ipi_driver",
        "attach_to_lammps": "engines.lammps",
        "build_lammps_plugin": "engines.lammps",
        "export_to_lammps": "engines.lammps",
        "set_lammps_pair_style": "engines.lammps",
        "start_lammps": "engines.lammps",
        "openmm_force": "engines.openmm",
        "openmm_system": "engines.openmm",
        "SchNetModel": "engines.torchsim",
        "Dynamics": "md",
        "run_md": "md",
        "Relaxation": "relaxation",
        "relax": "relaxation",
        "StructureError": "structures",
    },
)
_MOVED = {"predict": "pyg_schnet.prediction.predictor", "select": "pyg_schnet.prediction.selection"}


def __getattr__(name: str) -> Any:
    """Import a name at its first use; those that version 0.1 had here, from their present modules."""
    return getattr(import_module(_MOVED[name]), name) if name in _MOVED else _import(name)
