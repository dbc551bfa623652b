"""The public names of the package: what its packages export, and what users meet in modules."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGES = (
    "pyg_schnet",
    "pyg_schnet.nn",
    "pyg_schnet.datasets",
    "pyg_schnet.loader",
    "pyg_schnet.transforms",
    "pyg_schnet.potentials",
    "pyg_schnet.simulation",
    "pyg_schnet.prediction",
    "pyg_schnet.checks",
    "pyg_schnet.plots",
    "pyg_schnet.training",
    "pyg_schnet.migration",
    "pyg_schnet.graph",
    "pyg_schnet.kernels",
    "pyg_schnet.compile",
)
MODULES = ("pyg_schnet.io.units",)
OTHERS = (
    "pyg_schnet.datasets.base.MoleculeDataset",
    "pyg_schnet.datasets.references.Compositions",
    "pyg_schnet.datasets.references.References",
    "pyg_schnet.datasets.label_statistics.LabelStatistics",
    "pyg_schnet.datasets.splits.Split",
    "pyg_schnet.datasets.storage.chunks.Chunk",
    "pyg_schnet.graph.csr.Csr",
    "pyg_schnet.graph.pair_graph.PairGraph",
    "pyg_schnet.graph.pair_graph.build_pairs",
    "pyg_schnet.graph.sites.Sites",
    "pyg_schnet.io.formats.frames.Frames",
    "pyg_schnet.io.remote.download.DownloadError",
    "pyg_schnet.migration.pyg.from_pyg",
    "pyg_schnet.migration.pyg.to_pyg",
    "pyg_schnet.migration.schnetpack.from_schnetpack",
    "pyg_schnet.nn.radial.CutoffEnvelope",
    "pyg_schnet.nn.readout.Readout",
    "pyg_schnet.nn.schnet.EdgeFeatures",
    "pyg_schnet.potentials.calibration.Calibration",
    "pyg_schnet.potentials.calibration.calibrate",
    "pyg_schnet.potentials.calibration.calibrations",
    "pyg_schnet.potentials.model_card.Accuracy",
    "pyg_schnet.potentials.model_card.ModelCard",
    "pyg_schnet.potentials.pretrained.find_model",
    "pyg_schnet.potentials.pretrained.named_models",
    "pyg_schnet.potentials.pretrained.read_model_card",
    "pyg_schnet.potentials.training_domain.TrainingDomain",
    "pyg_schnet.prediction.predictor.predict",
    "pyg_schnet.prediction.selection.select",
    "pyg_schnet.prediction.structures.PredictionFile",
    "pyg_schnet.simulation.engines.lammps.LammpsFix",
    "pyg_schnet.training.evaluation.ModelEvaluation",
)


def public_names() -> dict[str, Any]:
    """Return all public objects by their import paths, ``pyg_schnet.nn.CFConv`` for instance."""
    names = {f"{package}.{name}": name for package in PACKAGES for name in exports(package)}
    for module in MODULES:
        names |= {f"{module}.{name}": name for name in _defined_in(module)}
    names |= {path: path.rpartition(".")[2] for path in OTHERS}
    return {path: getattr(import_module(path.rpartition(".")[0]), name) for path, name in names.items()}


def exports(package: str) -> list[str]:
    """Return the names that a package exports: those in ``__all__``, or imported ``as`` themselves."""
    module = import_module(package)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname == alias.name]


def methods(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class or its bases in this package define."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "pyg_schnet":
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    return {name: value for name, value in found.items() if _is_method(value)}


def _is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod, property))


def _defined_in(module: str) -> list[str]:
    """Return functions, classes and constants that a module defines."""
    path = Path(str(import_module(module).__file__))
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]
