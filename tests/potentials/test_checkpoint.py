import copy
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from torch_geometric.nn import SchNet as PyGSchNet

import pyg_schnet
from pyg_schnet import Potential, SchNet, load
from pyg_schnet.nn import GaussianSmearing, PolynomialEnvelope
from pyg_schnet.potentials import checkpoint

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def trained(model):
    atomref = torch.linspace(-1000, 0, 100, dtype=torch.float64)
    return Potential(model, scale=0.37, atomref=atomref, elements=[1, 6, 8]).eval()


@pytest.fixture
def saved(default, path):
    checkpoint.save(Potential(default), path, {"dataset": "ethanol"})
    return path


def rewrite(path, change):
    """Write the file again with a changed header, and tensors."""
    header, tensors = checkpoint.read(path, "potential")
    change(header, tensors)
    save_file(tensors, path, metadata={"pyg_schnet": json.dumps(header)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_potential_comes_back_bit_by_bit(trained, molecule, path, dtype):
    checkpoint.save(trained.to(dtype), path)
    assert_close(load(path)(molecule), trained(molecule), atol=0, rtol=0)


def test_all_tensors_come_back_bit_by_bit(trained, path):
    checkpoint.save(trained, path)
    assert_close(load(path).state_dict(), trained.state_dict(), atol=0, rtol=0)


def test_references_of_a_float32_network_come_back_in_float64(path):
    atomref = torch.linspace(-1000, 0, 100, dtype=torch.float64)
    checkpoint.save(Potential(SchNet(**TINY, atomref=atomref)), path)
    assert_close(load(path).model.readout.atomref, atomref, atol=0, rtol=0)


@pytest.mark.parametrize("arguments", [{"dipole": True}, {"readout": "mean", "mean": 2.0, "std": 3.0}])
def test_a_model_with_another_readout_comes_back(arguments, water, path):
    potential = Potential(SchNet(**TINY, **arguments)).eval()
    checkpoint.save(potential, path)
    assert_close(load(path)(water), potential(water), atol=0, rtol=0)


@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_the_activation_of_the_readout_comes_back(activation, water, path):
    potential = Potential(SchNet(**TINY, readout_activation=activation)).eval()
    checkpoint.save(potential, path)
    assert_close(load(path)(water), potential(water), atol=0, rtol=0)


def test_a_file_of_before_readouts_had_another_activation_is_read(saved, water):
    before = load(saved)(water)
    rewrite(saved, lambda header, _: header["model"].pop("readout_activation"))
    assert_close(load(saved)(water), before, atol=0, rtol=0)


@pytest.mark.parametrize("filters", ["exact", "spline", "auto"])
def test_how_filters_are_computed_comes_back(default, path, filters):
    default.filters = filters
    checkpoint.save(Potential(default), path)
    assert load(path).model.filters == filters


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.readout, "std", 3.0),
        lambda model: setattr(model, "envelope", PolynomialEnvelope(4.0)),
        lambda model: setattr(model, "radial_basis", GaussianSmearing(12, 4.0, gamma=2.0).double()),
        lambda model: setattr(model.readout.network, "activation", torch.nn.Tanh()),
        lambda model: setattr(model.interactions[0].cfconv.filter_network, "final_activation", True),
        lambda model: torch.nn.utils.parametrizations.weight_norm(model.readout.network.dense1),
    ],
    ids=["std", "envelope", "basis", "activation", "end of filters", "parametrization"],
)
def test_a_model_that_was_changed_comes_back_by_a_model_like_it(default, water, path, change):
    like = copy.deepcopy(default)
    like.reset_parameters()
    for model in (default, like):
        change(model)
    potential = Potential(default).eval()
    checkpoint.save(potential, path)
    with pytest.raises(ValueError, match=r"`.*`.*changed"):
        load(path)
    assert_close(load(path, model=like)(water), potential(water), atol=0, rtol=0)


def test_hooks_are_no_change_of_a_model(default, water, path):
    default.readout.register_forward_hook(lambda *_: None)
    potential = Potential(default).eval()
    checkpoint.save(potential, path)
    assert_close(load(path)(water), potential(water), atol=1e-12, rtol=0)


def test_a_loaded_potential_is_in_evaluation_mode(saved):
    assert not load(saved).training


