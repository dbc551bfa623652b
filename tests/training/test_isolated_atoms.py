"""Isolated atoms in a file are atomic references, as MACE has them, and are no error."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.references import isolated_atoms
from pyg_schnet.training import DataConfig
from pyg_schnet.training.data import read_data

HYDROGEN, OXYGEN = -13.6, -432.0  # eV


def atom(symbol, energy, forces=False, cell=None):
    made = Atoms(
        symbol, cell=cell, pbc=cell is not None, info={"config_type": "IsolatedAtom", "ref_energy": energy}
    )
    if forces:
        made.arrays["ref_forces"] = np.zeros((1, 3))
    return made


def molecules(count=20):
    """OH at several distances, by a spring of 30 eV/Å²."""
    made = []
    for number in range(count):
        stretch = 0.01 * (number - count // 2)
        atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97 + stretch]])
        atoms.info["ref_energy"] = HYDROGEN + OXYGEN - 4.5 + 15 * stretch**2
        atoms.arrays["ref_forces"] = np.array([[0, 0, 30 * stretch], [0, 0, -30 * stretch]])
        made.append(atoms)
    return made


@pytest.fixture
def read(tmp_path, report):
    """Write structures, and read what a run would train on."""

    def to_data(structures, **options):
        ase.io.write(tmp_path / "frames.xyz", structures, format="extxyz")
        config = DataConfig(str(tmp_path / "frames.xyz"), n_train=12, n_val=4, **options)
        return read_data(config, torch.float64, report())

    return to_data


@pytest.mark.parametrize("forces", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_isolated_atoms_are_the_references_and_not_trained_on(read, forces, last):
    atoms = [atom("H", HYDROGEN, forces), atom("O", OXYGEN, forces)]
    data = read(molecules() + atoms if last else atoms + molecules())
    assert data.references.energy[[1, 8]].tolist() == pytest.approx([HYDROGEN, OXYGEN], abs=1e-6)
    assert data.references.is_given
    assert data.structures == 22
    numbers = torch.cat(data.split)
    assert sorted(numbers.tolist()) == list(range(20) if last else range(2, 22))
    assert all(len(item.z) == 2 for item in [*data.train, *data.val])


def test_without_an_atom_of_each_element_references_are_fitted(read):
    data = read([atom("H", HYDROGEN), *molecules()])
    assert not data.references.is_given
    assert data.references.span is not None
    assert len(torch.cat(data.split)) == 20


def test_references_that_are_given_hold(read):
    atoms = [atom("H", HYDROGEN), atom("O", OXYGEN), atom("O", OXYGEN + 1)]
    data = read([*atoms, *molecules()], references={"H": -1.0, "O": -2.0})
    assert data.references.energy[[1, 8]].tolist() == [-1, -2]
    assert len(torch.cat(data.split)) == 20


def test_two_energies_of_one_element_are_a_question(read):
    with pytest.raises(ValueError, match=r"isolated O .*-432"):
        read([atom("H", HYDROGEN), atom("O", OXYGEN), atom("O", OXYGEN + 1), *molecules()])


def test_a_file_of_atoms_alone_is_a_data_set(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [atom("H", HYDROGEN), atom("O", OXYGEN)], format="extxyz")
    dataset = AtomsDataset(path=tmp_path / "a.xyz")
    assert len(dataset) == 2
    assert isolated_atoms(dataset) == {}


def test_forces_and_stress_of_an_isolated_atom_are_zero(tmp_path):
    crystal = bulk("Si", cubic=True)
    crystal.calc = SinglePointCalculator(
        crystal, energy=-40.0, forces=np.ones((8, 3)), stress=np.arange(1.0, 7.0)
    )
    alone = Atoms("Si", cell=[12.0] * 3, pbc=True)
    alone.calc = SinglePointCalculator(alone, energy=-1.0)
    ase.io.write(tmp_path / "a.xyz", [alone, crystal], format="extxyz")
    dataset = AtomsDataset(path=tmp_path / "a.xyz")
    assert isolated_atoms(dataset) == {0: -1.0}
    assert not dataset[0].forces.any()
    assert not dataset[0].stress.any()
    assert dataset[1].stress[0].diagonal().tolist() == [1, 2, 3]


def test_one_atom_in_a_small_cell_is_a_crystal(tmp_path):
    iron = bulk("Fe")
    iron.calc = SinglePointCalculator(iron, energy=-8.0)
    other = bulk("Fe", cubic=True)
    other.calc = SinglePointCalculator(other, energy=-16.0, forces=np.zeros((2, 3)))
    ase.io.write(tmp_path / "b.xyz", [other, iron], format="extxyz")
    with pytest.raises(ValueError, match=r"forces.*structures"):
        AtomsDataset(path=tmp_path / "b.xyz")
    iron.calc.results["forces"] = np.zeros((1, 3))
    ase.io.write(tmp_path / "b.xyz", [other, iron], format="extxyz")
    assert isolated_atoms(AtomsDataset(path=tmp_path / "b.xyz")) == {}
