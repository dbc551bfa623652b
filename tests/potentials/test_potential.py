import copy

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Ensemble, Potential, RadiusGraph, SchNet


@pytest.fixture
def atomref():
    """Aspirin-size references in eV: C9H8O4 adds up to -17,000 eV and more."""
    table = torch.zeros(100, dtype=torch.float64)
    table[1], table[6], table[8] = -13.6, -1035.0, -2041.0
    return table


@pytest.fixture
def single(default):
    """A float32 network."""
    return default.float()


# Relative 1e-14: one rounding of 2,000 eV.
def test_the_energy_is_the_scaled_output_plus_references(default, water, atomref):
    energy = Potential(default, scale=2.5, atomref=atomref).eval()(water)["energy"]
    expected = 2.5 * default(water.z, water.pos)[:, 0].detach() - 2041.0 - 2 * 13.6
    assert_close(energy, expected, atol=0, rtol=1e-14)


def test_energies_are_float64_with_a_float32_network(single, water):
    assert Potential(single).eval()(water)["energy"].dtype == torch.float64


# 1e-9 eV of -17,000 eV: float64 resolves 4e-12 eV there, float32 2e-3 eV.
def test_references_keep_the_resolution_of_small_energy_differences(single, water):
    offset = torch.zeros(100, dtype=torch.float64)
    offset[8] = -17_000.0
    bare, shifted = Potential(single).eval(), Potential(single, atomref=offset).eval()
    difference = shifted(water)["energy"] + 17_000.0 - bare(water)["energy"]
    assert abs(float(difference)) < 1e-9


@pytest.mark.parametrize("pos_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forces", [True, False])
def test_a_float32_network_takes_positions_of_any_precision(single, water, pos_dtype, forces):
    out = Potential(single).eval()(Data(z=water.z, pos=water.pos.to(pos_dtype)), forces=forces)
    assert out["energy"].isfinite().all()


@pytest.mark.parametrize("pos_dtype", [torch.float32, torch.float64])
def test_forces_have_the_precision_of_positions(single, water, pos_dtype):
    out = Potential(single).eval()(Data(z=water.z, pos=water.pos.to(pos_dtype)))
    assert out["forces"].dtype == pos_dtype


# 1e-5: STYLE's bound for float32, on energies and forces of order 1; measured 1e-7.
def test_a_float32_network_is_close_to_its_float64_twin(default, ethanol):
    exact = Potential(default).eval()(ethanol)
    rounded = Potential(copy.deepcopy(default).float()).eval()(ethanol)
    assert_close(rounded, exact, atol=1e-5, rtol=1e-5)


# Distances are taken before rounding to float32, so far away nothing is lost; measured 0.
def test_a_float32_network_does_not_lose_precision_far_from_the_origin(single, water):
    potential = Potential(single).eval()
    far = Data(z=water.z, pos=water.pos + 1000.0)
    assert_close(potential(far)["energy"], potential(water)["energy"], atol=1e-6, rtol=0)