def test_a_loaded_potential_can_be_trained_further(saved, water):
    load(saved).train()(water)["forces"].square().sum().backward()


def test_the_elements_of_training_come_back(trained, path):
    checkpoint.save(trained, path)
    assert load(path).elements == [1, 6, 8]


def test_the_provenance_comes_back(saved):
    assert checkpoint.provenance(saved) == {"dataset": "ethanol"}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("format", 1),
        ("kind", "potential"),
        ("version", pyg_schnet.__version__),
        ("units", {"energy": "eV", "length": "Å"}),
    ],
)
def test_the_header_names_format_version_and_units(saved, entry, value):
    assert checkpoint.read(saved, "potential")[0][entry] == value


def test_the_file_is_safetensors_that_any_reader_opens(saved):
    assert "model.embedding.weight" in load_file(saved)


def test_the_file_holds_no_pickle(saved):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert len(content) == 8 + length + end  # a JSON header and raw numbers, nothing else


def test_a_potential_can_be_saved_over_itself(saved):
    checkpoint.save(load(saved), saved, {"dataset": "again"})
    assert checkpoint.provenance(saved) == {"dataset": "again"}


def test_a_path_may_be_text(saved):
    assert isinstance(load(str(saved)), Potential)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.safetensors.*no such.*checkpoint.*`pyg-schnet train`"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model.safetensors.*safetensors.*truncated"):
        load(saved)


def test_a_file_of_another_kind_is_refused(path):
    path.write_text("energy,forces\n" * 100)
    with pytest.raises(ValueError, match=r"model.safetensors.*safetensors"):
        load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_refused(path, metadata):
    save_file({"weight": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"safetensors.*pyg_schnet's"):
        load(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"format": "one", "kind": "potential"}'])
def test_a_damaged_header_is_refused(path, text):
    save_file({"weight": torch.ones(2)}, path, metadata={"pyg_schnet": text})
    with pytest.raises(ValueError, match=r"header.*checkpoint.*damaged"):
        load(path)


def test_a_newer_format_is_refused_with_the_version_that_wrote_it(saved):
    rewrite(saved, lambda header, _: header.update(format=3, version="9.1.0"))
    with pytest.raises(ValueError, match=r"pyg_schnet.*9.1.0.*format.*3.*2.*upgrade"):
        load(saved)


def test_a_checkpoint_of_another_kind_is_refused(path):
    checkpoint.write(path, "training state", {}, {"step": torch.ones(1)})
    with pytest.raises(ValueError, match=r"model.safetensors.*potential.*training.*state"):
        load(path)


def test_an_unknown_entry_of_the_configuration_is_refused(saved):
    rewrite(saved, lambda header, _: header["model"].update(num_heads=4))
    with pytest.raises(ValueError, match=r"entry.*'num_heads'.*pyg_schnet"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header["model"].update(hidden_channels=10),
        lambda header, tensors: header.pop("model"),
        lambda header, tensors: tensors.pop("scale"),
        lambda header, tensors: tensors.pop("model.embedding.weight"),
        lambda header, tensors: tensors.update(surplus=torch.ones(1)),
    ],
    ids=["another size", "no configuration", "no scale", "no embedding", "surplus"],
)
def test_weights_that_do_not_fit_are_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=r"model.safetensors.*weights.*configuration"):
        load(saved)


def test_a_damaged_bit_is_found_wherever_it_is(saved, flip):
    content, rng = saved.read_bytes(), random.Random(0)
    key = content.index(b'"sha256"')  # without it, the file is one of an earlier version, and right
    for place in rng.sample(range(8 * len(content)), 300):
        if place // 8 in range(key, key + len('"sha256"')):
            continue
        flip(saved, place)
        with pytest.raises(ValueError, match=r"model.safetensors"):
            load(saved)
        saved.write_bytes(content)
    load(saved)


