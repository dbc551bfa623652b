import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.testing import assert_close
from torch_geometric.data import Data

# Measured 4e-14 on energies of 1 to 10 eV and forces of 4 eV/Å.
TOLERANCE = {"atol": 1e-12, "rtol": 0}


def random_rotation(seed: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(None, seed).as_matrix())


def orthogonal(seed: int, improper: bool) -> torch.Tensor:
    matrix = random_rotation(seed)
    return -matrix if improper else matrix


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
def test_energy_is_invariant_and_forces_turn_with_the_molecule(potential, molecule, seed, improper):
    matrix = orthogonal(seed, improper)
    turned = potential(Data(z=molecule.z, pos=molecule.pos @ matrix))
    still = potential(molecule)
    assert_close(turned["energy"], still["energy"], **TOLERANCE)
    assert_close(turned["forces"], still["forces"] @ matrix, **TOLERANCE)


# 1e-11: positions of 100 Å round by 1e-14, which curvatures of 10 eV/Å² enlarge; measured 3e-13.
def test_energy_and_forces_do_not_change_when_the_molecule_is_moved(potential, molecule):
    moved = potential(
        Data(z=molecule.z, pos=molecule.pos + torch.tensor([30.0, -100.0, 7.0], dtype=torch.float64))
    )
    assert_close(moved, potential(molecule), atol=1e-11, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_energy_does_not_change_and_forces_follow_when_atoms_are_renumbered(potential, molecule, seed):
    order = torch.randperm(len(molecule.z), generator=torch.Generator().manual_seed(seed))
    renumbered = potential(Data(z=molecule.z[order], pos=molecule.pos[order]))
    still = potential(molecule)
    assert_close(renumbered["energy"], still["energy"], **TOLERANCE)
    assert_close(renumbered["forces"], still["forces"][order], **TOLERANCE)


def test_energy_does_not_change_when_two_equal_atoms_are_exchanged(potential, water):
    exchanged = Data(z=water.z, pos=water.pos[[0, 2, 1]])
    assert_close(potential(exchanged)["energy"], potential(water)["energy"], **TOLERANCE)


def test_energy_changes_when_two_different_atoms_are_exchanged(potential, water):
    exchanged = Data(z=water.z, pos=water.pos[[1, 0, 2]])
    difference = potential(exchanged)["energy"] - potential(water)["energy"]
    assert abs(float(difference)) > 1e-3
