"""The convolution in the places where PyG puts convolutions."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.explain import CaptumExplainer, Explainer, GNNExplainer
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import HeteroConv, MessagePassing, NNConv, to_hetero
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor
from torch_geometric.utils import (
    bipartite_subgraph,
    k_hop_subgraph,
    to_torch_coo_tensor,
    to_torch_csc_tensor,
    to_torch_csr_tensor,
)

from pyg_schnet.nn import CFConv, FilterNetwork, GaussianSmearing, SchNet

pytestmark = pytest.mark.filterwarnings(  # torch's own, of any sparse tensor
    "ignore:Sparse CS[RC] tensor support:UserWarning", "ignore:Sparse invariant checks:UserWarning"
)

CHANNELS, FEATURES, NODES, EDGES = 4, 3, 6, 12
EXACT = {"atol": 1e-14, "rtol": 0}  # sums of a dozen terms of order one in another order


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def conv(randomize):
    return randomize(CFConv(torch.nn.Linear(FEATURES, CHANNELS)).double())


@pytest.fixture
def graph(generator):
    """Twelve different edges between six nodes, loops among them, in random order."""
    pairs = torch.randperm(NODES * NODES, generator=generator)[:EDGES]
    edge_attr = torch.randn(EDGES, FEATURES, dtype=torch.float64, generator=generator)
    x = torch.randn(NODES, CHANNELS, dtype=torch.float64, generator=generator)
    return x, torch.stack([pairs // NODES, pairs % NODES]), edge_attr


def coo(edge_index, values, size=(NODES, NODES)):
    """A transposed adjacency whose entries are in the order of the edges."""
    return torch.sparse_coo_tensor(edge_index.flip(0), values, (*size[::-1], *values.shape[1:]))


def number_edges(make, edge_index, size=(NODES, NODES)):
    """A transposed adjacency with the edges' numbers as values, which tell the order of its entries."""
    adj_t = make(edge_index, torch.arange(edge_index.size(1)), size=size).t()
    values = adj_t._values() if adj_t.layout == torch.sparse_coo else adj_t.values()
    return adj_t, values.long()


# Adjacency matrices


@pytest.mark.parametrize("make", [to_torch_coo_tensor, to_torch_csr_tensor, to_torch_csc_tensor])
@pytest.mark.parametrize("general", [False, True], ids=["generated propagate", "general propagate"])
def test_edge_features_go_with_the_entries_of_an_adjacency(conv, graph, make, general):
    x, edge_index, edge_attr = graph
    adj_t, order = number_edges(make, edge_index)
    assert order.tolist() != sorted(order.tolist())
    if general:
        conv.propagate = MessagePassing.propagate.__get__(conv)
    assert_close(conv(x, adj_t, edge_attr[order]), conv(*graph), **EXACT)
    assert_close(conv((x, None), adj_t, edge_attr[order]), conv(*graph), **EXACT)


@pytest.mark.parametrize("make", [to_torch_coo_tensor, to_torch_csr_tensor, to_torch_csc_tensor])
def test_an_adjacency_between_two_sets_of_nodes_has_their_sizes(conv, graph, generator, make):
    x, (source, target), edge_attr = graph
    edge_index = torch.stack([source, target % 3]).unique(dim=1)
    edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    edge_attr = edge_attr[: edge_index.size(1)]
    adj_t, order = number_edges(make, edge_index, size=(NODES, 8))
    out = conv((x, None), adj_t, edge_attr[order])
    assert_close(out, conv((x, None), edge_index, edge_attr, size=(NODES, 8)), **EXACT)
    assert out.shape == (8, CHANNELS)


def test_values_of_an_adjacency_are_the_features_where_none_are_given(conv, graph):
    x, edge_index, edge_attr = graph
    adj_t = to_torch_coo_tensor(edge_index, edge_attr, size=NODES).transpose(0, 1).coalesce()
    assert_close(conv(x, adj_t), conv(*graph), **EXACT)
    other = coo(edge_index, torch.full_like(edge_attr, 5.0))
    assert_close(conv(x, other, edge_attr), conv(*graph), **EXACT)