def test_a_checkpoint_of_an_earlier_version_is_read_without_checksum(saved, water):
    potential = load(saved)
    rewrite(saved, lambda header, tensors: None)
    with safe_open(saved, "pt") as file:
        assert file.metadata().keys() == {"pyg_schnet"}
    assert_close(load(saved)(water), potential(water), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["model.embedding.weight", "scale", "atomref"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_name(saved, name, value):
    def change(_, tensors):
        tensors[name].view(-1)[-1] = value

    rewrite(saved, change)
    with pytest.raises(ValueError, match=rf"model.safetensors.*`{name}`.*finite.*numbers"):
        load(saved)


def fail_after_half(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", fail_after_half)


def test_an_interrupted_write_leaves_the_old_file(saved, default, interrupted):
    before = saved.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(Potential(default), saved)
    assert saved.read_bytes() == before


def test_an_interrupted_write_leaves_no_temporary_file(path, default, interrupted):
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(Potential(default), path)
    assert list(path.parent.iterdir()) == []


def test_a_finished_write_leaves_no_temporary_file(saved):
    assert list(saved.parent.iterdir()) == [saved]


def test_a_function_cannot_be_saved(path):
    model = SchNet(**TINY, interaction_graph=lambda pos, batch: None)
    with pytest.raises(TypeError, match=r"`interaction_graph`.*function.*checkpoint"):
        checkpoint.save(Potential(model), path)


class Counting(torch.nn.Module):
    """A model of another kind: an energy for each atom of an element."""

    def __init__(self, elements=100):
        super().__init__()
        self.energy = torch.nn.Embedding(elements, 1)

    def forward(self, z, pos, batch):
        return self.energy(z).new_zeros(int(batch.max()) + 1, 1).index_add(0, batch, self.energy(z))


def test_another_model_gets_its_weights_back(path, water):
    potential = Potential(Counting().double(), scale=2.0).eval()
    checkpoint.save(potential, path)
    again = load(path, model=Counting())
    assert_close(again(water, False), potential(water, False), atol=0, rtol=0)


def test_another_model_is_not_made_by_a_file(path):
    checkpoint.save(Potential(Counting()), path)
    with pytest.raises(ValueError, match=r"weights.*load\(path, model=Counting\(\.\.\.\).*\)"):
        load(path)


def test_a_weight_of_another_model_that_is_not_finite_is_refused(path):
    model = Counting()
    torch.nn.init.constant_(model.energy.weight, float("nan"))
    checkpoint.save(Potential(model), path)
    with pytest.raises(ValueError, match=r"`model.energy.weight`.*finite.*numbers.*nan"):
        load(path, model=Counting())


def test_another_model_may_have_buffers_that_are_not_finite(path):
    model = Counting()
    model.register_buffer("mask", torch.tensor([-torch.inf]))
    checkpoint.save(Potential(model), path)
    again = Counting()
    again.register_buffer("mask", torch.zeros(1))
    assert load(path, model=again).model.mask.item() == -torch.inf


def test_weights_that_do_not_fit_a_given_model_are_refused(path):
    checkpoint.save(Potential(Counting()), path)
    with pytest.raises(ValueError, match="which do not fit the given Counting: "):
        load(path, model=Counting(5))


def test_a_weight_under_two_names_is_saved_and_stays_one(path, water):
    def make():  # PyG's SchNet has each filter network twice
        return PyGSchNet(8, 8, 1, 8, interaction_graph=lambda pos, batch: _all_pairs(pos))

    potential = Potential(make().double(), scale=2.0).eval()
    checkpoint.save(potential, path)
    again = load(path, model=make())
    assert_close(again(water), potential(water), atol=0, rtol=0)
    block = again.model.interactions[0]
    assert block.mlp[0].weight is block.conv.nn[0].weight


@pytest.mark.parametrize("names", [("all", "some"), ("some", "all")])
def test_weights_that_are_parts_of_others_are_saved(path, names):
    class Parts(torch.nn.Module):
        def forward(self, z, pos, batch):
            raise NotImplementedError

    model, every = Parts(), torch.arange(4.0)
    views = {"all": every, "some": every[1:3]}
    for name in names:
        model.register_buffer(name, views[name])
    checkpoint.save(Potential(model), path)
    held = load_file(path)
    assert held["model.all"].tolist() == [0, 1, 2, 3]
    assert held["model.some"].tolist() == [1, 2]


def _all_pairs(pos):
    source, target = edge_index = (1 - torch.eye(len(pos))).nonzero().T
    return edge_index, (pos[source] - pos[target]).norm(dim=1)


def test_provenance_that_json_cannot_hold_leaves_no_file(default, path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(Potential(default), path, {"when": object()})
    assert list(path.parent.iterdir()) == []
