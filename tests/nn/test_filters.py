import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from pyg_schnet.nn import FilterNetwork, GaussianSmearing


def literal_ssp(x):
    return torch.log(0.5 * torch.exp(x) + 0.5)


@pytest.fixture
def expansion():
    return torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[False, True], ids=["today", "paper"])
def network(request, randomize):
    return randomize(FilterNetwork(5, 4, final_activation=request.param).double())


# 1e-14: the same formula in another order of operations.
def test_the_network_is_dense_ssp_dense_and_in_the_paper_ssp_again(network, expansion):
    hidden = literal_ssp(expansion @ network.dense1.weight.T + network.dense1.bias)
    filters = hidden @ network.dense2.weight.T + network.dense2.bias
    expected = literal_ssp(filters) if network.final_activation else filters
    assert_close(network(expansion), expected, atol=1e-14, rtol=0)


# 1e-14: fewer terms are summed, and the missing ones are below 1e-17.
def test_a_trimmed_expansion_gives_the_same_filters(randomize):
    network = randomize(FilterNetwork(301, 4).double())
    smearing = GaussianSmearing(301, last_center=30.0, gamma=10.0).double()
    distance = torch.linspace(0.5, 5, 20, dtype=torch.float64)
    trimmed = network(smearing(distance, trim=True))
    assert_close(trimmed, network(smearing(distance)), atol=1e-14, rtol=0)


def test_a_trimmed_expansion_leaves_no_gradient_on_the_other_weights(randomize):
    network = randomize(FilterNetwork(5, 4).double())
    network(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    assert network.dense1.weight.grad[:, 3:].eq(0).all()


def test_filters_are_twice_differentiable(network, expansion):
    expansion.requires_grad_()
    assert gradcheck(network, expansion)
    assert gradgradcheck(network, expansion)


@pytest.mark.parametrize("layer", ["dense1", "dense2"])
def test_new_weights_are_xavier_uniform_without_bias(layer):
    torch.manual_seed(0)
    dense = getattr(FilterNetwork(40, 60), layer)
    bound = math.sqrt(6 / sum(dense.weight.shape))
    # 2 %: the largest of 2,400 uniform numbers is within 0.3 % of the bound, usually.
    assert 0.98 * bound < float(dense.weight.detach().abs().max()) <= bound
    assert dense.bias.eq(0).all()


def test_no_edges_have_no_filters(network):
    assert network(torch.empty(0, 5, dtype=torch.float64)).shape == (0, 4)
