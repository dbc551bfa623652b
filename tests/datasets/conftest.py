"""Fixtures of the readers' tests: files written by plain NumPy, h5py and ASE."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

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
