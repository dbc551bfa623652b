import inspect
from dataclasses import FrozenInstanceError, asdict

import pytest
import torch
import torch_geometric
from torch.testing import assert_close
from torch_geometric.data import Batch

from pyg_schnet import SchNet, neighbor_list, nn, radius_graph
from pyg_schnet.nn import SchNetConfig

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}


def all_pairs(pos, batch):
    """A user's own graph: edges and distances, without our neighbor search."""
    distance = torch.cdist(pos, pos)
    same = batch[:, None] == batch[None, :]
    target, source = (same & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().T
    return torch.stack([source, target]), distance[source, target]


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "hidden_channels": 64,
        "num_filters": 64,
        "num_interactions": 3,
        "num_gaussians": 301,
        "cutoff": None,
        "last_center": 30.0,
        "gamma": 10.0,
        "envelope": None,
        "final_activation": True,
        "zero_output": True,
        "readout": "add",
    }.items(),
)
def test_the_papers_hyperparameters_are_the_papers(name, value):
    assert getattr(SchNet.paper().config, name) == value


def test_the_papers_first_prediction_is_zero(water):
    assert SchNet.paper()(water.z, water.pos).tolist() == [[0.0]]


# Counted by hand: embedding 100·64; three blocks of 64·64 + (301·64 + 64) + (64·64 + 64) + 2 (64·64 + 64);
# readout 64·32 + 32 + 32 + 1.
def test_the_papers_network_has_as_many_parameters_as_counted_by_hand():
    count = sum(parameter.numel() for parameter in SchNet.paper().parameters())
    assert count == 6400 + 3 * (4096 + 19328 + 4160 + 2 * 4160) + 2080 + 33


def test_the_papers_hyperparameters_can_be_changed_by_name():
    assert SchNet.paper(num_gaussians=300).config == SchNetConfig.paper(num_gaussians=300)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"readout": "mean", "mean": 1.5, "std": 2.0, "envelope": "polynomial"},
        {"dipole": True},
        asdict(SchNetConfig.paper()),
    ],
    ids=["default", "mean", "dipole", "paper"],
)
def test_a_model_is_rebuilt_from_its_configuration(arguments):
    model = SchNet(**{**arguments, **TINY})
    rebuilt = SchNet(**asdict(model.config))
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.config == model.config


def test_the_configuration_is_immutable(default):
    with pytest.raises(FrozenInstanceError):
        default.config.cutoff = 9.0


def test_the_constructor_takes_pygs_arguments_in_pygs_order():
    theirs = list(inspect.signature(torch_geometric.nn.SchNet).parameters)
    assert list(inspect.signature(SchNet).parameters)[: len(theirs)] == theirs


@pytest.mark.parametrize(
    "name",
    ["hidden_channels", "num_filters", "num_interactions", "num_gaussians", "cutoff", "readout"],
)
def test_the_constructors_defaults_are_pygs(name):
    theirs = inspect.signature(torch_geometric.nn.SchNet).parameters[name].default
    assert inspect.signature(SchNet).parameters[name].default == theirs


def test_forward_takes_pygs_arguments_in_pygs_order():
    assert list(inspect.signature(SchNet.forward).parameters)[:4] == ["self", "z", "pos", "batch"]


def test_the_output_has_pygs_shape(model, molecules):
    batch = Batch.from_data_list(molecules)
    assert model(batch.z, batch.pos, batch.batch).shape == (3, 1)


def test_a_molecule_without_a_batch_is_one_molecule(model, water):
    assert model(water.z, water.pos).shape == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_output_has_the_dtype_of_the_weights(default, water, dtype):
    assert default.to(dtype)(water.z, water.pos).dtype == dtype


def test_another_dtype_can_be_asked_for(default, water):
    assert default.float()(water.z, water.pos, dtype=torch.float64).dtype == torch.float64


def test_each_parameter_has_one_name(model):
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(model.parameters()))


