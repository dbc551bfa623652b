"""Structures in the unit of the training data are not taken for structures in Å."""

import pytest
import torch
from ase.build import molecule
from ase.io import write

import pyg_schnet
from pyg_schnet import Potential, SchNet, save
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.potentials.model_files import require_angstrom


@pytest.fixture
def data(tmp_path):
    """Write a file that a model was trained on."""
    write(path := tmp_path / "data.extxyz", molecule("H2O"))
    return path


@pytest.fixture
def model(data, tmp_path):
    """Return a function that saves a model trained in some unit."""

    def trained(units):
        torch.manual_seed(0)
        path = tmp_path / "model.safetensors"
        entry = {"data": {"units": units, "sha256": hash_file(data), "val_sha256": None}}
        save(Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1)), path, entry)
        return path

    return trained


@pytest.mark.parametrize("function", ["md", "predict", "relax"])
def test_training_data_in_bohr_are_no_structures_in_angstrom(function, data, model):
    with pytest.raises(ValueError, match=r"data\.extxyz: positions must be in Å.*Bohr"):
        getattr(pyg_schnet, function)(model("Hartree, Bohr"), data)


@pytest.mark.parametrize("units", [None, "eV", "Hartree, Hartree/Bohr"])
def test_training_data_in_angstrom_are(units, data, model):
    require_angstrom(model(units), data)


def test_other_files_are(model, tmp_path):
    path = model("Hartree, Bohr")
    write(tmp_path / "start.xyz", molecule("H2O2"))
    require_angstrom(path, tmp_path / "start.xyz")
