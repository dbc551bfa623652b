"""Fixtures of all tests: three molecules and tiny random models in float64."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import settings
from torch import nn
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

# The same examples in every run, and no folder of examples left behind.
settings.register_profile("project", derandomize=True, database=None, deadline=None, max_examples=100)
settings.load_profile("project")

# The models are tiny: a second thread costs more than it brings, and far more on a busy machine.
torch.set_num_threads(1)

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}

# Å; equilibrium geometries, shaken by hand so that no symmetry hides a mistake.
GEOMETRY = {
    "water": ("OHH", [[0.0, 0.0, 0.119], [0.03, 0.763, -0.477], [-0.02, -0.801, -0.44]]),
    "ethanol": (
        "CCOHHHHHH",
        [
            [1.168, -0.4, 0.02],
            [0.0, 0.559, -0.03],
            [-1.19, -0.228, 0.01],
            [-1.947, 0.382, 0.04],
            [0.043, 1.208, 0.887],
            [0.06, 1.19, -0.9],
            [2.116, 0.145, -0.05],
            [1.129, -1.037, 0.886],
            [1.1, -1.06, -0.87],
        ],
    ),
    "benzene": (
        "CCCCCCHHHHHH",
        [
            [0.0, 1.395, 0.02],
            [1.208, 0.698, -0.01],
            [1.22, -0.698, 0.0],
            [0.0, -1.38, 0.03],
            [-1.208, -0.7, 0.0],
            [-1.208, 0.698, -0.04],
            [0.05, 2.482, 0.0],
            [2.15, 1.26, 0.06],
            [2.15, -1.241, 0.0],
            [0.0, -2.46, 0.0],
            [-2.17, -1.241, -0.02],
            [-2.15, 1.241, 0.0],
        ],
    ),
}
NUMBER = {"H": 1, "C": 6, "O": 8}


def build(name: str) -> Data:
    symbols, pos = GEOMETRY[name]
    z = torch.tensor([NUMBER[symbol] for symbol in symbols])
    return Data(z=z, pos=torch.tensor(pos, dtype=torch.float64))


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill weights and biases: zero layers would make tests of energies and forces vacuous."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.4 * noise)
    return module


@pytest.fixture
def disk(monkeypatch) -> list[tuple[str, int]]:
    """Record what is brought to the disk, by name and size, and what is renamed, in order; on Linux."""
    found: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def record(handle):
        found.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name, os.fstat(handle).st_size))
        fsync(handle)

    def rename(source, target):
        found.append((f"renamed {Path(target).name}", Path(source).stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "replace", rename)
    return found


@pytest.fixture
def flip():
    """Invert a bit of a file."""

    def invert(path, place: int) -> None:
        content = bytearray(path.read_bytes())
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)

    return invert


@pytest.fixture
def water() -> Data:
    return build("water")


@pytest.fixture
def ethanol() -> Data:
    return build("ethanol")


@pytest.fixture
def benzene() -> Data:
    return build("benzene")


@pytest.fixture(params=list(GEOMETRY))
def molecule(request) -> Data:
    return build(request.param)


@pytest.fixture
def molecules() -> list[Data]:
    return [build(name) for name in GEOMETRY]


@pytest.fixture
def without_shape_checks(request) -> None:
    """For tests of our own messages on shapes and types, which a run that checks shapes comes before."""
    if request.config.getoption("jaxtyping_packages", default=None):
        pytest.skip("jaxtyping refuses the argument first")


@pytest.fixture(name="randomize")
def randomize_fixture():
    return randomize


@pytest.fixture
def paper() -> SchNet:
    """The network of 2017, small: all pairs, no envelope."""
    return randomize(SchNet.paper(**TINY, zero_output=False).double())


@pytest.fixture
def default() -> SchNet:
    """Today's network, small: some pairs of ethanol and benzene lie beyond its cutoff."""
    return randomize(SchNet(**TINY, num_gaussians=12, cutoff=4.0).double())


@pytest.fixture(params=["paper", "default"])
def model(request) -> SchNet:
    return request.getfixturevalue(request.param)


@pytest.fixture
def potential(model) -> Potential:
    return Potential(model).eval()


# Two frames of OH, in kcal/mol and Å, as published.
MD17 = {
    "z": np.array([8, 1], dtype=np.uint8),
    "R": np.array([[[0.0, 0.0, 0.5], [0.0, 0.0, 1.5]], [[0.1, 0.0, 0.0], [0.0, -0.9, 0.0]]]),
    "E": np.array([[-100.0], [-99.0]]),
    "F": np.array([[[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]], [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]]),
    "theory": np.array("DFT"),
}
REVISED = {
    "nuclear_charges": MD17["z"],
    "coords": MD17["R"],
    "energies": np.array([-100.0, -99.0]),
    "forces": MD17["F"],
    "old_energies": np.array([-200.0, -199.0]),
    "old_forces": -MD17["F"],
}


@pytest.fixture
def md17():
    return dict(MD17)


@pytest.fixture
def revised():
    return dict(REVISED)


@pytest.fixture
def write(tmp_path):
    """Write arrays to a file and return its path."""

    def to_file(arrays, name="frames.npz"):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return to_file


@pytest.fixture
def labelled():
    """Make structures of two to four atoms with random labels, as ASE holds them."""

    def structures(count=5, periodic=(), forces=True, stress=False):
        rng = np.random.default_rng(1)
        made = []
        for number in range(count):
            size = 2 + number % 3
            atoms = Atoms(rng.integers(1, 9, size), positions=2 * rng.normal(size=(size, 3)))
            if number in periodic:
                atoms.set_cell(np.diag([5.0, 6.0, 7.0]) + 0.1 * rng.random((3, 3)))
                atoms.pbc = [True, True, False]
            results = {"energy": float(rng.normal())}
            results |= {"forces": rng.normal(size=(size, 3))} if forces else {}
            results |= {"stress": rng.normal(size=6)} if stress else {}
            atoms.calc = SinglePointCalculator(atoms, **results)
            made.append(atoms)
        return made

    return structures


@pytest.fixture
def write_hdf5(tmp_path):
    """Write groups of arrays to a file and return its path; ``units`` are attributes of arrays."""

    def to_file(groups, name="frames.h5", units=None):
        with h5py.File(tmp_path / name, "w") as file:
            for group, arrays in groups.items():
                for key, value in arrays.items():
                    file[f"{group}/{key}"] = value
                    if units and key in units:
                        file[f"{group}/{key}"].attrs["units"] = units[key]
        return tmp_path / name

    return to_file