# 1e-13, here and below: the same sums over up to 12 atoms in another order.
def test_a_given_graph_equals_the_models_own(default, molecule):
    edge_index = radius_graph(molecule.pos, 4.0)
    given = default(molecule.z, molecule.pos, edge_index=edge_index)
    assert_close(given, default(molecule.z, molecule.pos), atol=1e-13, rtol=0)


def test_the_order_of_given_edges_does_not_matter(default, ethanol):
    edge_index = radius_graph(ethanol.pos, 4.0)
    order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(0))
    shuffled = default(ethanol.z, ethanol.pos, edge_index=edge_index[:, order])
    assert_close(shuffled, default(ethanol.z, ethanol.pos), atol=1e-13, rtol=0)


@pytest.mark.parametrize("wider", [4.5, 6.0, 8.0, 100.0])
def test_edges_beyond_the_cutoff_change_nothing(default, benzene, wider):
    edge_index = radius_graph(benzene.pos, wider)
    given = default(benzene.z, benzene.pos, edge_index=edge_index)
    assert_close(given, default(benzene.z, benzene.pos), atol=1e-13, rtol=0)


# One direction of a pair lacks, so that the graph is taken as it is.
def test_edges_beyond_the_cutoff_change_nothing_without_an_envelope(benzene, randomize):
    model = randomize(SchNet(**TINY, num_gaussians=12, cutoff=4.0, envelope=None).double())
    long, short = (radius_graph(benzene.pos, r)[:, 1:] for r in (6.0, 4.0))
    assert long.size(1) > short.size(1)
    energies = [model(benzene.z, benzene.pos, edge_index=edges) for edges in (long, short)]
    assert_close(*energies, atol=1e-13, rtol=0)


def test_a_given_loop_is_refused(default, water):
    edge_index = radius_graph(water.pos, 4.0, loop=True)
    with pytest.raises(ValueError, match=r"`edge_index`.*atoms.*0.*0.*distance.*0"):
        default(water.z, water.pos, edge_index=edge_index)


def test_a_users_graph_replaces_the_models_own(molecules, default, randomize):
    batch = Batch.from_data_list(molecules)
    with_graph = randomize(SchNet(**TINY, num_gaussians=12, cutoff=4.0, interaction_graph=all_pairs).double())
    out = with_graph(batch.z, batch.pos, batch.batch)
    assert_close(out, default(batch.z, batch.pos, batch.batch), atol=1e-13, rtol=0)


def test_given_edges_go_before_a_users_graph(water):
    def never(pos, batch):
        raise AssertionError

    model = SchNet(**TINY, interaction_graph=never)
    assert model(water.z, water.pos, edge_index=radius_graph(water.pos, 10.0)).shape == (1, 1)