@pytest.mark.parametrize("make", [to_torch_coo_tensor, to_torch_csr_tensor, to_torch_csc_tensor])
def test_distances_in_an_adjacency_make_radial_filters(randomize, graph, generator, make):
    x, edge_index, _ = graph
    distance = 5 * torch.rand(EDGES, dtype=torch.float64, generator=generator)
    radial = torch.nn.Sequential(GaussianSmearing(8, 5.0), FilterNetwork(8, CHANNELS))
    conv = CFConv(randomize(radial.double()))
    assert_close(conv(x, make(edge_index, distance, size=NODES).t()), conv(x, edge_index, distance), **EXACT)


def test_an_entry_that_is_there_twice_is_two_edges(conv, graph):
    x, edge_index, edge_attr = graph
    twice, features = torch.cat([edge_index, edge_index], 1), torch.cat([edge_attr, edge_attr.flip(0)])
    assert_close(conv(x, coo(twice, features)), conv(x, twice, features), **EXACT)


def test_gradients_reach_the_values_of_an_adjacency(conv, graph):
    x, edge_index, edge_attr = graph
    edge_attr.requires_grad_()
    (expected,) = torch.autograd.grad(conv(*graph).square().sum(), edge_attr)
    adj_t = coo(edge_index, edge_attr)
    with pytest.raises(ValueError, match=r"coalesced.*adj_t\.coalesce\(\)"):
        conv(x, adj_t)
    (gradient,) = torch.autograd.grad(conv(x, adj_t.coalesce()).square().sum(), edge_attr)
    assert_close(gradient, expected, atol=1e-13, rtol=0)  # squares: ten times as large


@pytest.mark.skipif(not WITH_TORCH_SPARSE, reason="needs torch_sparse, which PyPI has as source only")
def test_torch_sparse_gives_the_same(conv, graph):
    x, edge_index, edge_attr = graph
    sparse = SparseTensor.from_edge_index(edge_index, edge_attr, (NODES, NODES))
    assert_close(conv(x, sparse.t()), conv(*graph), **EXACT)
    numbers = SparseTensor.from_edge_index(edge_index, torch.arange(EDGES), (NODES, NODES)).t()
    assert_close(conv(x, numbers, edge_attr[numbers.storage.value()]), conv(*graph), **EXACT)
    data = ToSparseTensor(attr="edge_attr")(Data(x=x, edge_index=edge_index, edge_attr=edge_attr))
    assert_close(conv(x, data.adj_t), conv(*graph), **EXACT)


@pytest.mark.parametrize("order", [None, "row", "col"])
@pytest.mark.parametrize("cached", [False, True], ids=["bare", "with its CSR"])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_an_edge_index_of_pyg_gives_the_same(conv, graph, order, cached, flow):
    x, edge_index, edge_attr = graph
    conv = CFConv(conv.filter_network, flow=flow)
    edges = EdgeIndex(edge_index, sparse_size=(NODES, NODES))
    if order is not None:
        edges, place = edges.sort_by(order)
        edge_attr = edge_attr[place]
        edges = edges.fill_cache_() if cached else edges
    assert_close(conv(x, edges, edge_attr), conv(*graph), **EXACT)


# Graphs in parts and of several kinds


def test_a_part_with_all_neighbors_of_a_node_computes_that_node(conv, graph):
    x, edge_index, edge_attr = graph
    target = int(edge_index[1].mode()[0])
    nodes, edges, place, kept = k_hop_subgraph(target, 2, edge_index, True, NODES)
    hidden = conv(x[nodes], edges, edge_attr[kept])
    out = conv(hidden, edges, edge_attr[kept])
    assert_close(out[place], conv(conv(*graph), edge_index, edge_attr)[[target]], **EXACT)


