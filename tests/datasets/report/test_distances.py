"""Distances within structures, with images, and of a sample of a large set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.report import distances
from pyg_schnet.datasets.report.distances import measure_distances
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.frames import Frames


class InMemory(MoleculeDataset):
    def __init__(self, structures, cell=None, pbc=None):
        """Hydrogen everywhere."""
        self.structures, self.lattice = structures, {"cell": cell, "pbc": pbc}
        super().__init__(None, dtype=torch.float64)

    def chunks(self):
        counts = np.array([len(pos) for pos in self.structures])
        numbers = np.ones(counts.sum(), dtype=np.uint8)
        energy = np.arange(len(counts)) * 1.0
        yield Chunk.from_frames(
            Frames(numbers, np.concatenate(self.structures), counts, energy, **self.lattice)
        )

    def measured(self):
        pbc = self.lattice["pbc"]
        return measure_distances(
            self, torch.zeros(len(self), dtype=torch.bool) if pbc is None else torch.from_numpy(pbc.any(1))
        )


def line(*places):
    return np.array([[x, 0.0, 0.0] for x in places])


def test_shortest_and_most_solitary_are_found_among_sizes():
    found = InMemory([line(0, 1), line(0, 2, 5), line(3), line(0, 0.9, 8, 9)]).measured()
    assert (found.shortest, found.shortest_in) == (pytest.approx(0.9), 3)
    assert (found.solitary, found.solitary_in) == (3.0, 1)
    assert found.structures == 4


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_all_pairs_say(seed):
    rng = np.random.default_rng(seed)
    structures = [rng.normal(0, 3, (n, 3)) for n in rng.integers(2, 9, 20)]
    nearest = []
    for pos in structures:
        distance = np.linalg.norm(pos[:, None] - pos, axis=2) + np.diag([np.inf] * len(pos))
        nearest.append(distance.min(1))
    found = InMemory(structures).measured()
    assert found.shortest == pytest.approx(min(row.min() for row in nearest), abs=1e-12)
    assert found.solitary == pytest.approx(max(row.max() for row in nearest), abs=1e-12)


def test_images_count_where_a_structure_is_periodic():
    cell = np.array([8 * np.eye(3)] * 2)
    places = [line(0.5, 7.2), line(0.5, 7.2)]
    pbc = np.array([[False] * 3, [True] * 3])
    found = InMemory(places, cell, pbc).measured()
    assert (found.shortest, found.shortest_in) == (pytest.approx(1.3), 1)
    assert (found.solitary, found.solitary_in) == (pytest.approx(6.7), 0)


def test_one_atom_in_a_cell_has_itself_as_a_neighbor():
    copper = bulk("Cu", a=3.6)
    found = InMemory([copper.positions], copper.cell.array[None], np.ones((1, 3), dtype=bool)).measured()
    assert found.shortest == pytest.approx(3.6 / math.sqrt(2))
    assert found.solitary == pytest.approx(found.shortest)


def test_atoms_alone_have_no_distance():
    found = InMemory([line(0), line(1)]).measured()
    assert (found.shortest, found.shortest_in, found.solitary, found.solitary_in) == (None,) * 4
    assert found.structures == 2


def test_a_large_set_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr(distances, "_MOST_PAIRS", 40)  # ten structures of two atoms
    found = InMemory([line(0, 1 + k / 1000) for k in range(100)]).measured()
    assert found.structures == 10
    assert (found.shortest_in, found.solitary_in) == (0, 90)


def test_few_crystals_are_measured(monkeypatch):
    monkeypatch.setattr(distances, "_MOST_PERIODIC_PAIRS", 3)
    cells, pbc = np.array([4.0 * np.eye(3)] * 9), np.ones((9, 3), dtype=bool)
    assert InMemory([line(0)] * 9, cells, pbc).measured().structures == 3


def test_structures_too_large_for_the_memory_are_left_out(monkeypatch):
    monkeypatch.setattr(distances, "_LARGEST", 2)
    found = InMemory([line(0, 0.1, 0.2), line(0, 1)]).measured()
    assert (found.shortest, found.structures) == (1.0, 1)
    assert InMemory([line(0, 0.1, 0.2)]).measured().structures == 0