def test_more_neighbors_than_announced_are_an_error(ethanol):
    model = SchNet(**TINY, max_num_neighbors=3)
    with pytest.raises(ValueError, match=r"`max_num_neighbors`.*3.*point.*8.*neighbors"):
        model(ethanol.z, ethanol.pos)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_channels": 1}, "`hidden_channels`.*at least 2.*1"),
        ({"num_filters": 0}, "`num_filters`.*at least 1.*0"),
        ({"readout_activation": "relu"}, "`readout_activation`.*'silu'.*'tanh'.*'relu'"),
        ({"num_interactions": 0}, "`num_interactions`.*at least 1.*0"),
        ({"num_gaussians": 1}, "`num_gaussians`.*at least 2.*1"),
        ({"cutoff": -5.0}, "`cutoff`.*positive.*finite.*-5.0"),
        ({"cutoff": float("inf")}, "`cutoff`.*None.*pairs"),
        ({"cutoff": None}, "`last_center`.*`cutoff`"),
        ({"last_center": 0.0}, "`last_center`.*positive.*finite.*0.0"),
        ({"gamma": 0.0}, "`gamma`.*positive.*0.0"),
        ({"readout": "max"}, "`readout`.*'add'.*'mean'.*'max'"),
        ({"envelope": "sine"}, "`envelope`.*'cosine'.*'polynomial'.*'sine'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SchNet(**arguments)


@pytest.mark.parametrize("number", [-1, 0, 100, 119])
def test_atomic_numbers_beyond_the_embedding_are_refused(model, water, number):
    water.z[1] = number
    with pytest.raises(ValueError, match=rf"`z`.*{number}.*numbers.*1.*99"):
        model(water.z, water.pos)


@pytest.mark.usefixtures("without_shape_checks")
def test_atomic_numbers_in_floating_point_are_refused(model, water):
    with pytest.raises(TypeError, match=r"`z`.*integers.*\(int64\).*torch.float32.*z.long"):
        model(water.z.float(), water.pos)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("shape", [(4,), (3, 1)])
def test_atomic_numbers_of_another_shape_are_refused(model, water, shape):
    z = torch.ones(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=r"`z`.*shape.*\(3,\).*atom.*\("):
        model(z, water.pos)


@pytest.mark.usefixtures("without_shape_checks")
def test_positions_in_the_plane_are_refused(model, water):
    with pytest.raises(ValueError, match=r"`pos`.*shape.*\(atoms, 3\).*\(3, 2\)"):
        model(water.z, water.pos[:, :2])


def test_atomic_numbers_may_be_int32(model, water):
    assert_close(model(water.z.int(), water.pos), model(water.z, water.pos), atol=0, rtol=0)


def test_periodic_input_is_refused_without_a_cutoff(paper, water):
    with pytest.raises(ValueError, match=r"`pbc`.*cutoff"):
        paper(water.z, water.pos, cell=5 * torch.eye(3).double(), pbc=torch.tensor([True] * 3))


@pytest.fixture
def crystal():
    """A triclinic cell smaller than the cutoff, with three atoms."""
    cell = torch.tensor([[3.1, 0, 0], [0.4, 2.9, 0], [-0.3, 0.5, 3.3]], dtype=torch.float64)
    pos = torch.tensor([[0.1, 0.2, 0.3], [1.4, 1.0, 1.9], [2.5, 2.2, 0.4]], dtype=torch.float64)
    return torch.tensor([11, 17, 8]), pos, cell


# 1e-12: eight times as many atoms.
def test_a_supercell_has_eight_times_the_energy_of_its_cell(default, crystal):
    z, pos, cell = crystal
    images = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3) @ cell
    super_pos = (pos[None] + images[:, None]).view(-1, 3)
    pbc = torch.tensor([True, True, True])
    one = default(z, pos, cell=cell[None], pbc=pbc[None])
    eight = default(z.repeat(8), super_pos, cell=2 * cell[None], pbc=pbc[None])
    assert_close(eight, 8 * one, atol=1e-12, rtol=0)


def test_moving_an_atom_by_a_lattice_vector_changes_nothing(default, crystal):
    z, pos, cell = crystal
    moved = pos.clone()
    moved[1] += 2 * cell[0] - cell[2]
    pbc = torch.tensor([[True] * 3])
    assert_close(
        default(z, moved, cell=cell[None], pbc=pbc), default(z, pos, cell=cell[None], pbc=pbc),
        atol=1e-13, rtol=0,
    )  # fmt: skip


def test_a_given_periodic_graph_equals_the_models_own(default, crystal):
    z, pos, cell = crystal
    pbc = torch.tensor([[True, True, False]])
    edge_index, shift = neighbor_list(pos, 4.0, cell=cell, pbc=pbc)
    given = default(z, pos, edge_index=edge_index, shift=shift, cell=cell[None], pbc=pbc)
    assert_close(given, default(z, pos, cell=cell[None], pbc=pbc), atol=0, rtol=0)


def test_crystals_in_a_batch_keep_their_cells(default, crystal):
    z, pos, cell = crystal
    cells = torch.stack([cell, 1.1 * cell])
    pbc = torch.tensor([[True] * 3, [True, False, True]])
    batched = default(z.repeat(2), pos.repeat(2, 1), torch.tensor([0] * 3 + [1] * 3), cell=cells, pbc=pbc)
    single = [default(z, pos, cell=cells[i : i + 1], pbc=pbc[i : i + 1]) for i in range(2)]
    assert_close(batched, torch.cat(single), atol=1e-13, rtol=0)


