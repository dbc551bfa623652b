"""Import paths of version 0.1 for modules and names that moved."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "calibration": "potentials.calibration",
    "checkpoint": "potentials.checkpoint",
    "domain": "potentials.training_domain",
    "ensemble": "potentials.ensemble",
    "evaluation": "potentials.metrics",
    "neighbors": "graph.neighbors",
    "potential": "potentials.potential",
    "sampler": "loader.sampler",
    "smiles": "transforms.smiles",
    "structures": "transforms.ase_atoms",
    "units": "io.units",
}

# Names that went elsewhere from these modules, or are called otherwise: where they are, by the old name.
NAMES = {
    "domain": {"Domain": ("potentials.training_domain", "TrainingDomain")},
    "neighbors": {"RadiusGraph": ("transforms.radius_graph", "RadiusGraph")},
}


class _Finder(MetaPathFinder, Loader):
    """Finder of moved modules: ``import pyg_schnet.units`` imports ``pyg_schnet.io.units``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        moved = package == __package__ and name in MODULES
        return ModuleSpec(fullname, self) if moved else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        old = spec.name.rpartition(".")[2]
        new = f"{__package__}.{MODULES[old]}"
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        for name, (place, present) in NAMES.get(old, {}).items():
            setattr(module, name, getattr(import_module(f"{__package__}.{place}"), present))
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Install the finder that keeps the old import paths working."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
