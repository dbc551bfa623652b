"""The loss is equation (5) of the paper, averaged over molecules."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_schnet.training import energy_forces_loss


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
    loss = energy_forces_loss(prediction(), batch, 0.01, ONE)
    assert loss.item() == pytest.approx(0.01 * 4.25 / 2 + (9 + 13) / 2, rel=1e-14)
    assert loss.dtype == torch.float64


def test_absolute_errors_are_lengths_of_differences(batch):
    # Energies: (2 + 0.5) / 2; forces: 3 for the atom alone, (5 + 1) / 2 for the two; all over the scale.
    loss = energy_forces_loss(prediction(), batch, 0.1, 2 * ONE, "absolute")
    assert loss.item() == pytest.approx((0.1 * 1.25 + (3 + 3) / 2) / 2, rel=1e-14)


def test_absolute_errors_of_the_labels_have_the_slope_zero(batch):
    out = {"energy": batch.energy.clone(), "forces": batch.forces.clone().requires_grad_()}
    energy_forces_loss(out, batch, 1.0, ONE, "absolute").backward()
    assert torch.equal(out["forces"].grad, torch.zeros_like(batch.forces))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_energies_alone_have_no_term_of_forces(batch, weight):
    loss = energy_forces_loss(prediction(forces=False), batch, weight, ONE)
    assert loss.item() == pytest.approx(weight * 4.25 / 2, rel=1e-14)


def test_the_scale_divides_both_errors(batch):
    loss = energy_forces_loss(prediction(), batch, 0.01, ONE)
    scaled = energy_forces_loss(prediction(), batch, 0.01, 4 * ONE)
    assert scaled.item() == pytest.approx(loss.item() / 16, rel=1e-14)


def test_the_loss_of_the_labels_is_zero(batch):
    out = {"energy": batch.energy, "forces": batch.forces}
    assert energy_forces_loss(out, batch, 1.0, ONE).item() == 0.0


def test_labels_are_not_modified(batch):
    energy, forces = batch.energy.clone(), batch.forces.clone()
    energy_forces_loss(prediction(), batch, 1.0, ONE)
    assert torch.equal(batch.energy, energy)
    assert torch.equal(batch.forces, forces)


def test_a_difference_of_large_energies_keeps_its_digits(batch):
    batch.energy = torch.tensor([-17638.6583, -17638.6583], dtype=torch.float64)
    out = {"energy": batch.energy + 1e-6}
    assert energy_forces_loss(out, batch, 1.0, ONE).item() == pytest.approx(1e-12, rel=1e-4)
