"""Fixtures of the readers' tests: files written by plain NumPy, with values by hand."""

from __future__ import annotations

import numpy as np
import pytest

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