def test_a_mini_batch_computes_its_first_nodes(conv, graph):
    """As a loader gives it: the nodes asked for come first, and are the targets."""
    x, edge_index, edge_attr = graph
    n_id = torch.tensor([4, 1, 0, 2, 3, 5])
    place = torch.empty_like(n_id).scatter_(0, n_id, torch.arange(NODES))
    edges, kept = bipartite_subgraph((torch.arange(NODES), n_id[:2]), edge_index, edge_attr)
    edges = place[edges]
    out = conv((x[n_id], x[n_id[:2]]), edges, kept)
    assert_close(out, conv(*graph)[n_id[:2]], **EXACT)


def test_pygs_neighbor_loader_gives_the_same(conv, graph):
    pytest.importorskip("pyg_lib", reason="needs pyg-lib to sample neighbors, which PyPI does not carry")
    x, edge_index, edge_attr = graph
    data = Data(x=x, edge_index=edge_index, edge_attr=edge_attr)
    for batch in NeighborLoader(data, num_neighbors=[-1], batch_size=2):
        out = conv(batch.x, batch.edge_index, batch.edge_attr)[: batch.batch_size]
        assert_close(out, conv(*graph)[batch.n_id[: batch.batch_size]], **EXACT)


@pytest.fixture
def two_kinds(graph, generator):
    """Sensors and places: edges among the sensors, and from them to the places."""
    x, edge_index, edge_attr = graph
    data = HeteroData()
    data["sensor"].x = x
    data["place"].x = torch.randn(3, CHANNELS, dtype=torch.float64, generator=generator)
    data["sensor", "near", "sensor"].edge_index = edge_index
    data["sensor", "sees", "place"].edge_index = torch.stack([edge_index[0], edge_index[1] % 3])
    data["sensor", "near", "sensor"].edge_attr = edge_attr
    data["sensor", "sees", "place"].edge_attr = edge_attr.flip(0)
    return data


def test_hetero_conv_adds_up_the_kinds_of_edges(conv, two_kinds):
    near, sees = two_kinds.edge_types
    own = copy.deepcopy(conv)
    layer = HeteroConv({near: conv, sees: own}, aggr="sum")
    out = layer(two_kinds.x_dict, two_kinds.edge_index_dict, two_kinds.edge_attr_dict)
    x = two_kinds.x_dict
    for (kind, conv_), inputs in zip(
        [(near, conv), (sees, own)], (x["sensor"], tuple(x.values())), strict=True
    ):
        edges = two_kinds[kind]
        assert_close(out[kind[2]], conv_(inputs, edges.edge_index, edges.edge_attr), **EXACT)


def test_a_model_becomes_heterogeneous(two_kinds, randomize):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = CFConv(torch.nn.Linear(FEATURES, CHANNELS))
            self.lin = torch.nn.Linear(CHANNELS, 2)

        def forward(self, x, edge_index, edge_attr):
            return self.lin(self.conv(x, edge_index, edge_attr).tanh())

    model = randomize(to_hetero(Model().double(), two_kinds.metadata(), aggr="sum"))
    out = model(two_kinds.x_dict, two_kinds.edge_index_dict, two_kinds.edge_attr_dict)
    conv, edges = model.conv["sensor__sees__place"], two_kinds["sensor", "sees", "place"]
    seen = conv(tuple(two_kinds.x_dict.values()), edges.edge_index, edges.edge_attr)
    assert_close(out["place"], model.lin["place"](seen.tanh()), **EXACT)
    assert out["sensor"].shape == (NODES, 2)


@pytest.mark.parametrize("sets", [(), (2,), (2, 5)])
def test_sets_of_features_on_one_graph_do_not_meet(conv, graph, generator, sets):
    x = torch.randn(*sets, NODES, CHANNELS, dtype=torch.float64, generator=generator)
    one_by_one = [conv(own, *graph[1:]) for own in x.view(-1, NODES, CHANNELS)]
    assert_close(conv(x, *graph[1:]), torch.stack(one_by_one).view_as(x), **EXACT)


