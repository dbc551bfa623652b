"""Processed files of version 0.1 are opened as they are.

``version_0_1/`` was written by pyg_schnet at commit fcd9648: ``md17_ethanol.safetensors`` by ``MD17(root,
"ethanol")`` from an npz file of the random arrays below, ``qm9_features.safetensors`` by ``QM9(root,
features=True)`` from the first ten molecules of the published archive.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_schnet.datasets import MD17, AtomsDataset
from pyg_schnet.datasets.structure_file import StructureFile

FILES = Path(__file__).parent / "version_0_1"
HARTREE, KCAL_PER_MOL = 27.211386245988, 0.0433641042418009  # eV


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "pos": rng.normal(size=(3, 9, 3)),
        "energy": rng.normal(size=(3, 1)) - 97000,
        "forces": rng.normal(size=(3, 9, 3)),
    }


@pytest.mark.parametrize("memory_map", [False, True])
def test_a_file_with_the_recipe_of_today_is_not_processed_again(tmp_path, arrays, memory_map):
    """There is no raw file, and no network in tests."""
    (tmp_path / "processed").mkdir()
    shutil.copy(FILES / "md17_ethanol.safetensors", tmp_path / "processed")
    dataset = MD17(tmp_path, "ethanol", dtype=torch.float64, memory_map=memory_map)
    for number, item in enumerate(dataset):
        assert item.idx.item() == number
        assert item.z.tolist() == [8, 6, 6, 1, 1, 1, 1, 1, 1]
        assert item.pos.tolist() == arrays["pos"][number].tolist()
        assert item.energy.item() == pytest.approx(arrays["energy"][number, 0] * KCAL_PER_MOL, rel=1e-15)
        np.testing.assert_allclose(item.forces, arrays["forces"][number] * KCAL_PER_MOL, rtol=1e-14)


@pytest.mark.parametrize("memory_map", [False, True])
def test_texts_indices_of_atoms_and_properties_are_read(memory_map):
    path = FILES / "qm9_features.safetensors"
    dataset = AtomsDataset(path=path, energy_key="gap", memory_map=memory_map)
    methane = dataset[0]
    assert (len(dataset), methane.name, methane.smiles) == (10, "gdb_1", "C")
    assert methane.U0.item() == pytest.approx(-40.47893 * HARTREE, rel=1e-14)
    assert methane.energy.item() == pytest.approx(0.5048 * HARTREE, rel=1e-14)
    assert methane.edge_index.tolist() == [[0, 0, 0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0, 0, 0]]
    assert [len(atoms) for _, atoms in StructureFile(str(path), "7:")] == [6, 7, 6]  # CH3OH, C3H4, C2H3N
