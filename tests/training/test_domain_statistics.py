"""The domain of a training set, measured."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_schnet import load
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.training import domain_statistics as domain
from pyg_schnet.training import train
from pyg_schnet.training.domain_statistics import measure_domain


@pytest.fixture
def dataset(tmp_path):
    def make(*structures):
        for atoms in structures:
            forces = np.arange(3.0 * len(atoms)).reshape(-1, 3)
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
        ase.io.write(tmp_path / "set.extxyz", list(structures))
        return AtomsDataset(tmp_path / "root", tmp_path / "set.extxyz", units="eV")

    return make


def test_the_shortest_distance_of_each_two_elements_is_found(dataset):
    found = measure_domain(
        dataset(
            Atoms("OH2", [[0, 0, 0], [0, 0, 0.97], [0, 1.2, 0]]),
            Atoms("H2O", [[0, 0, 0.99], [0, 1.1, 0], [0, 0, 0]]),
            Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]),
            Atoms("H", [[0, 0, 0]]),
        )
    )
    near = {(1, 1): np.hypot(1.1, 0.99), (1, 8): 0.97, (6, 8): 1.1}
    assert found.shortest == pytest.approx(near, abs=1e-6)
    assert found.largest_force == pytest.approx(np.sqrt(6**2 + 7**2 + 8**2), rel=1e-6)


def test_frames_of_one_molecule_are_all_looked_at(dataset):
    frames = [Atoms("OH", [[0, 0, 0], [0, 0, z]]) for z in (1.0, 0.9, 1.1)]
    assert measure_domain(dataset(*frames)).shortest == pytest.approx({(1, 8): 0.9}, abs=1e-6)


def test_images_count_and_what_is_far_in_a_crystal_does_not(dataset):
    crystal = Atoms("NaCl", [[0, 0, 0], [3.3, 0, 0]], cell=[6, 7, 8], pbc=True)
    assert measure_domain(dataset(crystal)).shortest == pytest.approx({(11, 17): 2.7}, abs=1e-6)


def test_a_set_of_single_atoms_has_no_distances(dataset):
    assert measure_domain(dataset(Atoms("H"), Atoms("O"))).shortest == {}


def test_very_many_pairs_are_measured_in_part(dataset, monkeypatch):
    frames = [Atoms("OH", [[0, 0, 0], [0, 0, 1 + k / 10]]) for k in (3, 0, 2, 1)]
    monkeypatch.setattr(domain, "_MAX_PAIRS", 8)  # every second structure
    assert measure_domain(dataset(*frames)).shortest == pytest.approx({(1, 8): 1.2}, abs=1e-6)


def test_training_tells_its_potential_the_domain(recipe, report):
    run = train(recipe(), report())
    found = load(run.model).domain
    assert set(found.shortest) == {(1, 1), (1, 8)}
    assert 0.7 < found.shortest[1, 8] < 0.95
    assert found.largest_force > 1


def test_the_largest_separation_of_molecules_is_found(dataset):
    water = Atoms("OH2", [[0, 0, 0], [0, 0, 0.97], [0, 1.2, 0]])
    crystal = Atoms("NaCl", [[0, 0, 0], [3.3, 0, 0]], cell=[6, 7, 8], pbc=True)
    found = measure_domain(dataset(water, Atoms("H"), crystal))
    assert found.separation == pytest.approx(1.2 / (0.66 + 0.31), rel=1e-6)  # radii of Cordero et al.


def test_separations_of_crystals_and_single_atoms_are_unknown(dataset):
    crystal = Atoms("NaCl", [[0, 0, 0], [3.3, 0, 0]], cell=[6, 7, 8], pbc=True)
    assert measure_domain(dataset(crystal, Atoms("H"))).separation is None
