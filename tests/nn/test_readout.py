import math

import pytest
import torch
from torch.testing import assert_close

from pyg_schnet.nn import AtomicMean, AtomicSum, AtomwiseNetwork, DipoleMagnitude, SpatialExtent

# Water, a molecule without atoms, a hydrogen molecule.
Z = torch.tensor([8, 1, 1, 1, 1])
POS = torch.tensor(
    [[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5], [5, 0, 0], [5, 0, 0.7]], dtype=torch.float64
)
BATCH = torch.tensor([0, 0, 0, 2, 2])
E_ATOM = [0.5, -0.25, 2.0, 1.0, 4.0]


class Given(torch.nn.Module):
    """A network whose output is known: the first feature."""

    def forward(self, x):
        return x[:, 0]


def readout(layer, values=E_ATOM, dtype=torch.float64, molecules=3):
    x = torch.tensor(values, dtype=dtype)[:, None]
    return layer(x, Z, POS.to(dtype), BATCH, molecules)


@pytest.fixture
def atomref():
    table = torch.zeros(100, dtype=torch.float64)
    table[1], table[8] = -13.6, -2041.0
    return table


def test_an_extensive_property_is_the_sum_over_atoms():
    assert readout(AtomicSum(Given())).tolist() == [2.25, 0, 5]


def test_an_intensive_property_is_the_mean_over_atoms():
    assert readout(AtomicMean(Given())).tolist() == [0.75, 0, 2.5]


@pytest.mark.parametrize(("layer", "expected"), [(AtomicSum, [31.5, 0, 28]), (AtomicMean, [10.5, 0, 14])])
def test_mean_and_deviation_apply_to_each_atom(layer, expected):
    assert readout(layer(Given(), mean=9.0, std=2.0)).tolist() == expected


# Relative 1e-14: one rounding of 2,000 eV.
@pytest.mark.parametrize(
    ("layer", "expected"),
    [(AtomicSum, [-2068.2, 0, -27.2]), (AtomicMean, [-2068.2 / 3, 0, -13.6])],
)
def test_atomic_references_are_added_to_each_atom(layer, expected, atomref):
    out = readout(layer(Given(), atomref=atomref), values=[0.0] * 5)
    assert out.tolist() == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("shape", [(100,), (100, 1)])
def test_references_may_be_a_vector_or_pygs_column(atomref, shape):
    assert_close(AtomicSum(Given(), atomref=atomref.view(shape)).atomref, atomref)


def test_references_may_end_at_the_last_element_of_the_data(atomref):
    assert_close(AtomicSum(Given(), atomref=atomref[:9]).atomref, atomref)


def test_references_are_fixed():
    assert "atomref" not in dict(AtomicSum(Given()).named_parameters())


def test_too_many_references_are_refused():
    message = "`atomref` must have at most 100 entries, one for each atomic number from 0; got 119"
    with pytest.raises(ValueError, match=message):
        AtomicSum(Given(), atomref=torch.zeros(119))


@pytest.mark.parametrize("layer", [AtomicSum, AtomicMean, DipoleMagnitude])
def test_trailing_molecules_without_atoms_give_zero(layer):
    assert readout(layer(Given()), molecules=5)[3:].tolist() == [0, 0]


@pytest.mark.parametrize("layer", [AtomicSum, AtomicMean, DipoleMagnitude])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_run_in_float64_whatever_the_network(layer, dtype):
    assert readout(layer(Given()), dtype=dtype).dtype == torch.float64


def test_the_dipole_of_two_opposite_charges_is_charge_times_distance():
    # H2 at 0.7 Å with charges ±0.3 e. 1e-14: a few roundings.
    out = readout(DipoleMagnitude(Given()), values=[0, 0, 0, 0.3, -0.3])
    assert float(out[2]) == pytest.approx(0.21, rel=1e-14, abs=0)


# 1e-12: the masses are the standard ones, to the last digit; a wrong origin shifts the dipole by 0.1 e Å.
def test_the_dipole_of_an_ion_is_taken_about_its_center_of_mass():
    oxygen, hydrogen = 15.999, 1.008
    center = (oxygen * 0.1 - 2 * hydrogen * 0.5) / (oxygen + 2 * hydrogen)
    out = readout(DipoleMagnitude(Given()), values=[-1.0, 0.8, 0.8, 0, 0])
    expected = abs(-1.0 * (0.1 - center) + 1.6 * (-0.5 - center))
    assert float(out[0]) == pytest.approx(expected, rel=1e-12, abs=0)


