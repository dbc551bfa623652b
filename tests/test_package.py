import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyg_schnet import _moved

SLOW_TO_IMPORT = ("ase", "rdkit", "lightning_fabric", "matplotlib", "jsonargparse", "torchmetrics")

PROBE = """
import json, sys, warnings
import torch, torch_geometric

def state():
    return {
        "dtype": str(torch.get_default_dtype()),
        "seed": torch.initial_seed(),
        "generator": torch.get_rng_state().tolist(),
        "filters": str(warnings.filters),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }

before, modules = state(), set(sys.modules)
import pyg_schnet
print(json.dumps({"before": before, "after": state(), "new": sorted(set(sys.modules) - modules)}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict:
    """What `import pyg_schnet` does in a fresh interpreter that has torch_geometric already."""
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SLOW_TO_IMPORT)
def test_importing_the_package_imports_nothing_slow(fresh, name):
    assert [module for module in fresh["new"] if module.split(".")[0] == name] == []


@pytest.mark.parametrize("name", ["dtype", "seed", "generator", "filters", "threads", "deterministic"])
def test_importing_the_package_changes_no_global_state(fresh, name):
    assert fresh["after"][name] == fresh["before"][name]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *[
            ("pyg_schnet", name)
            for name in (
                "SchNet",
                "CFConv",
                "Potential",
                "load",
                "radius_graph",
                "neighbor_list",
                "RadiusGraph",
            )
        ],
        *[
            ("pyg_schnet.nn", name)
            for name in (
                "CFConv",
                "FilterNetwork",
                "GaussianSmearing",
                "CosineEnvelope",
                "PolynomialEnvelope",
                "ShiftedSoftplus",
                "AtomicSum",
                "AtomicMean",
                "DipoleMagnitude",
                "SchNet",
                "SchNetConfig",
            )
        ],
    ],
)
def test_a_public_name_can_be_imported(module, name):
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "package", ["pyg_schnet", "pyg_schnet.nn", "pyg_schnet.simulation", "pyg_schnet.training"]
)
def test_names_imported_at_first_use_are_those_that_type_checkers_see(package):
    module = importlib.import_module(package)
    (block,) = (
        node
        for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    static = {alias.asname: node.module for node in block.body for alias in node.names}
    assert sorted(static) == sorted(module.__all__)
    assert set(static) <= set(dir(module))
    for name, place in static.items():
        assert getattr(module, name) is getattr(importlib.import_module(place), name)
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(module, "nonsense")  # noqa: B009


def test_the_version_is_a_version():
    version = importlib.import_module("pyg_schnet").__version__
    assert all(part.isdigit() for part in version.split("."))


@pytest.mark.parametrize(("old", "new"), _moved.MODULES.items())
def test_a_module_that_moved_is_found_by_its_old_name(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, f"pyg_schnet.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"pyg_schnet.{new}"):
        found = importlib.import_module(f"pyg_schnet.{old}")
    assert found is importlib.import_module(f"pyg_schnet.{new}")


@pytest.mark.filterwarnings("ignore:.*has moved to:DeprecationWarning")
@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("calibration", "calibrate"),
        ("checkpoint", "save load"),
        ("checks", "check Report Finding CHECKS"),
        ("domain", "Domain"),
        ("neighbors", "radius_graph neighbor_list RadiusGraph"),
        ("potential", "Potential"),
        ("sampler", "EdgeBudgetSampler count_edges"),
        ("simulation", "predict select run_md relax"),
        ("smiles", "from_smiles"),
        ("structures", "from_ase to_ase"),
        ("units", "kcal_per_mol"),
    ],
)
def test_names_of_version_0_1_are_found_in_modules_that_moved(old, names):
    module = importlib.import_module(f"pyg_schnet.{old}")
    assert all(hasattr(module, name) for name in names.split())


def test_other_modules_are_as_absent_as_before():
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        importlib.import_module("pyg_schnet.nonsense")
