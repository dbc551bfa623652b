"""From ASE to PyG and back."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from torch_geometric.data import Batch, Data

from pyg_schnet.transforms.ase_atoms import from_ase, to_ase


@pytest.fixture
def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def crystal():
    atoms = bulk("C", "diamond", a=3.6)
    atoms.rattle(0.05, seed=2)
    return atoms


@pytest.fixture
def labelled():
    """Hydrogen fluoride in a box, with all labels, by hand."""
    return Data(
        z=torch.tensor([9, 1]),
        pos=torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.1]], dtype=torch.float64),
        cell=6.0 * torch.eye(3, dtype=torch.float64)[None],
        pbc=torch.tensor([[True, True, False]]),
        energy=torch.tensor([-2734.25], dtype=torch.float64),
        forces=torch.tensor([[0.5, 0.0, -0.125], [-0.5, 0.0, 0.125]], dtype=torch.float64),
        stress=torch.tensor([[[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]], dtype=torch.float64),
    )


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


def test_atoms_and_data_share_no_memory(labelled):
    before = labelled.clone()
    atoms = to_ase(labelled)
    for array in (atoms.positions, atoms.cell.array, atoms.calc.results["forces"]):
        array += 1
    atoms.pbc[:] = True
    for name in ("pos", "cell", "forces", "pbc"):
        assert torch.equal(labelled[name], before[name]), name


def test_no_atoms_are_refused():
    with pytest.raises(ValueError, match=r"`atoms`.*at least.*atom"):
        from_ase(Atoms())


def test_periodic_atoms_without_a_cell_are_refused(ethanol):
    ethanol.pbc = True
    with pytest.raises(ValueError, match=r"`atoms.cell`.*lattice.*vector"):
        from_ase(ethanol)


@pytest.mark.parametrize("make", [lambda: molecule("CH3CH2OH"), lambda: bulk("NaCl", "rocksalt", a=5.64)])
def test_there_and_back_again_is_the_same_to_the_bit(make):
    atoms = make()
    atoms.rattle(0.05, seed=3)
    again = to_ase(from_ase(atoms))
    assert again == atoms  # ASE compares positions, numbers, cell and pbc exactly
    assert again.positions.dtype == np.float64


def test_back_and_there_again_is_the_same_to_the_bit(labelled):
    again = from_ase(to_ase(labelled))
    for name in again.keys():  # noqa: SIM118 - iterating a Data gives pairs
        assert torch.equal(again[name], labelled[name]), name


def test_single_precision_is_widened_exactly(ethanol):
    data = from_ase(ethanol)
    data.pos = data.pos.float()
    assert (to_ase(data).positions == data.pos.double().numpy()).all()


def test_results_are_those_of_the_labels_in_ase_s_order(labelled):
    atoms = to_ase(labelled)
    assert atoms.get_potential_energy() == -2734.25
    assert (atoms.get_forces() == labelled.forces.numpy()).all()
    assert atoms.get_stress().tolist() == [1, 2, 3, 4, 5, 6]  # xx, yy, zz, yz, xz, xy


def test_results_survive_a_file(labelled, tmp_path):
    ase.io.write(tmp_path / "out.extxyz", to_ase(labelled))
    again = ase.io.read(tmp_path / "out.extxyz")
    assert again.get_potential_energy() == -2734.25
    assert (again.get_forces() == labelled.forces.numpy()).all()
    assert again.get_stress().tolist() == [1, 2, 3, 4, 5, 6]


def test_results_can_be_left_behind(labelled):
    assert to_ase(labelled, with_results=False).calc is None


def test_without_labels_there_is_no_calculator(ethanol):
    assert to_ase(from_ase(ethanol)).calc is None


def test_a_batch_becomes_a_list_in_order(labelled):
    other = labelled.clone()
    other.z, other.pos, other.forces = other.z[:1], other.pos[:1], other.forces[:1]
    other.energy = other.energy + 1
    first, second = to_ase(Batch.from_data_list([labelled, other]))
    assert first == to_ase(labelled)
    assert second.get_chemical_symbols() == ["F"]
    assert second.get_potential_energy() == -2733.25
    assert second.get_forces().tolist() == [[0.5, 0.0, -0.125]]


def test_a_batch_of_one_is_a_list_of_one(labelled):
    assert [len(atoms) for atoms in to_ase(Batch.from_data_list([labelled]))] == [2]


def test_a_batch_made_by_hand_is_not_one_molecule(labelled):
    data = Data(z=labelled.z, pos=labelled.pos, batch=torch.tensor([0, 1]))
    assert [atoms.get_chemical_symbols() for atoms in to_ase(data)] == [["F"], ["H"]]


def test_labels_with_a_gradient_are_taken(labelled):
    labelled.pos.requires_grad_()
    labelled.energy = labelled.energy + labelled.pos.sum() * 0
    assert to_ase(labelled).get_potential_energy() == -2734.25


def test_data_without_positions_is_refused():
    with pytest.raises(ValueError, match=r"^`data`.*`pos`.*'z'"):
        to_ase(Data(z=torch.tensor([1])))
    with pytest.raises(ValueError, match=r"^`data`.*`z`.*one"):
        to_ase(Data())
