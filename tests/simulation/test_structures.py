import pytest
import torch
from ase import Atoms
from ase.build import graphene

from pyg_schnet.simulation.structures import from_ase


def test_a_molecule_has_no_lattice(ethanol):
    data = from_ase(ethanol)
    assert sorted(data.keys()) == ["pos", "z"]
    assert data.z.tolist() == ethanol.numbers.tolist()
    assert data.pos.dtype == torch.float64
    assert (data.pos.numpy() == ethanol.positions).all()


def test_a_crystal_has_one(crystal):
    data = from_ase(crystal)
    assert data.cell.shape == (1, 3, 3)
    assert (data.cell[0].numpy() == crystal.cell.array).all()
    assert data.pbc.tolist() == [[True, True, True]]


def test_a_layer_needs_two_lattice_vectors_only():
    assert from_ase(graphene(vacuum=None)).pbc.tolist() == [[True, True, False]]


def test_data_and_atoms_share_no_memory(ethanol):
    data = from_ase(ethanol)
    before = ethanol.positions.copy()
    data.pos += 1
    assert (ethanol.positions == before).all()


def test_no_atoms_are_refused():
    with pytest.raises(ValueError, match="`atoms` must hold at least one atom, got none"):
        from_ase(Atoms())


def test_periodic_atoms_without_a_cell_are_refused(ethanol):
    ethanol.pbc = True
    with pytest.raises(ValueError, match=r"`atoms.cell` must have a lattice vector .* set the cell"):
        from_ase(ethanol)