@pytest.mark.parametrize("aggr", ["mean", "max", "min", "mul", "median", "std", "softmax", ["add", "max"]])
def test_any_aggregation_of_pyg_takes_the_messages(conv, graph, aggr):
    x, edge_index, edge_attr = graph
    other = CFConv(conv.filter_network, aggr=aggr)
    order = edge_index[1].argsort(stable=True)
    messages = (x[edge_index[0]] * conv.filter_network(edge_attr))[order]
    expected = other.aggr_module(messages, edge_index[1][order], dim_size=NODES)
    assert_close(other(x, edge_index[:, order], edge_attr[order]), expected, **EXACT)


# Explanations


class Classifier(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index, edge_attr):
        return self.conv(x, edge_index, edge_attr)


def explain(algorithm, model, graph, **kwargs):
    config = {"mode": "regression", "task_level": "node", "return_type": "raw"}
    masks = {"node_mask_type": "attributes", "edge_mask_type": "object"}
    explainer = Explainer(model, algorithm, "model", config, **masks)
    x, edge_index, edge_attr = graph
    return explainer(x, edge_index, edge_attr=edge_attr, **kwargs)


def test_an_explanation_names_the_edges_of_the_node(conv, graph):
    x, edge_index, edge_attr = (field.float() if field.is_floating_point() else field for field in graph)
    target = int(edge_index[1].mode()[0])
    torch.manual_seed(0)
    model = Classifier(conv.float())
    explanation = explain(GNNExplainer(epochs=5), model, (x, edge_index, edge_attr), index=target)
    mine = edge_index[1] == target
    assert (explanation.edge_mask[mine] > 0).all()
    assert (explanation.edge_mask[~mine] == 0).all()
    assert explanation.node_mask.shape == x.shape


def test_an_edge_mask_acts_on_the_messages(conv, graph):
    x, edge_index, edge_attr = graph
    mask = torch.linspace(0, 1, EDGES, dtype=torch.float64)
    expected = conv(x, edge_index, edge_attr, edge_weight=mask)
    conv.explain, conv._edge_mask, conv._apply_sigmoid = True, mask, False
    assert_close(conv(*graph), expected, **EXACT)
    adj_t, order = number_edges(to_torch_csr_tensor, edge_index)
    conv._edge_mask = mask[order]
    assert_close(conv(x, adj_t, edge_attr[order]), expected, **EXACT)
    conv.explain = False
    assert not torch.allclose(conv(*graph), expected)


def test_captum_explains_the_same(conv, graph):
    pytest.importorskip("captum", reason="needs captum: pip install captum")
    explanation = explain(CaptumExplainer("IntegratedGradients"), Classifier(conv), graph, index=0)
    assert (explanation.edge_mask[graph[1][1] != 0] == 0).all()


# Precision, compilation, copies


@pytest.mark.parametrize("wide", [True, False], ids=["x float32", "x bfloat16"])
def test_autocast_computes_nearly_the_same(randomize, graph, generator, wide):
    x, edge_index, edge_attr = graph[0].float(), graph[1], graph[2].float()
    conv = randomize(CFConv(FilterNetwork(FEATURES, CHANNELS)))
    weight = torch.rand(EDGES, generator=generator)
    x = (x if wide else x.bfloat16()).requires_grad_()

    def run(autocast):
        conv.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = conv(x, edge_index, edge_attr, edge_weight=weight)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), x, retain_graph=True)
        out.float().square().sum().backward()
        weights = [parameter.grad.clone() for parameter in conv.parameters()]
        return [out.float(), gradient.float(), *weights]

    for rounded, exact in zip(run(True), run(False), strict=True):
        # Three layers' rounding, of 2^-9 each: measured 1.1 % of the largest entry.
        assert_close(rounded, exact, rtol=0, atol=0.04 * exact.abs().max().item())


