import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, SchNet

CUTOFF = 4.0
TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}


@pytest.fixture(params=["cosine", "polynomial"])
def smooth(request, randomize):
    arguments = {"num_gaussians": 12, "cutoff": CUTOFF, "envelope": request.param}
    return Potential(randomize(SchNet(**TINY, **arguments).double())).eval()


def with_neon(molecule: Data, x: float) -> Data:
    """The molecule with a neon atom on the x axis, x Å from its atom on the far right."""
    right = molecule.pos[:, 0].argmax()
    neon = molecule.pos[right] + torch.tensor([x, 0.0, 0.0], dtype=torch.float64)
    return Data(z=torch.cat([molecule.z, torch.tensor([10])]), pos=torch.vstack([molecule.pos, neon]))


@pytest.mark.parametrize("distance", [CUTOFF + 1e-12, 4.1, 8.0, 500.0])
def test_an_atom_beyond_the_cutoff_of_all_others_changes_nothing(smooth, ethanol, distance):
    near, far = smooth(with_neon(ethanol, distance)), smooth(with_neon(ethanol, 1000.0))
    assert torch.equal(near["energy"], far["energy"])
    assert torch.equal(near["forces"], far["forces"])


def test_an_atom_within_the_cutoff_changes_the_energy(smooth, ethanol):
    near, far = smooth(with_neon(ethanol, 3.0)), smooth(with_neon(ethanol, 1000.0))
    assert abs(float(near["energy"] - far["energy"])) > 1e-4


# The envelope opens with (π δ / 2 d_c)², so within δ = 1e-6 Å of the cutoff energies differ by 1e-13 …
def test_the_energy_is_continuous_at_the_cutoff(smooth, ethanol):
    before, after = (smooth(with_neon(ethanol, CUTOFF + step)) for step in (-1e-6, 1e-6))
    assert_close(before["energy"], after["energy"], atol=1e-12, rtol=0)


# … and forces by δ times the curvature, of order 1 eV/Å²: measured 6e-8.
def test_forces_are_continuous_at_the_cutoff(smooth, ethanol):
    before, after = (smooth(with_neon(ethanol, CUTOFF + step)) for step in (-1e-6, 1e-6))
    assert_close(before["forces"], after["forces"], atol=2e-6, rtol=0)


# Linearly with the cosine envelope, quadratically with the polynomial one.
def test_forces_fade_out_towards_the_cutoff(smooth, ethanol):
    neon = [float(smooth(with_neon(ethanol, x))["forces"][-1].norm()) for x in (3.9, 3.99, 3.999)]
    assert neon[0] > 9 * neon[1] > 81 * neon[2] > 0


def test_information_travels_one_cutoff_with_each_interaction(default):
    # A chain of atoms every 3 Å, cutoff 4 Å: in two interactions, the first atom sees three.
    pos = torch.arange(5, dtype=torch.float64)[:, None] * torch.tensor([3.0, 0, 0], dtype=torch.float64)
    seen = []
    default.readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    for z in ([6, 6, 6, 6, 6], [6, 6, 6, 8, 6], [6, 6, 8, 6, 6]):
        default(torch.tensor(z), pos)
    carbon, fourth, third = seen
    assert torch.equal(carbon, fourth)
    assert not torch.allclose(carbon, third)


# 1e-13, here and below: blocked matrix products round differently in larger batches; measured 3e-15.
def test_a_batch_equals_its_molecules_one_by_one(potential, molecules):
    batched = potential(Batch.from_data_list(molecules))
    single = [potential(molecule) for molecule in molecules]
    for name in ("energy", "forces"):
        assert_close(batched[name], torch.cat([out[name] for out in single]), atol=1e-13, rtol=0)


def test_the_order_of_molecules_in_a_batch_does_not_matter(potential, molecules):
    forward = potential(Batch.from_data_list(molecules))["energy"]
    backward = potential(Batch.from_data_list(molecules[::-1]))["energy"]
    assert_close(backward.flip(0), forward, atol=1e-13, rtol=0)


def test_molecules_of_a_batch_do_not_feel_each_other(potential, molecules):
    batch = Batch.from_data_list(molecules)
    energy = potential.model(batch.z, batch.pos.requires_grad_(), batch.batch)
    (gradient,) = torch.autograd.grad(energy[1], batch.pos)
    assert gradient[batch.batch != 1].eq(0).all()
    assert gradient[batch.batch == 1].ne(0).any()


def test_molecules_of_a_batch_may_lie_on_top_of_each_other(potential, water):
    twice = potential(Batch.from_data_list([water, water]))["energy"]
    assert_close(twice, potential(water)["energy"].repeat(2), atol=1e-13, rtol=0)