# 1e-7: central differences of h = 1e-4, as for forces.
def test_the_energy_is_differentiable_in_the_cell(default, crystal):
    z, pos, cell = crystal
    pbc = torch.tensor([[True] * 3])
    edge_index, shift = neighbor_list(pos, 4.0, cell=cell, pbc=pbc)

    def energy(cell):
        return default(z, pos, edge_index=edge_index, shift=shift, cell=cell[None], pbc=pbc).sum()

    (gradient,) = torch.autograd.grad(energy(cell.requires_grad_()), cell)
    step = torch.zeros_like(gradient)
    step[1, 0] = 1e-4
    difference = (energy(cell + step) - energy(cell - step)) / 2e-4
    assert_close(gradient[1, 0], difference, atol=1e-7, rtol=0)


def test_shifts_without_a_cell_are_refused(default, crystal):
    z, pos, cell = crystal
    edge_index, shift = neighbor_list(pos, 4.0, cell=cell, pbc=torch.tensor([[True] * 3]))
    with pytest.raises(ValueError, match=r"`cell`.*`shift`"):
        default(z, pos, edge_index=edge_index, shift=shift)


def test_a_given_periodic_graph_without_shifts_is_refused(default, crystal):
    z, pos, cell = crystal
    with pytest.raises(ValueError, match=r"`shift`.*`edge_index`.*`pbc`"):
        default(
            z,
            pos,
            edge_index=radius_graph(pos, 4.0),
            cell=cell[None],
            pbc=torch.tensor([[True] * 3]),
        )


def test_reset_parameters_draws_all_weights_again(default):
    before = {name: parameter.clone() for name, parameter in default.named_parameters()}
    default.reset_parameters()
    same = [n for n, p in default.named_parameters() if torch.equal(p, before[n])]
    assert same == []


def test_new_biases_are_zero():
    biases = [p for name, p in SchNet(**TINY).named_parameters() if name.endswith("bias")]
    assert all(bias.eq(0).all() for bias in biases)


def test_the_text_of_a_model_tells_its_size(default):
    assert repr(default) == (
        "SchNet(hidden_channels=8, num_filters=8, num_interactions=2, num_gaussians=12, cutoff=4.0)"
    )


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), nn.CFConv(torch.nn.Linear(2, 2))])
def test_only_pygs_schnet_can_be_taken_over(model):
    with pytest.raises(TypeError, match=r"`model`.*torch_geometric.nn.SchNet"):
        SchNet.from_pyg(model)


def test_a_readout_that_we_lack_is_not_taken_over():
    with pytest.raises(ValueError, match=r"`model.readout`.*sum.*mean"):
        SchNet.from_pyg(torch_geometric.nn.SchNet(**TINY, readout="max"))


def test_a_model_taken_over_keeps_its_precision():
    model = SchNet.from_pyg(torch_geometric.nn.SchNet(**TINY).double())
    assert model.embedding.weight.dtype == torch.float64


def test_positions_are_checked_where_the_edges_are_given(ethanol):
    pos = ethanol.pos.clone()
    pos[3, 1] = float("nan")
    edge_index = radius_graph(ethanol.pos, 4.0)
    with pytest.raises(ValueError, match=r"`pos`.*finite.*atom.*3"):
        SchNet(8, 8, 1, 8, 4.0).double()(ethanol.z, pos, edge_index=edge_index)


def test_a_dipole_learns_from_its_first_step():
    model = SchNet.paper(dipole=True, hidden_channels=8, num_filters=8)
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.9, 0.0, 0.0]])
    model(torch.tensor([8, 1, 1]), pos).sum().backward()
    assert model.readout.network.dense2.weight.grad.abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"`zero_output`.*`dipole`"):
        SchNet.paper(dipole=True, zero_output=True)