INDUCTOR = pytest.param("inductor", True, marks=pytest.mark.nightly)  # calls a C++ compiler: 11 to 90 s


@pytest.mark.parametrize(("backend", "weighted"), [("aot_eager", False), ("aot_eager", True), INDUCTOR])
def test_the_compiled_layer_gives_the_same_for_graphs_of_any_size(randomize, request, backend, weighted):
    if request.config.getoption("jaxtyping_packages", default=None):
        pytest.skip("torch.compile does not trace what checks shapes")
    layers = [FilterNetwork(FEATURES, CHANNELS), torch.nn.Linear(CHANNELS, CHANNELS)]
    conv, lin = (randomize(layer.double()) for layer in layers)
    conv = CFConv(conv)

    def model(x, edge_index, edge_attr, weight):
        weights = weight if weighted else None
        out = conv(lin(x), edge_index, edge_attr, edge_weight=weights)
        return lin(out.tanh()).square().sum()

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for nodes, edges in [(6, 12), (9, 40), (5, 7)]:
        generator = torch.Generator().manual_seed(nodes)
        x = torch.randn(nodes, CHANNELS, dtype=torch.float64, generator=generator).requires_grad_()
        edge_attr = torch.randn(edges, FEATURES, dtype=torch.float64, generator=generator).requires_grad_()
        edge_index = torch.randint(0, nodes, (2, edges), generator=generator)
        weight = torch.rand(edges, dtype=torch.float64, generator=generator)
        by = [x, edge_attr, *conv.parameters(), *lin.parameters()]
        out, expected = (f(x, edge_index, edge_attr, weight) for f in (compiled, model))
        assert_close(out, expected, atol=0, rtol=1e-12)  # fused, sums round in another order
        for own, other in zip(*(torch.autograd.grad(value, by) for value in (out, expected)), strict=True):
            assert_close(own, other, atol=1e-12 * expected.item(), rtol=1e-12)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
def test_a_copy_computes_the_same_with_weights_of_its_own(conv, graph, duplicate):
    expected, own = conv(*graph), duplicate(conv)
    with torch.no_grad():
        conv.filter_network.weight.zero_()
    assert_close(own(*graph), expected, atol=0, rtol=0)
    assert "CFConv_propagate" in own.propagate.__func__.__module__


def test_the_state_holds_the_filter_network_and_nothing_else(conv, graph):
    state = conv.state_dict()
    assert list(state) == ["filter_network.weight", "filter_network.bias"]
    other = CFConv(torch.nn.Linear(FEATURES, CHANNELS)).double()
    other.load_state_dict(state)
    assert_close(other(*graph), conv(*graph), atol=0, rtol=0)


def test_the_representation_names_filters_and_aggregation():
    conv = CFConv(torch.nn.Linear(3, 4), aggr="mean")
    assert str(conv) == "CFConv(Linear(in_features=3, out_features=4, bias=True), aggr=mean)"


# Mistakes


def refused(conv, *args, **kwargs):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        conv(*args, **kwargs)
    return str(caught.value)


def test_features_of_too_few_edges_are_refused(conv, graph):
    x, edge_index, edge_attr = graph
    text = "`edge_attr` must have one row for each of the 12 edges, got 1; if edges share rows"
    assert text in refused(conv, x, edge_index, edge_attr[:1])
    assert text in refused(conv, x, to_torch_csr_tensor(edge_index, size=NODES).t(), edge_attr[:1])


