import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch_geometric.nn import MessagePassing, Sequential

from pyg_schnet import SchNet
from pyg_schnet.nn import CFConv

CHANNELS, FEATURES = 4, 3


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def conv(randomize):
    return randomize(CFConv(torch.nn.Linear(FEATURES, CHANNELS)).double())


@pytest.fixture
def graph(generator):
    """Six nodes and fifteen edges in random order, some twice, some loops, one node without edges."""
    x = torch.randn(6, CHANNELS, dtype=torch.float64, generator=generator)
    edge_index = torch.randint(0, 5, (2, 15), generator=generator)
    edge_attr = torch.randn(15, FEATURES, dtype=torch.float64, generator=generator)
    return x, edge_index, edge_attr


def double_loop(conv, x, edge_index, edge_attr, targets, weight=None):
    """Equation (2), as it is written."""
    out = torch.zeros(targets, CHANNELS, dtype=x.dtype)
    filters = conv.filter_network(edge_attr)
    for i in range(targets):
        for edge, (j, target) in enumerate(edge_index.T.tolist()):
            if target == i:
                out[i] += x[j] * filters[edge] * (1 if weight is None else weight[edge])
    return out


# 1e-14, here and below: sums of 15 terms of order one in another order.
def test_the_convolution_is_equation_2(conv, graph):
    x, edge_index, edge_attr = graph
    assert_close(conv(*graph), double_loop(conv, x, edge_index, edge_attr, 6), atol=1e-14, rtol=0)


def test_edge_weights_are_factors_of_the_filters(conv, graph, generator):
    weight = torch.rand(15, dtype=torch.float64, generator=generator)
    expected = double_loop(conv, *graph, 6, weight)
    assert_close(conv(*graph, edge_weight=weight), expected, atol=1e-14, rtol=0)


def test_the_order_of_edges_does_not_matter(conv, graph, generator):
    x, edge_index, edge_attr = graph
    order = torch.randperm(15, generator=generator)
    shuffled = conv(x, edge_index[:, order], edge_attr[order])
    assert_close(shuffled, conv(*graph), atol=1e-14, rtol=0)


def test_a_node_without_neighbors_gets_zero(conv, graph):
    assert conv(*graph)[5].eq(0).all()


def test_a_graph_without_edges_gives_zeros(conv):
    x = torch.ones(2, CHANNELS, dtype=torch.float64)
    out = conv(x, torch.empty(2, 0, dtype=torch.long), torch.empty(0, FEATURES, dtype=torch.float64))
    assert out.tolist() == [[0] * CHANNELS] * 2


def test_pairs_share_the_filters_of_their_row(conv, graph):
    x, edge_index, edge_attr = graph
    pair = torch.arange(15) % 4
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    shared = conv(x, edge_index, edge_attr[:4], edge_weight=weight, pair=pair)
    assert_close(shared, conv(x, edge_index, edge_attr[pair], edge_weight=weight[pair]), atol=1e-14, rtol=0)


@pytest.mark.parametrize("width", [CHANNELS, 1, 9])
def test_targets_of_a_bipartite_graph_only_give_their_number(conv, graph, width):
    x, edge_index, edge_attr = graph
    out = conv((x, torch.zeros(8, width, dtype=torch.float64)), edge_index, edge_attr)
    assert_close(out, double_loop(conv, x, edge_index, edge_attr, 8), atol=1e-14, rtol=0)


def test_targets_without_features_are_counted_by_size(conv, graph):
    x, edge_index, edge_attr = graph
    out = conv((x, None), edge_index, edge_attr, size=(6, 9))
    assert_close(out, double_loop(conv, x, edge_index, edge_attr, 9), atol=1e-14, rtol=0)


def test_targets_without_features_and_size_are_as_many_as_sources(conv, graph):
    x, edge_index, edge_attr = graph
    assert_close(conv((x, None), edge_index, edge_attr), conv(*graph), atol=0, rtol=0)


@pytest.mark.parametrize("generated", [True, False], ids=["generated propagate", "general propagate"])
def test_the_flow_can_be_reversed(conv, graph, generated):
    x, edge_index, edge_attr = graph
    against = CFConv(conv.filter_network, flow="target_to_source")
    if not generated:  # what PyG uses under hooks and explanations
        against.propagate = MessagePassing.propagate.__get__(against)
    assert_close(against(x, edge_index.flip(0), edge_attr), conv(*graph), atol=1e-14, rtol=0)