def test_a_molecule_without_charges_has_a_dipole_of_zero_with_zero_slope():
    charge = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
    DipoleMagnitude(Given())(charge, Z, POS, BATCH, 3).sum().backward()
    assert charge.grad.eq(0).all()


def test_charges_of_elements_are_added_to_the_scaled_output():
    charges = torch.zeros(9)
    charges[1] = 0.1
    out = readout(DipoleMagnitude(Given(), scale=2.0, charges=charges), values=[0, 0, 0, 0.05, -0.15])
    assert float(out[2]) == pytest.approx(0.2 * 0.7, rel=1e-7)  # charges of 0.2 and -0.2 e


def test_the_scale_of_an_extent_multiplies_the_output():
    layer = SpatialExtent(Given(), scale=0.5)
    layer.electrons[1] = 1.0
    out = readout(layer, values=[0, 0, 0, 2.0, 4.0])
    assert float(out[2]) == pytest.approx((2.0 + 3.0) * 0.35**2, rel=1e-12)


@pytest.mark.parametrize("layer", [DipoleMagnitude, SpatialExtent])
def test_weights_that_were_stored_without_a_scale_keep_their_results(layer):
    given = {"scale": 3.0, "charges": torch.ones(100)} if layer is DipoleMagnitude else {"scale": 3.0}
    own = layer(AtomwiseNetwork(4), **given).double()
    stored = {name: x for name, x in own.state_dict().items() if name not in ("scale", "charges")}
    own.load_state_dict(stored)
    before = layer(AtomwiseNetwork(4)).double()
    before.load_state_dict(stored)
    x = torch.rand(5, 4, dtype=torch.float64)
    assert_close(own(x, Z, POS, BATCH, 3), before(x, Z, POS, BATCH, 3), rtol=0, atol=0)


def test_a_dipole_without_given_scale_stores_the_network_alone():
    names = DipoleMagnitude(AtomwiseNetwork(4)).state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"network"}


def test_the_network_gives_one_number_an_atom():
    assert AtomwiseNetwork(6)(torch.ones(4, 6)).shape == (4,)


# 1e-15: the same formula.
def test_the_network_is_dense_ssp_dense(randomize):
    network = randomize(AtomwiseNetwork(6).double())
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 6)
    hidden = x @ network.dense1.weight.T + network.dense1.bias
    hidden = torch.log(0.5 * hidden.exp() + 0.5)
    expected = (hidden @ network.dense2.weight.T + network.dense2.bias)[:, 0]
    assert_close(network(x), expected, atol=1e-15, rtol=1e-15)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("silu", lambda x: x / (1 + (-x).exp())),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
    ],
)
def test_the_activation_of_the_network_can_be_another(activation, formula, randomize):
    network = randomize(AtomwiseNetwork(6, activation=activation).double())
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 6)
    hidden = formula(x @ network.dense1.weight.T + network.dense1.bias)
    expected = (hidden @ network.dense2.weight.T + network.dense2.bias)[:, 0]
    assert_close(network(x), expected, atol=1e-15, rtol=1e-14)


@pytest.mark.parametrize("layer", [AtomicSum, AtomicMean, DipoleMagnitude])
@pytest.mark.parametrize("zero_output", [True, False])
def test_reset_parameters_keeps_the_way_the_network_starts(layer, zero_output, randomize):
    network = randomize(AtomwiseNetwork(6, zero_output))
    layer(network).reset_parameters()
    assert bool(network.dense2.weight.eq(0).all()) is zero_output
    assert network.dense1.bias.eq(0).all()


def test_reset_parameters_draws_new_weights():
    layer = AtomicSum(AtomwiseNetwork(6))
    before = layer.network.dense1.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.network.dense1.weight)


def test_new_weights_are_xavier_uniform():
    torch.manual_seed(0)
    bound = math.sqrt(6 / (100 + 50))
    # 2 %: the largest of 5,000 uniform numbers is within 0.1 % of the bound, usually.
    assert 0.98 * bound < float(AtomwiseNetwork(100).dense1.weight.detach().abs().max()) <= bound


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    torch.compiler.reset()


@pytest.mark.nightly  # half a minute in torch's compiler
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("molecules", [1, 2])
def test_a_sum_over_atoms_can_be_compiled_by_torch(molecules):
    readout = AtomicSum(AtomwiseNetwork(8))
    x, z = torch.randn(4, 8), torch.tensor([8, 1, 1, 6])
    batch = torch.tensor([0, 0, 0, molecules - 1])
    found = torch.compile(readout)(x, z, torch.zeros(4, 3), batch, molecules)
    assert_close(found, readout(x, z, torch.zeros(4, 3), batch, molecules), atol=1e-6, rtol=0)