def test_pairs_of_too_few_edges_are_refused(conv, graph):
    text = refused(conv, *graph, pair=torch.zeros(11, dtype=torch.long))
    assert text == "`pair` must have one number for each of the 12 edges, got 11"


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("shape", [(11,), (12, 1)])
def test_weights_of_another_shape_are_refused(conv, graph, shape):
    text = refused(conv, *graph, edge_weight=torch.ones(shape))
    assert text == f"`edge_weight` must have shape (12,), as many as `edge_attr` has rows, got {shape}"


@pytest.mark.parametrize("channels", [1, 16])
def test_another_number_of_channels_is_refused(conv, graph, channels):
    text = refused(conv, torch.ones(NODES, channels), *graph[1:])
    assert text.startswith("`x` must have 4 channels")
    assert f"got {channels}; put torch.nn.Linear({channels}, 4)" in text


@pytest.mark.parametrize(
    ("network", "shape"),
    [(torch.nn.Flatten(0), (4,)), (torch.nn.Unflatten(0, (4, 1)), (4, 1, 4))],
    ids=["flat", "deep"],
)
def test_filters_of_another_shape_are_not_spread_over_channels(network, shape):
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])  # as many edges as channels
    edge_attr = torch.ones(4, 1 if len(shape) == 1 else 4)
    text = refused(CFConv(network), torch.ones(NODES, 4), edge_index, edge_attr)
    assert text.startswith("`filter_network` must return (edges, channels)")
    assert f"got {shape}" in text


def test_features_of_nodes_without_channels_are_refused(conv, graph):
    assert refused(conv, torch.ones(NODES), *graph[1:]) == "`x` must have shape (nodes, 4), got (6,)"


@pytest.mark.usefixtures("without_shape_checks")
def test_missing_features_of_sources_are_refused(conv, graph):
    assert "`x` must hold features of the sources, got None" in refused(conv, (None, graph[0]), *graph[1:])


def test_missing_features_of_edges_are_refused(conv, graph):
    text = refused(conv, *graph[:2])
    assert "`edge_attr` must be given, the features on which the filters depend, got None; only an" in text


def test_an_adjacency_with_the_other_flow_is_refused(conv, graph):
    conv.flow = "target_to_source"
    text = refused(conv, graph[0], coo(*graph[1:]))
    assert text.startswith("an adjacency matrix needs the flow 'source_to_target', got 'target_to_source'")


@pytest.mark.parametrize("wrong", [torch.eye(NODES), torch.arange(EDGES)], ids=["dense", "flat"])
def test_a_matrix_that_is_not_sparse_is_refused(conv, graph, wrong):
    text = "`edge_index` must have shape (2, edges) or be a sparse COO, CSR or CSC matrix, got "
    assert refused(conv, graph[0], wrong, graph[2]) == text + str(tuple(wrong.shape))


def test_the_fourth_argument_is_the_size_as_in_pygs_nnconv(conv, graph):
    x, edge_index, edge_attr = graph
    theirs = NNConv(4, 4, torch.nn.Linear(FEATURES, 16), root_weight=False).double()
    outs = [layer((x, None), edge_index, edge_attr, (NODES, 9)) for layer in (conv, theirs)]
    assert [out.shape for out in outs] == [(9, 4), (9, 4)]
    assert_close(outs[0], conv((x, None), edge_index, edge_attr, size=(NODES, 9)), **EXACT)


@pytest.mark.usefixtures("without_shape_checks")
def test_weights_in_the_place_of_the_size_are_refused(conv, graph):
    with pytest.raises(TypeError, match=r"`size`.*edge_weight"):
        conv(*graph, torch.ones(EDGES))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_torchscript_is_refused_with_what_to_use_instead(conv):
    for model in (conv, torch.nn.ModuleList([conv]), SchNet(num_interactions=1)):
        with pytest.raises(TypeError, match=r"torch\.compile"):
            torch.jit.script(model)


def test_channels_are_not_decomposed():
    with pytest.raises(ValueError, match=r"`decomposed_layers`.*1.*2.*channels"):
        CFConv(torch.nn.Linear(3, 4), decomposed_layers=2)
