"""Lists with a skin find all neighbors, however systems move and cells change."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_schnet import neighbor_list
from pyg_schnet.graph.verlet_list import VerletList
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.velocities import draw_momenta
from pyg_schnet.transforms.ase_atoms import from_ase

CUTOFF, SKIN = 4.0, 0.8


def diamond(repeat=(2, 2, 1), seed=0):
    atoms = bulk("C", "diamond", a=3.6) * repeat
    atoms.rattle(0.05, seed=seed)
    return atoms


def edges(edge_index, shift):
    return set(map(tuple, torch.cat([edge_index.T, shift], dim=1).tolist()))


def check(verlet, atoms):
    data = from_ase(atoms, lattice=True)
    verlet.add_to(data)
    expected = edges(*neighbor_list(data.pos, CUTOFF, None, data.cell, data.pbc))
    assert expected <= edges(data.edge_index, data.shift)


def moves(rng, scale):
    """What may happen to a system between two steps, by name; some are what a list is least prepared for."""

    def shake(atoms):
        atoms.positions += rng.normal(0, 0.3 * scale, atoms.positions.shape)

    def unlisted(atoms):
        """Some pair a little beyond the skin, and its vector."""
        data = from_ase(atoms, lattice=True)
        (source, target), shift = neighbor_list(data.pos, CUTOFF + 2 * SKIN, None, data.cell, data.pbc)
        vector = data.pos[source] - data.pos[target] + shift.double() @ data.cell[0]
        beyond = (vector.norm(dim=1) >= CUTOFF + SKIN).nonzero().flatten().tolist()
        if not beyond:
            return None
        chosen = beyond[rng.integers(len(beyond))]
        return int(source[chosen]), int(target[chosen]), vector[chosen].numpy()

    def run_at_each_other(atoms):
        if (pair := unlisted(atoms)) is not None and pair[0] != pair[1]:
            source, target, vector = pair
            length = np.linalg.norm(vector)
            step = vector * (length - 0.98 * CUTOFF) / (2 * length)
            atoms.positions[source] -= step
            atoms.positions[target] += step

    def squeeze(atoms):
        if (pair := unlisted(atoms)) is not None:
            factor = 0.98 * CUTOFF / np.linalg.norm(pair[2])
            atoms.set_cell(factor * atoms.cell.array, scale_atoms=True)

    def squeeze_cell_alone(atoms):
        atoms.set_cell(rng.uniform(0.84, 1) * atoms.cell.array)

    def strain(atoms):
        change = np.eye(3) + rng.uniform(-scale, scale, (3, 3)) / 3
        atoms.set_cell(atoms.cell.array @ change, scale_atoms=True)

    def choose_other_vectors(atoms):  # of the same lattice
        basis = np.eye(3)
        basis[tuple(rng.permutation(3)[:2])] = rng.integers(-2, 3)
        atoms.set_cell(basis @ atoms.cell.array)

    def wander(atoms):
        atoms.positions += rng.integers(-2, 3, atoms.positions.shape) @ atoms.cell.array

    def exchange(atoms):
        atoms.positions = atoms.positions[rng.permutation(len(atoms))]

    def open_directions(atoms):
        atoms.pbc = rng.random(3) < 0.6

    def lose_one(atoms):
        if len(atoms) > 2:
            del atoms[-1]

    def wrap(atoms):
        atoms.wrap()

    known = (
        shake,
        run_at_each_other,
        squeeze,
        squeeze_cell_alone,
        strain,
        choose_other_vectors,
        wander,
        exchange,
    )
    return {move.__name__: move for move in (*known, open_directions, lose_one, wrap)}


@settings(max_examples=60)
@given(
    names=st.lists(st.sampled_from(sorted(moves(None, 0))), min_size=1, max_size=10),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.02, 0.15, 0.4]),
    pbc=st.just((True,) * 3) | st.tuples(*[st.booleans()] * 3),
)
def test_no_neighbor_is_missing_whatever_happens_between_steps(names, seed, scale, pbc):
    rng = np.random.default_rng(seed)
    atoms, verlet = diamond((1, 1, 1)), VerletList(CUTOFF, SKIN)
    atoms *= (2, 1, 1)
    atoms.pbc = pbc
    check(verlet, atoms)
    for name in names:
        moves(rng, scale)[name](atoms)
        check(verlet, atoms)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 0.3]))
def test_structures_in_turn_have_their_own_neighbors(seed, scale):
    rng = np.random.default_rng(seed)
    several = [diamond((1, 1, 1), seed=0), diamond((1, 1, 1), seed=1), diamond((2, 1, 1))]
    verlet = VerletList(CUTOFF, 0.6)
    for _ in range(6):
        atoms = several[rng.integers(3)]
        atoms.positions += rng.normal(0, 0.3 * scale, atoms.positions.shape)
        check(verlet, atoms)


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


@pytest.mark.parametrize("stretch", [1.0, 1.0001, 0.9999])
def test_two_atoms_that_meet_halfway_are_neighbors_whether_or_not_the_cell_changes(stretch):
    skin = 0.5
    apart = CUTOFF + skin + 0.01  # not listed
    atoms = Atoms("C2", [[8 - apart / 2, 10, 10], [8 + apart / 2, 10, 10]], cell=[20, 20, 20], pbc=True)
    verlet = VerletList(CUTOFF, skin)
    check(verlet, atoms)
    atoms.set_cell(stretch * atoms.cell.array, scale_atoms=True)
    step = skin / 2 + 0.02  # of each, less than the skin; both together are more
    atoms.positions += [[step, 0, 0], [-step, 0, 0]]
    assert atoms.get_distance(0, 1) < CUTOFF
    check(verlet, atoms)
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
        with pytest.raises(ValueError, match=r"atoms.*point"):
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
