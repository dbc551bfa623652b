"""The loss is equation (5) of the paper, averaged over molecules, and a term of stresses."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_schnet.training import potential_loss


@pytest.fixture
def batch():
    """Molecules of one and two atoms; energies 1 and 5 eV, no forces."""
    molecules = [
        Data(z=torch.ones(n, dtype=torch.long), pos=torch.zeros(n, 3), energy=torch.tensor([energy]).double(),
             forces=torch.zeros(n, 3, dtype=torch.float64))
        for n, energy in ((1, 1.0), (2, 5.0))
    ]  # fmt: skip
    return Batch.from_data_list(molecules)


def prediction(forces=True):
    out = {"energy": torch.tensor([3.0, 5.5], dtype=torch.float64)}
    if forces:
        out["forces"] = torch.tensor([[1.0, 2.0, 2.0], [0.0, 3.0, 4.0], [0.0, 0.0, 1.0]])
    return out


ONE = torch.tensor(1.0, dtype=torch.float64)


def test_molecules_count_equally_whatever_their_size(batch):
    # Energies: (2² + 0.5²) / 2; forces: 9 for the atom alone, (25 + 1) / 2 for the two.
    loss = potential_loss(prediction(), batch, 0.01, ONE)
    assert loss.item() == pytest.approx(0.01 * 4.25 / 2 + (9 + 13) / 2, rel=1e-14)
    assert loss.dtype == torch.float64


def test_absolute_errors_are_lengths_of_differences(batch):
    # Energies: (2 + 0.5) / 2; forces: 3 for the atom alone, (5 + 1) / 2 for the two; all over the scale.
    loss = potential_loss(prediction(), batch, 0.1, 2 * ONE, "absolute")
    assert loss.item() == pytest.approx((0.1 * 1.25 + (3 + 3) / 2) / 2, rel=1e-14)


def test_absolute_errors_of_the_labels_have_the_slope_zero(batch):
    out = {"energy": batch.energy.clone(), "forces": batch.forces.clone().requires_grad_()}
    potential_loss(out, batch, 1.0, ONE, "absolute").backward()
    assert torch.equal(out["forces"].grad, torch.zeros_like(batch.forces))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_energies_alone_have_no_term_of_forces(batch, weight):
    loss = potential_loss(prediction(forces=False), batch, weight, ONE)
    assert loss.item() == pytest.approx(weight * 4.25 / 2, rel=1e-14)


def test_the_scale_divides_both_errors(batch):
    loss = potential_loss(prediction(), batch, 0.01, ONE)
    scaled = potential_loss(prediction(), batch, 0.01, 4 * ONE)
    assert scaled.item() == pytest.approx(loss.item() / 16, rel=1e-14)


def test_the_loss_of_the_labels_is_zero(batch):
    out = {"energy": batch.energy, "forces": batch.forces}
    assert potential_loss(out, batch, 1.0, ONE).item() == 0.0


def test_labels_are_not_modified(batch):
    energy, forces = batch.energy.clone(), batch.forces.clone()
    potential_loss(prediction(), batch, 1.0, ONE)
    assert torch.equal(batch.energy, energy)
    assert torch.equal(batch.forces, forces)


def test_a_difference_of_large_energies_keeps_its_digits(batch):
    batch.energy = torch.tensor([-17638.6583, -17638.6583], dtype=torch.float64)
    out = {"energy": batch.energy + 1e-6}
    assert potential_loss(out, batch, 1.0, ONE).item() == pytest.approx(1e-12, rel=1e-4)


@pytest.fixture
def crystals(batch):
    """One atom in 8 Å³, and two without a cell; no stress."""
    batch.cell = torch.stack([2 * torch.eye(3), torch.zeros(3, 3)]).double()
    batch.stress = torch.zeros(2, 3, 3, dtype=torch.float64)
    return batch


def stressed(scale=1.0):
    stress = torch.full((2, 3, 3), torch.nan, dtype=torch.float64)
    stress[0] = scale * torch.tensor([[3.0, 0, 0], [0, 0, 4.0], [0, 0, 0]])
    return {"energy": torch.tensor([1.0, 5.0], dtype=torch.float64), "stress": stress.requires_grad_()}


def test_stresses_count_as_energies_an_atom_and_molecules_without_have_no_term(crystals):
    # Volume an atom 8 Å³: (8 * 5)² for the one, nothing for the other, over two systems.
    loss = potential_loss(stressed(), crystals, 1.0, 2 * ONE, stress_weight=0.25)
    assert loss.item() == pytest.approx(0.25 * 40**2 / 4 / 2, rel=1e-14)
    absolute = potential_loss(stressed(), crystals, 1.0, 2 * ONE, "absolute", stress_weight=0.25)
    assert absolute.item() == pytest.approx(0.25 * 40 / 2 / 2, rel=1e-14)


def test_the_stress_of_a_crystal_counts_by_its_volume_an_atom(crystals):
    # Two atoms in 27 Å³: (27 / 2 * 5)² for the second system, nothing for the first.
    crystals.cell = torch.stack([torch.zeros(3, 3), 3 * torch.eye(3)]).double()
    out = stressed()
    out["stress"] = out["stress"].detach().flip(0)
    loss = potential_loss(out, crystals, 1.0, ONE)
    assert loss.item() == pytest.approx((27 / 2 * 5) ** 2 / 2, rel=1e-14)


@pytest.mark.parametrize("errors", ["squared", "absolute"])
def test_systems_without_stress_leave_gradients_finite(crystals, errors):
    out = stressed()
    potential_loss(out, crystals, 1.0, ONE, errors).backward()
    assert out["stress"].grad.isfinite().all()
    assert not out["stress"].grad[1].any()