def test_energies_alone_compute_no_gradient(potential, water, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", never)
    assert set(potential(water, forces=False)) == {"energy"}


# 1e-13: the same network, the same order of sums.
def test_energies_alone_are_the_same_energies(potential, molecule):
    alone = potential(molecule, forces=False)["energy"]
    assert_close(alone, potential(molecule)["energy"], atol=1e-13, rtol=0)


@pytest.mark.parametrize("forces", [True, False])
def test_outputs_are_detached_in_evaluation_mode(potential, water, forces):
    out = potential.eval()(water, forces=forces)
    assert not any(value.requires_grad for value in out.values())


@pytest.mark.parametrize("name", ["energy", "forces"])
def test_outputs_are_differentiable_in_training_mode(potential, water, name):
    gradients = torch.autograd.grad(
        potential.train()(water)[name].square().sum(),
        list(potential.parameters()),
        allow_unused=True,
    )
    assert sum(gradient is not None and bool(gradient.ne(0).any()) for gradient in gradients) > 10


def test_training_mode_gives_the_same_numbers(potential, molecule):
    training = potential.train()(molecule)
    assert_close(training, potential.eval()(molecule), atol=0, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_input_is_not_modified(potential, water, training):
    before = water.clone()
    potential.train(training)(water)
    assert water.keys() == before.keys()
    assert torch.equal(water.pos, before.pos)
    assert not water.pos.requires_grad


def test_data_without_positions_are_refused(potential, water):
    with pytest.raises(ValueError, match=r"`data`.*`pos`.*positions"):
        potential(Data(z=water.z))


def test_positions_that_require_a_gradient_keep_none(potential, water):
    water.pos.requires_grad_()
    potential(water)
    assert water.pos.grad is None


def test_forces_can_be_differentiated_in_the_users_positions(potential, water):
    water.pos.requires_grad_()
    potential.train()(water)["forces"].square().sum().backward()
    assert water.pos.grad.ne(0).any()


def test_forces_are_computed_under_no_grad(potential, water):
    expected = potential(water)
    with torch.no_grad():
        assert_close(potential(water), expected, atol=0, rtol=0)


def test_a_precomputed_graph_gives_the_same(default, molecules):
    potential = Potential(default).eval()
    plain = potential(Batch.from_data_list(molecules))
    graphs = potential(Batch.from_data_list([RadiusGraph(5.0)(molecule) for molecule in molecules]))
    assert_close(graphs, plain, atol=1e-13, rtol=0)


def test_a_crystal_with_a_precomputed_graph_gives_the_same(default, water):
    potential = Potential(default).eval()
    water.cell, water.pbc = 3.2 * torch.eye(3).double()[None], torch.tensor([[True, True, False]])
    assert_close(potential(RadiusGraph(4.0)(water)), potential(water), atol=1e-13, rtol=0)


def test_data_with_its_own_batch_vector_are_molecules(potential, water):
    data = Data(z=water.z.repeat(2), pos=water.pos.repeat(2, 1), batch=torch.tensor([0] * 3 + [1] * 3))
    assert potential(data)["energy"].shape == (2,)


def test_an_element_absent_from_training_is_refused(default, ethanol):
    potential = Potential(default, elements=[1, 8])
    with pytest.raises(ValueError, match=r"`z`.*6.*absent.*training.*1.*8"):
        potential(ethanol)


def test_elements_seen_in_training_are_accepted(default, ethanol):
    assert Potential(default, elements=[1, 6, 8])(ethanol)["energy"].shape == (1,)


def test_a_potential_tells_its_elements(default):
    assert Potential(default, elements=[8, 1]).elements == [1, 8]


def test_a_potential_without_restriction_knows_all_elements(default):
    assert Potential(default).elements == list(range(1, 100))


@pytest.mark.parametrize("number", [-2, 0, 100])
def test_atomic_numbers_beyond_the_embedding_are_refused(potential, water, number):
    water.z[0] = number
    with pytest.raises(ValueError, match=rf"`z`.*{number}.*numbers.*1.*99"):
        potential(water)


@pytest.mark.usefixtures("without_shape_checks")
def test_atomic_numbers_in_floating_point_are_refused(potential, water):
    water.z = water.z.double()
    with pytest.raises(TypeError, match="`z` must hold integers"):
        potential(water)


@pytest.mark.parametrize(
    "convert",
    [
        lambda module: module.float(),
        lambda module: module.half(),
        lambda module: module.to(torch.float32),
        lambda module: module.to("cpu", torch.bfloat16),
        lambda module: torch.nn.ModuleList([module]).float()[0],
    ],
    ids=["float", "half", "to", "to device", "child"],
)
def test_references_stay_in_float64_when_the_network_is_converted(default, atomref, convert):
    potential = convert(Potential(default, scale=0.1, atomref=atomref))
    assert torch.equal(potential.atomref, atomref)
    assert float(potential.scale) == 0.1
    assert potential.model.embedding.weight.dtype != torch.float64


def test_references_may_end_at_the_last_element_of_the_data(default, atomref):
    assert torch.equal(Potential(default, atomref=atomref[:9]).atomref, atomref)


def test_references_and_scale_are_part_of_the_state(default, atomref):
    potential = Potential(default, scale=3.0, atomref=atomref, elements=[1])
    other = Potential(default)
    other.load_state_dict(potential.state_dict())
    assert torch.equal(other.atomref, atomref)
    assert (float(other.scale), other.elements) == (3.0, [1])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"pos": torch.zeros(3, 3, dtype=torch.long)},
            TypeError,
            r"`pos` must be a floating-point tensor, got",
        ),
        ({"z": torch.tensor([[8], [1], [1]])}, ValueError, r"`z`.*shape.*\(3,\).*\(3, 1\)"),
        (
            {"z": torch.tensor([8.0, 1.0, 1.0])},
            TypeError,
            r"`z`.*integers.*\(int64\).*torch\.float32",
        ),
        ({"batch": torch.zeros(3)}, TypeError, r"`batch`.*integers.*\(int64\).*torch\.float32"),
        ({"batch": torch.tensor([-1, 0, 0])}, ValueError, "`batch`.*count.*molecules.*0.*-1"),
        ({"edge_index": torch.zeros(2, 1)}, TypeError, "`edge_index`.*integers"),
        ({"edge_index": torch.tensor([[0], [3]])}, ValueError, "`edge_index`.*atoms.*0.*2.*3"),
        ({"edge_index": torch.tensor([0, 1])}, ValueError, r"`edge_index`.*shape.*\(2, edges\)"),
        (
            {"edge_index": torch.tensor([[0], [2]]), "batch": torch.tensor([0, 0, 1])},
            ValueError,
            "`edge_index`.*atoms.*molecule.*atoms.*0.*2",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("without_shape_checks")
def test_wrong_molecules_are_named(change, kind, message):
    water = {"z": torch.tensor([8, 1, 1]), "pos": torch.eye(3), **change}
    with pytest.raises(kind, match=message):
        Potential(SchNet(8, 8, 1, 8, 4.0))(Data(**water))


def test_a_molecule_without_atomic_numbers_is_named():
    with pytest.raises(ValueError, match=r"`data`.*`z`.*numbers"):
        Potential(SchNet(8, 8, 1, 8, 4.0))(Data(pos=torch.eye(3)))


def test_forces_in_inference_mode_are_refused_with_the_way_out():
    potential = Potential(SchNet(8, 8, 1, 8, 4.0)).eval()
    water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
    with torch.inference_mode():
        assert potential(water, forces=False)["energy"].shape == (1,)
        with pytest.raises(RuntimeError, match=r"`forces`.*gradients.*torch\.no_grad\(\)"):
            potential(water)


@pytest.mark.parametrize("z", [-1, 0, 100])
def test_elements_that_do_not_exist_are_refused(z):
    with pytest.raises(ValueError, match=rf"`elements`.*{z}.*numbers.*1.*99"):
        Potential(SchNet(8, 8, 1, 8, 4.0), elements=[1, z])


def test_references_may_be_a_column_as_pyg_has_them():
    references = torch.arange(100.0)[:, None]
    assert torch.equal(
        Potential(SchNet(8, 8, 1, 8, 4.0), atomref=references).atomref, torch.arange(100.0).double()
    )


class Bare(torch.nn.Module):
    """A model that knows nothing but elements, positions and batch."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, z, pos, batch):
        energy = self.strength * pos.square().sum(1)
        return energy.new_zeros(int(batch.max()) + 1).index_add(0, batch, energy)[:, None]


def test_any_model_has_forces(molecules):
    out = Potential(Bare(), scale=2.0).eval()(Batch.from_data_list(molecules))
    pos = torch.cat([molecule.pos for molecule in molecules])
    assert_close(out["forces"], -2.0 * 2 * 0.7 * pos, atol=1e-12, rtol=0)


def test_of_a_tuple_the_first_is_the_energy(water):
    class Two(Bare):  # as PyG's ViSNet
        def forward(self, z, pos, batch):
            return super().forward(z, pos, batch), None

    assert_close(Potential(Two()).eval()(water), Potential(Bare()).eval()(water), atol=0, rtol=0)


def test_a_model_of_atomic_energies_is_refused(molecules):
    class Atomic(Bare):
        def forward(self, z, pos, batch):
            return self.strength * pos.square().sum(1, keepdim=True)

    text = r"`model` must return one number for each of the 3 molecules; Atomic returned the shape \(24, 1\)"
    with pytest.raises(ValueError, match=text):
        Potential(Atomic()).eval()(Batch.from_data_list(molecules))


def test_a_model_gets_the_fields_that_it_names(water):
    class Named(Bare):
        def forward(self, z, pos, batch, charge, num_molecules, spin=None):
            assert spin is None
            return charge * super().forward(z, pos, batch) * num_molecules

    water = water.clone()
    with pytest.raises(ValueError, match=r"`data`.*`charge`"):
        Potential(Named()).eval()(water)
    plain = Potential(Bare()).eval()(water)["energy"]
    water.charge = torch.tensor([3.0])
    assert_close(Potential(Named()).eval()(water)["energy"], 3 * plain)


def test_a_model_wrapped_by_torch_gets_the_fields_of_what_is_inside():
    wrapped = torch.compile(SchNet(), backend="eager")
    assert Potential(wrapped)._fields == Potential(SchNet())._fields
    assert "num_molecules" in Potential(wrapped)._fields


@pytest.mark.parametrize("filters", ["auto", "spline", "exact"])
def test_edges_beyond_the_cutoff_add_nothing_in_training_either(ethanol, randomize, filters):
    model = SchNet(8, 8, 2, 12, 2.0, filters=filters).float()  # fewer pairs than knots
    potential = Potential(randomize(model)).train()
    expected = potential(ethanol)
    assert_close(potential(RadiusGraph(6.0)(ethanol)), expected, atol=1e-5, rtol=1e-5)


def test_data_on_another_device_is_rejected_with_both_devices_and_what_to_do(default, water):
    potential = Potential(default).eval()
    for model in (potential, Ensemble([potential, copy.deepcopy(potential)])):
        with pytest.raises(ValueError, match=r"`pos` .* cpu, got meta; .* data\.to\('cpu'\)"):
            model(water.clone().to("meta"))
    mixed = water.clone()
    mixed.z = mixed.z.to("meta")
    with pytest.raises(ValueError, match="`z` must be on the device of the potential"):
        potential(mixed)


def test_pairs_are_found_where_the_data_are(default, water):
    potential = Potential(default).eval()
    potential.scale = potential.scale.to("meta")  # as if it were on a GPU, and training kept its data here
    assert potential.build_graph(water).pairs.shape == (2, 3)
    with pytest.raises(ValueError, match="`pos` must be on the device of the potential, meta, got cpu"):
        potential(water)
