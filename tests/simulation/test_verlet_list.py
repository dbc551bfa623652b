"""Lists with a skin find all neighbors, however systems move and cells change."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from hypothesis import given
from hypothesis import strategies as st

from pyg_schnet import neighbor_list
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.velocities import draw_momenta
from pyg_schnet.simulation.verlet_list import VerletList
from pyg_schnet.structures import from_ase

CUTOFF = 4.0


def diamond(repeat=(2, 2, 1), seed=0):
    atoms = bulk("C", "diamond", a=3.6) * repeat
    atoms.rattle(0.05, seed=seed)
    return atoms


def edges(edge_index, shift):
    return set(map(tuple, torch.cat([edge_index.T, shift], dim=1).tolist()))


def check(verlet, atoms):
    data = from_ase(atoms)
    verlet.add_to(data)
    expected = edges(*neighbor_list(data.pos, CUTOFF, None, data.cell, data.pbc))
    assert expected <= edges(data.edge_index, data.shift)


@given(
    seed=st.integers(0, 10_000), scale=st.sampled_from([0.02, 0.1, 0.3]), pbc=st.tuples(*[st.booleans()] * 3)
)
def test_no_neighbor_is_missing_after_moves_strains_and_wraps(seed, scale, pbc):
    rng = np.random.default_rng(seed)
    atoms, verlet = diamond(), VerletList(CUTOFF, 0.6)
    atoms.pbc = pbc if any(pbc) else (True, True, True)
    for _ in range(8):
        check(verlet, atoms)
        atoms.positions += rng.normal(0, 0.3 * scale, atoms.positions.shape)
        kind = rng.integers(4)
        if kind == 0:
            strain = rng.uniform(-scale, scale, (3, 3)) / 3
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=bool(rng.integers(2)))
        elif kind == 1:
            atoms.wrap()
        elif kind == 2:
            atoms = atoms[rng.permutation(len(atoms))]


def test_a_shrunk_cell_is_searched_again_as_soon_as_neighbors_may_be_missing():
    atoms, verlet = diamond(), VerletList(CUTOFF, 0.5)
    check(verlet, atoms)
    for factor in (0.999, 0.95, 0.9):  # 4.5 / 4 allows no more than 0.889
        scaled = atoms.copy()
        scaled.set_cell(factor * atoms.cell.array, scale_atoms=True)
        check(verlet, scaled)
    assert verlet.searches == 1
    scaled.set_cell(0.88 * atoms.cell.array, scale_atoms=True)
    check(verlet, scaled)
    assert verlet.searches == 2


@pytest.mark.parametrize("change", ["pbc", "atoms", "jump"])
def test_another_system_is_searched_anew(change):
    atoms, verlet = diamond(), VerletList(CUTOFF, 0.5)
    check(verlet, atoms)
    if change == "pbc":
        atoms.pbc = (True, True, False)
    elif change == "atoms":
        del atoms[3]
    else:
        atoms.positions[0] += atoms.cell[0]
    check(verlet, atoms)
    assert verlet.searches == 2


def test_a_search_that_fails_leaves_nothing_behind():
    atoms, verlet = diamond(), VerletList(CUTOFF, 0.5)
    check(verlet, atoms)
    wrong = diamond(seed=1)
    wrong.positions[0] = wrong.positions[1]
    for _ in range(2):
        with pytest.raises(ValueError, match="two atoms at one point"):
            check(verlet, wrong)
    wrong.positions[0] += 0.1
    check(verlet, wrong)


def test_without_a_skin_each_structure_is_searched():
    atoms, verlet = diamond(), VerletList(CUTOFF, 0.0)
    for _ in range(3):
        check(verlet, atoms)
    assert verlet.searches == 3


def test_dynamics_with_and_without_a_skin_agree_and_search_rarely(potential):
    paths = []
    for skin in (0.0, 0.5):
        atoms = diamond((2, 2, 2))
        atoms.calc = calculator = SchNetCalculator(potential, skin=skin)
        draw_momenta(atoms, 600, np.random.default_rng(0), rotation=True)
        VelocityVerlet(atoms, units.fs).run(60)
        paths.append(atoms.positions)
    assert calculator.neighbors.searches < 12
    # Measured 1e-13: the same sums in another order.
    assert np.abs(paths[1] - paths[0]).max() < 1e-10
