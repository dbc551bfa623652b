"""Graphs that stay on an accelerator: complete while they hold, and pairs beyond the cutoff add nothing."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from pyg_schnet import Potential, SchNet
from pyg_schnet.graph.verlet_graph import VerletGraph
from pyg_schnet.transforms.ase_atoms import from_ase
from tests.gpu_like import gpu_like

CUTOFF, SKIN = 4.0, 0.8


def fields_of(atoms):
    data = from_ase(atoms, lattice=bool(atoms.pbc.any()))
    return data.to_dict() | {"batch": torch.zeros_like(data.z), "num_graphs": 1}


def silicon():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.fixture
def potential():
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 20, CUTOFF, filters="spline")
    return Potential(model, scale=0.3).eval().requires_grad_(False)


# Pairs beyond the cutoff add exact zeros; others are summed in another order. Measured: 1e-15 and 3e-7 of the
# largest force or stress.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("make", [silicon, ethanol])
def test_predictions_are_those_of_cpus_while_atoms_and_cells_change(potential, make, dtype, bound):
    potential, atoms, rng = potential.to(dtype), make(), np.random.default_rng(0)
    verlet, stress, kept, far = VerletGraph(CUTOFF, SKIN), bool(atoms.pbc.any()), 0, 0
    for step in range(8):
        with gpu_like():
            graph = verlet.update(fields_of(atoms))
            found = potential(from_ase(atoms), stress=stress, graph=graph)
            far += int((graph.distances() > CUTOFF).sum())
        kept += verlet.searches <= step
        for name, value in potential(from_ase(atoms), stress=stress).items():
            error = (found[name] - value).abs().max() / value.abs().max()
            assert error < bound, name
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        if stress:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 2e-3, (3, 3))), scale_atoms=True)
    assert far > 0 < kept
    assert verlet.searches > 1


@pytest.mark.parametrize("make", [silicon, ethanol])
def test_a_graph_holds_as_long_as_the_list_does(make):
    with gpu_like():
        verlet, atoms = VerletGraph(CUTOFF, SKIN), make()
        first = verlet.update(fields_of(atoms))
        atoms.positions[0, 0] += 0.99 * SKIN / 2
        second = verlet.update(fields_of(atoms))
        assert verlet.searches == 1
        assert second.pairs is first.pairs
        assert second.csr is first.csr
        atoms.positions[0, 0] += 0.02 * SKIN / 2
        verlet.update(fields_of(atoms))
        assert verlet.searches == 2


def test_all_pairs_of_a_molecule_stay_within_bounds_that_follow_it():
    torch.manual_seed(0)
    potential = Potential(SchNet.paper(zero_output=False, filters="spline").double()).eval()
    atoms, verlet = ethanol(), VerletGraph(math.inf, SKIN)
    for _ in range(6):
        with gpu_like():
            graph = verlet.update(fields_of(atoms))
            found = potential(from_ase(atoms), graph=graph)
        assert graph.pairs.size(1) == 36
        assert float(graph.distances().max()) < graph.distance_range[1]
        expected = potential(from_ase(atoms))
        assert (found["forces"] - expected["forces"]).abs().max() < 1e-12
        atoms.positions[8] *= 1.15  # a hydrogen atom leaves
    assert 1 < verlet.searches < 6


def test_atoms_that_are_not_finite_or_coincide_are_rejected_at_a_search():
    with gpu_like():
        verlet, atoms = VerletGraph(CUTOFF, SKIN), silicon()
        verlet.update(fields_of(atoms))
        atoms.positions[1] = np.nan
        with pytest.raises(ValueError, match="`pos` must be finite"):
            verlet.update(fields_of(atoms))
        atoms.positions[1] = atoms.positions[0]
        with pytest.raises(ValueError, match="two atoms at one point"):
            verlet.update(fields_of(atoms))
