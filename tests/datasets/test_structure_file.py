"""Each verb that takes structures takes every kind of file that ``train`` takes."""

from __future__ import annotations

import json

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.checkpoint import save

BOX = 9.0  # Å


@pytest.fixture(scope="module")
def structures():
    """Three crystals of water, of one composition."""
    made = []
    for seed in range(3):
        atoms = molecule("H2O", cell=[BOX] * 3, pbc=True)
        atoms.rattle(0.02, seed=seed)
        results = {"energy": -1.0 - seed, "forces": np.zeros((3, 3))}
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, structures):
    """One model, and the same structures in files of all kinds."""
    here = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 8, "cutoff": 4.0}
    save(Potential(SchNet(**sizes), elements=[1, 8]), here / "m.safetensors")
    energy = np.array([atoms.get_potential_energy() for atoms in structures])
    positions = np.array([atoms.positions for atoms in structures])
    cell = np.array([atoms.cell.array for atoms in structures])
    arrays = {"numbers": structures[0].numbers, "energy": energy, "forces": 0 * positions, "cell": cell}
    np.savez(here / "a.npz", positions=positions, e_unit="eV", r_unit="Ang", **arrays)
    with h5py.File(here / "a.h5", "w") as file:
        for name, array in {**arrays, "positions": positions}.items():
            file[f"water/{name}"] = array
        for name, unit in {"energy": "eV", "positions": "angstrom", "forces": "eV/angstrom"}.items():
            file[f"water/{name}"].attrs["units"] = unit
    for name in ("a.xyz", "a.xyz.gz", "a.traj"):
        ase.io.write(here / name, structures, format="extxyz" if "xyz" in name else None)
    for name in ("a.db", "a.json"):
        with ase.db.connect(here / name) as file:
            for atoms in structures:
                file.write(atoms)
    (here / "list.json").write_text(json.dumps([as_pymatgen(atoms) for atoms in structures]))
    (here / "system" / "set.000").mkdir(parents=True)
    (here / "system" / "type.raw").write_text("1 0 0")
    (here / "system" / "type_map.raw").write_text("H O")
    sets = {"coord": positions, "box": cell, "energy": energy, "force": 0 * positions}
    for name, array in sets.items():
        np.save(here / "system" / "set.000" / name, array.reshape(3, -1))
    (here / "folder").mkdir()
    ase.io.write(here / "folder" / "1.extxyz", structures[:2])
    ase.io.write(here / "folder" / "2.traj", structures[2:])
    return here


def as_pymatgen(atoms):
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "xyz": xyz.tolist()}
        for symbol, xyz in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    lattice = {"matrix": atoms.cell.array.tolist()}
    outputs = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}
    return {"structure": {"lattice": lattice, "sites": sites}, "outputs": outputs}


FILES = (
    *("a.npz", "a.h5", "a.xyz", "a.xyz.gz", "a.traj", "a.db", "a.json", "list.json", "system", "folder"),
    "set.safetensors",
)


@pytest.fixture
def here(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    AtomsDataset("root", "a.traj")
    next((tmp_path / "root").rglob("*.safetensors")).rename("set.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_structures_of_each_kind_of_file_are_the_same(here, structures, name):
    found = list(StructureFile(name))
    assert [number for number, _ in found] == [0, 1, 2]
    for (_, atoms), wanted in zip(found, structures, strict=True):
        assert atoms.numbers.tolist() == wanted.numbers.tolist()
        np.testing.assert_allclose(atoms.positions, wanted.positions, rtol=0, atol=1e-6)
        np.testing.assert_allclose(atoms.cell.array, wanted.cell.array, rtol=0, atol=1e-6)
        assert atoms.pbc.all()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("index", ["-1", "1", "1:", "::2"])
def test_an_index_chooses_from_each_kind_of_file(here, structures, name, index):
    places = (
        range(3)[int(index) :][:1] if ":" not in index else range(3)[slice(*map(as_int, index.split(":")))]
    )
    assert [number for number, _ in StructureFile(name, index)] == list(places)


def as_int(text):
    return int(text) if text else None


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.xyz.gz", "a.db", "list.json", "system", "folder"])
@pytest.mark.parametrize(
    "verb",
    [
        ["data", "{}"],
        ["evaluate", "m.safetensors", "{}"],
        ["check", "m.safetensors", "{}", "--only", "rotation", "--structures", "1"],
        ["predict", "m.safetensors", "{}", "out.extxyz"],
        ["relax", "m.safetensors", "{}", "out.extxyz", "--fmax", "100"],
        ["md", "m.safetensors", "{}", "out.extxyz", "--duration", "0.001", "--index", "1"],
        ["select", "m.safetensors,m.safetensors", "{}", "out.extxyz", "--k", "1"],
    ],
    ids=lambda verb: verb[0],
)
def test_each_verb_reads_each_kind_of_file(here, capsys, verb, name):
    code = cli.main([word.format(name) for word in verb] + ["--quiet"])
    assert code == 0, capsys.readouterr().err