def test_hooks_of_message_passing_see_the_messages(conv, graph):
    seen = []
    conv.register_message_forward_hook(lambda _, inputs, messages: seen.append(messages.shape))
    conv(*graph)
    assert seen == [(15, CHANNELS)]


def test_another_aggregation_can_be_chosen(conv, graph):
    edge_index = graph[1]
    degree = torch.bincount(edge_index[1], minlength=6).clamp(min=1)[:, None]
    mean = CFConv(conv.filter_network, aggr="mean")
    assert_close(mean(*graph) * degree, conv(*graph), atol=1e-14, rtol=0)


def test_it_works_inside_pygs_sequential(conv, graph):
    layers = [(conv, "x, edge_index, edge_attr -> x"), torch.nn.Tanh()]
    stack = Sequential("x, edge_index, edge_attr", layers)
    assert_close(stack(*graph), conv(*graph).tanh(), atol=0, rtol=0)


def test_edges_may_carry_integers(graph):
    x, edge_index, _ = graph
    bond = torch.arange(15) % 3
    conv = CFConv(torch.nn.Embedding(3, CHANNELS).double())
    assert_close(conv(x, edge_index, bond), double_loop(conv, x, edge_index, bond, 6), atol=1e-14, rtol=0)


def test_edges_may_carry_matrices(graph, generator):
    x, edge_index, _ = graph
    moments = torch.randn(15, 2, 3, dtype=torch.float64, generator=generator)
    conv = CFConv(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, CHANNELS)).double())
    expected = double_loop(conv, x, edge_index, moments, 6)
    assert_close(conv(x, edge_index, moments), expected, atol=1e-14, rtol=0)


def test_pyg_generated_its_specialised_propagate(conv):
    # PyG drops it without a word where `message` carries annotations it cannot write down again.
    assert conv.propagate.__func__ is not MessagePassing.propagate
    assert "CFConv_propagate" in conv.propagate.__func__.__module__


def test_the_convolution_is_twice_differentiable(conv, graph):
    x, edge_index, edge_attr = graph
    inputs = x.requires_grad_(), edge_attr.requires_grad_()
    assert gradcheck(lambda x, e: conv(x, edge_index, e), inputs)
    assert gradgradcheck(lambda x, e: conv(x, edge_index, e), inputs)


def test_schnet_calls_the_convolution_in_each_interaction(model, water):
    calls = []
    for module in model.modules():
        if isinstance(module, CFConv):
            module.register_forward_hook(lambda *_: calls.append("cfconv"))
    model(water.z, water.pos)
    assert calls == ["cfconv"] * model.config.num_interactions


def test_the_convolution_calls_propagate(conv, graph, monkeypatch):
    calls = []
    propagate = conv.propagate

    def spy(*args, **kwargs):
        calls.append("propagate")
        return propagate(*args, **kwargs)

    monkeypatch.setattr(conv, "propagate", spy)
    conv(*graph)
    assert calls == ["propagate"]


def test_reset_parameters_leaves_the_last_word_to_the_filter_network():
    # The filter network draws Xavier weights and no biases; its layers alone would draw others.
    interaction = SchNet(hidden_channels=8, num_filters=8, num_interactions=1).interactions[0]
    interaction.cfconv.reset_parameters()
    assert interaction.cfconv.filter_network.dense1.bias.eq(0).all()


def test_reset_parameters_reaches_the_layers_of_any_filter_network():
    conv = CFConv(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2))))
    before = [parameter.clone() for parameter in conv.parameters()]
    torch.manual_seed(1)
    conv.reset_parameters()
    assert not any(torch.equal(old, new) for old, new in zip(before, conv.parameters(), strict=True))


# 1e-14: torch_scatter adds the same terms in another order.
def test_aggregation_through_torch_scatter_gives_the_same(conv, graph):
    torch_scatter = pytest.importorskip("torch_scatter")
    x, (source, target), edge_attr = graph
    messages = x[source] * conv.filter_network(edge_attr)
    scattered = torch_scatter.scatter(messages, target, dim=0, dim_size=6, reduce="sum")
    assert_close(conv(*graph), scattered, atol=1e-14, rtol=0)
