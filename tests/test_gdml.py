"""GDML's file is read as revised MD17 has it, and a kernel beyond the memory is told, not tried."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "baselines" / "gdml.py"


@pytest.fixture
def gdml(monkeypatch):
    """The script, with the package it needs replaced by names: it has an environment of its own."""
    for name in ("sgdml", "sgdml.predict", "sgdml.train"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["sgdml.predict"].GDMLPredict = sys.modules["sgdml.train"].GDMLTrain = None
    spec = importlib.util.spec_from_file_location("gdml", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "frames.npz"
    rng = np.random.default_rng(0)
    np.savez(
        path,
        nuclear_charges=np.array([8, 1, 1]),
        coords=rng.normal(size=(5, 3, 3)),
        old_energies=np.arange(5.0)[:, None],
        old_forces=rng.normal(size=(5, 3, 3)),
    )
    return str(path)


def test_frames_are_read_with_the_chosen_labels(gdml, file):
    data = gdml.read(file, "a", ("old_energies", "old_forces"))
    assert data["R"].shape == data["F"].shape == (5, 3, 3)
    assert data["E"].tolist() == [0, 1, 2, 3, 4]
    assert str(data["e_unit"]) == "kcal/mol"


def test_kernels_have_the_sizes_that_the_issue_of_memory_is_about(gdml):
    assert gdml.kernel_gigabytes(1000, 21) == pytest.approx(31.8, abs=0.1)  # aspirin
    assert gdml.kernel_gigabytes(1000, 18) == pytest.approx(23.3, abs=0.1)  # naphthalene


def test_a_kernel_beyond_the_memory_is_told(gdml, file, monkeypatch, capsys):
    arguments = ["gdml.py", file, file, file, "--points", "100000", "--memory", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert gdml.main() == 1
    assert capsys.readouterr().out == '{"failed": "the kernel takes 6480 GB, more than 1"}\n'
