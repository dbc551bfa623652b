import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}


# The paper's Gaussians, γ = 10 Å⁻², make third derivatives of 300 eV/Å³: differences of two points
# would err by 5e-7, those of four err by h⁴ of the fifth. Measured 9e-11, the rounding of energies by h.
def test_forces_are_minus_the_energy_gradient(potential, molecule):
    h = 1e-4
    numeric = torch.zeros_like(molecule.pos)
    for atom in range(len(molecule.z)):
        for axis in range(3):
            for steps, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
                pos = molecule.pos.clone()
                pos[atom, axis] += steps * h
                energy = potential(Data(z=molecule.z, pos=pos), forces=False)["energy"]
                numeric[atom, axis] -= weight * float(energy) / h
    assert_close(potential(molecule)["forces"], numeric, atol=2e-9, rtol=0)


def test_forces_are_not_zero(potential, molecule):
    assert (potential(molecule)["forces"].norm(dim=1) > 1e-3).all()


# 1e-13, here and for the torque: measured 2e-15.
def test_forces_sum_to_zero(potential, molecule):
    total = potential(molecule)["forces"].sum(dim=0)
    assert_close(total, torch.zeros_like(total), atol=1e-13, rtol=0)


def test_forces_exert_no_torque(potential, molecule):
    torque = torch.linalg.cross(molecule.pos, potential(molecule)["forces"]).sum(dim=0)
    assert_close(torque, torch.zeros_like(torque), atol=1e-13, rtol=0)


@pytest.mark.parametrize("envelope", ["cosine", "polynomial"])
@pytest.mark.parametrize("final_activation", [True, False])
def test_the_energy_is_twice_differentiable(ethanol, randomize, envelope, final_activation):
    arguments = {"cutoff": 4.0, "envelope": envelope, "final_activation": final_activation}
    model = randomize(SchNet(**TINY, num_gaussians=12, **arguments).double())
    pos = ethanol.pos[:6].requires_grad_()
    assert gradcheck(lambda pos: model(ethanol.z[:6], pos), pos)
    assert gradgradcheck(lambda pos: model(ethanol.z[:6], pos), pos)


def test_the_energy_of_the_paper_is_twice_differentiable(paper, water):
    pos = water.pos.requires_grad_()
    assert gradcheck(lambda pos: paper(water.z, pos), pos)
    assert gradgradcheck(lambda pos: paper(water.z, pos), pos)


# Along one random direction for each parameter. Measured 2e-8 of a slope of 10: h² of the third derivative.
def test_gradients_of_a_loss_of_forces_are_its_finite_differences(model, molecules):
    batch = Batch.from_data_list(molecules[:2])
    potential = Potential(model, scale=2.0).train()
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(batch.pos.shape, generator=generator, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (potential(batch)["forces"] - target).square().mean()

    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    h = 1e-5
    wrong = {}
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        along = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for step in (h, -2 * h, h):
                parameter += step * along
                values.append(float(loss().detach()))
        numeric = (values[0] - values[1]) / (2 * h)
        # The last bias shifts the energy and no force.
        exact = 0.0 if gradient is None else float((gradient * along).sum())
        if abs(numeric - exact) > 1e-7 * max(1, abs(exact)):
            wrong[name] = (numeric, exact)
    assert wrong == {}
