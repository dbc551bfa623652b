from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet
from pyg_schnet.migration.weight_file import read_weights

GOLDEN = Path(__file__).parent / "schnetpack_schnet.npz"  # see README.md beside it
SSP = "shifted_softplus"
MOLECULES = ["water", "ethanol", "benzene"]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def weights(golden) -> dict[str, torch.Tensor]:
    prefix = "weights/"
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith(prefix)
    }


@pytest.fixture(params=MOLECULES)
def name(request) -> str:
    return request.param


@pytest.fixture
def data(golden, name) -> Data:
    z, pos = (torch.from_numpy(golden[f"molecules/{name}/{field}"]) for field in ("z", "pos"))
    return Data(z=z, pos=pos)


# 1e-10, here and below; measured 1e-15.
def test_energies_equal_schnetpacks(golden, weights, name, data):
    energy = Potential(SchNet.from_schnetpack(weights, activation=SSP)).eval()(data)["energy"]
    assert float(energy) == pytest.approx(float(golden[f"molecules/{name}/energy"]), abs=1e-10)


def test_forces_equal_schnetpacks(golden, weights, name, data):
    forces = Potential(SchNet.from_schnetpack(weights, activation=SSP)).eval()(data)["forces"]
    expected = torch.from_numpy(golden[f"molecules/{name}/forces"])
    assert_close(forces, expected, atol=1e-10, rtol=0)


def test_features_of_atoms_equal_schnetpacks(golden, weights, name, data):
    model = SchNet.from_schnetpack(weights, activation=SSP)
    seen = []
    model.readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model(data.z, data.pos)
    expected = torch.from_numpy(golden[f"molecules/{name}/representation"])
    assert_close(seen[0], expected, atol=1e-10, rtol=0)


def test_hyperparameters_are_read_from_the_weights(golden, weights):
    config = SchNet.from_schnetpack(weights, activation=SSP).config
    ours = (
        config.hidden_channels,
        config.num_filters,
        config.num_interactions,
        config.num_gaussians,
    )
    names = ("n_atom_basis", "n_filters", "n_interactions", "n_rbf")
    assert ours == tuple(int(golden[f"hyperparameters/{n}"]) for n in names)
    assert config.cutoff == float(golden["hyperparameters/cutoff"])


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("representation.radial_basis.offsets", "offsets"),
        ("representation.cutoff_fn.cutoff", "cutoff"),
        ("representation.embedding.weight", "embedding.weight"),
        ("representation.interactions.0.filter_network.0.weight", "dense1.weight"),
        ("representation.interactions.1.in2f.weight", "interactions.1.atomwise1.weight"),
        ("output_modules.0.outnet.1.weight", "readout.network.dense2.weight"),
        ("output_modules.0.outnet.0.bias", "readout.network.dense1.bias"),
    ],
)
def test_weights_without_an_entry_are_refused_with_its_name(weights, missing, named):
    del weights[missing]
    with pytest.raises(ValueError, match=rf"`weights`.*state_dict.*{named}"):
        SchNet.from_schnetpack(weights, activation=SSP)


def test_gaussians_of_another_width_are_refused(weights):
    # SchNetPack's `trainable_rbf` changes them; ours have one width.
    weights["representation.radial_basis.widths"] = weights["representation.radial_basis.widths"] * 1.1
    with pytest.raises(ValueError, match=r"`weights`.*Gaussians"):
        SchNet.from_schnetpack(weights, activation=SSP)


def extended(weights, changes):
    """Weights with entries that are added, replaced, or taken away by None."""
    return {name: value for name, value in {**weights, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"output_modules.0.outnet.2.weight": torch.ones(1, 1)},
            "'output_modules.0.outnet.2.weight'",
        ),
        ({"representation.electronic_embeddings.0.q": torch.ones(1)}, r"got 'representation.electronic"),
        (
            {"output_modules.2.outnet.0.bias": torch.ones(1)},
            "output_modules.0.*output_mod",
        ),
        ({"output_modules.0.outnet.0.bias": torch.ones(7)}, r"\(4,\).*numbers.*'readout.*bias'.*.*\(7,\)"),
        ({"representation.embedding.weight": torch.ones(54, 8)}, "numbers.*0.*99.*54.*rows"),
        ({"representation.cutoff_fn.eps": torch.ones(1)}, r"CosineCutoff or HardCutoff, got MollifierCutoff"),
        (
            {"postprocessors.0.scale": torch.ones(1), "postprocessors.3.scale": torch.ones(1)},
            "'scale'.*'postprocessors.3.scale'",
        ),
        ({"postprocessors.0.scale": torch.ones(3)}, "number.*'postprocessors.0.scale'.*3"),
    ],
)
def test_what_schnet_cannot_hold_is_refused_with_its_name(weights, changes, message):
    with pytest.raises(ValueError, match=message):
        SchNet.from_schnetpack(extended(weights, changes), activation=SSP)


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model."])
def test_prefixes_of_lightning_and_of_parallel_models_are_dropped(weights, prefix, data):
    prefixed = {prefix + name: tensor for name, tensor in weights.items()}
    prefixed["outputs.0.train_metrics.mae.total"] = torch.ones(1)
    first, again = (
        SchNet.from_schnetpack(entries, activation=SSP)(data.z, data.pos) for entries in (weights, prefixed)
    )
    assert torch.equal(first, again)


ENERGIES = GOLDEN.with_name("schnetpack_heads.npz")


@pytest.fixture(scope="module")
def heads() -> dict[str, float]:
    with np.load(ENERGIES) as file:
        return {key: float(file[key]) for key in file if key.endswith("/energy")}


def energy_of(model, data) -> float:
    return float(model(data.z, data.pos, dtype=torch.float64).detach())


# 1e-10 of energies of some thousand, here and below; measured 1e-12.
@pytest.mark.parametrize(
    ("file", "activation", "readout"),
    [
        ("schnetpack_silu.model", "silu", "add"),
        ("schnetpack_silu.ckpt", "silu", "add"),
        ("schnetpack_tanh.model", "tanh", "mean"),
    ],
)
def test_a_whole_model_says_what_its_weights_do_not(heads, name, data, file, activation, readout):
    model = SchNet.from_schnetpack(GOLDEN.with_name(file))
    assert (model.config.readout_activation, model.config.readout) == (activation, readout)
    expected = heads[f"{activation}/{name}/energy"]
    assert energy_of(model, data) == pytest.approx(expected, abs=1e-10)


@pytest.fixture
def silu() -> dict[str, torch.Tensor]:
    """Weights of the model with SchNetPack 2's default, without anything that says so."""
    return dict(read_weights(GOLDEN.with_name("schnetpack_silu.model")).weights)


def test_weights_of_version_2_need_the_activation(silu, name, data, heads):
    with pytest.raises(ValueError, match=r"`activation`.*'silu'"):
        SchNet.from_schnetpack(silu)
    model = SchNet.from_schnetpack(silu, activation="silu")
    assert energy_of(model, data) == pytest.approx(heads[f"silu/{name}/energy"], abs=1e-10)


CONFIG = """
globals:
  cutoff: 4.0
  energy_key: energy
  aggregation: sum
model:
  _target_: schnetpack.model.NeuralNetworkPotential
  representation:
    _target_: schnetpack.representation.SchNet
    n_atom_basis: 8
    n_interactions: 2
    radial_basis: {_target_: schnetpack.nn.radial.GaussianRBF, n_rbf: 9, cutoff: "${globals.cutoff}"}
    cutoff_fn: {_target_: schnetpack.nn.cutoff.CosineCutoff, cutoff: "${globals.cutoff}"}
  output_modules:
  - _target_: schnetpack.atomistic.Atomwise
    output_key: ${globals.energy_key}
    n_in: ${model.representation.n_atom_basis}
    aggregation_mode: ${globals.aggregation}
  - _target_: schnetpack.atomistic.Forces
    energy_key: ${globals.energy_key}
  postprocessors:
  - _target_: schnetpack.transform.CastTo64
  - _target_: schnetpack.transform.ScaleProperty
    input_key: ${globals.energy_key}
  - _target_: schnetpack.transform.AddOffsets
    property: energy
    add_mean: true
    add_atomrefs: true
run:
  work_dir: ${hydra:runtime.cwd}
"""


@pytest.mark.parametrize("place", ["weights.pt", "checkpoints/weights.pt"])
def test_the_configuration_beside_weights_says_what_they_do_not(silu, tmp_path, place, heads, name, data):
    (tmp_path / "checkpoints").mkdir()
    torch.save(silu, tmp_path / place)
    (tmp_path / "config.yaml").write_text(CONFIG)
    model = SchNet.from_schnetpack(tmp_path / place)
    assert energy_of(model, data) == pytest.approx(heads[f"silu/{name}/energy"], abs=1e-10)
    elsewhere = SchNet.from_schnetpack(silu, config=tmp_path / "config.yaml")
    assert elsewhere.config == model.config


@pytest.mark.parametrize(
    ("text", "activation"),
    [
        ("torch.nn.functional.tanh", "tanh"),
        ("{_target_: torch.nn.Tanh}", "tanh"),
        (
            "{_target_: hydra.utils.get_method, path: schnetpack.nn.activations.shifted_softplus}",
            "shifted_softplus",
        ),
    ],
)
def test_an_activation_of_the_configuration_is_taken(silu, tmp_path, text, activation):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("    n_in: ", f"    activation: {text}\n    n_in: "))
    assert SchNet.from_schnetpack(silu, config=path).config.readout_activation == activation


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("representation.SchNet", "representation.PaiNN", "config.yaml"),
        ("n_atom_basis: 8", "n_atom_basis: 64", "config.yaml.*weights"),
        ("    n_in: ", "    activation: torch.relu\n    n_in: ", "`activation`.*torch.relu"),
        ("CosineCutoff", "SwitchFunction", "CosineCutoff or HardCutoff; .*SwitchFunction"),
        ("atomistic.Forces", "atomistic.ZBLRepulsionEnergy", "one output .*ZBLRepulsionEnergy"),
        ("transform.AddOffsets", "transform.RemoveOffsets", "AddOffsets and ScaleProperty; .*RemoveOffsets"),
        ("add_mean: true", "is_extensive: false\n    add_mean: true", "is_extensive=True"),
        ("aggregation: sum", "aggregation: avg", "is_extensive=False"),
        ("  representation:", "  network:", "config.yaml.*configuration"),
    ],
)
def test_a_configuration_of_what_schnet_cannot_hold_is_refused(silu, tmp_path, old, new, named):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace(old, new))
    with pytest.raises(ValueError, match=named):
        SchNet.from_schnetpack(silu, config=path)


def test_postprocessors_that_are_switched_off_change_nothing(silu, tmp_path, data):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("  representation:", "  do_postprocessing: false\n  representation:"))
    plain = {name: value for name, value in silu.items() if "postprocessors" not in name}
    offsets = {"postprocessors.1.scale": torch.tensor(7.0), "postprocessors.2.mean": torch.tensor(3.0)}
    found = energy_of(SchNet.from_schnetpack(plain | offsets, config=path), data)
    assert found == energy_of(SchNet.from_schnetpack(plain, activation="silu"), data)


def test_another_config_yaml_beside_weights_is_left_alone(silu, tmp_path):
    torch.save(silu, tmp_path / "weights.pt")
    (tmp_path / "config.yaml").write_text("model: {cutoff: 3}\n")
    assert SchNet.from_schnetpack(tmp_path / "weights.pt", activation="silu").config.cutoff == 4.0
    with pytest.raises(ValueError, match="`activation`"):
        SchNet.from_schnetpack(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"activation": "tanh"}, "`activation`.*'tanh'"),
        ({"readout": "mean"}, "`readout`.*sum.*'mean'"),
        ({"envelope": None}, "`envelope`.*got"),
        ({"dipole": True}, "`dipole`.*got"),
    ],
)
def test_arguments_that_contradict_a_whole_model_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        SchNet.from_schnetpack(GOLDEN.with_name("schnetpack_silu.model"), **arguments)


def test_dipoles_of_version_2_are_refused(silu):
    with pytest.raises(ValueError, match=r"version 1.*version 2"):
        SchNet.from_schnetpack(silu, activation="silu", dipole=True)


@pytest.fixture
def examples(golden, heads):
    return [
        Data(
            z=torch.from_numpy(golden[f"molecules/{name}/z"]),
            pos=torch.from_numpy(golden[f"molecules/{name}/pos"]),
            energy=heads[f"silu/{name}/energy"],
        )
        for name in MOLECULES
    ]


def test_examples_choose_an_activation_that_is_not_known(silu, examples):
    assert SchNet.from_schnetpack(silu, examples=examples).config.readout_activation == "silu"
    assert SchNet.from_schnetpack(silu, activation="silu", examples=examples).config.readout == "add"


def test_examples_that_disagree_are_refused_with_the_difference(silu, examples):
    with pytest.raises(ValueError, match=r"`examples`.*\d"):
        SchNet.from_schnetpack(silu, activation="tanh", examples=examples)
    examples[1].energy += 0.1
    with pytest.raises(ValueError, match=r"`examples` .* 0\.1 with silu"):
        SchNet.from_schnetpack(silu, examples=examples)
    with pytest.raises(ValueError, match=r"`examples`.*structures.*`energy`"):
        SchNet.from_schnetpack(silu, activation="silu", examples=[])


def test_offsets_of_an_average_need_to_be_known(heads, examples):
    weights = read_weights(GOLDEN.with_name("schnetpack_tanh.model")).weights
    with pytest.raises(ValueError, match="`is_extensive`"):
        SchNet.from_schnetpack(weights, readout="mean", activation="tanh")
    with pytest.raises(ValueError, match="is_extensive=False"):
        SchNet.from_schnetpack(weights, readout="mean", activation="tanh", is_extensive=True)
    told = SchNet.from_schnetpack(weights, readout="mean", activation="tanh", is_extensive=False)
    for one, name in zip(examples, MOLECULES, strict=True):
        one.energy = heads[f"tanh/{name}/energy"]
    model = SchNet.from_schnetpack(weights, readout="mean", examples=examples)
    assert model.config == told.config


def test_offsets_of_molecules_are_no_offsets_of_atoms(silu):
    with pytest.raises(ValueError, match="is_extensive=True"):
        SchNet.from_schnetpack(silu, activation="silu", is_extensive=False)
    with pytest.raises(ValueError, match="`is_extensive`"):
        SchNet.from_schnetpack(GOLDEN.with_name("schnetpack_silu.model"), is_extensive=False)


def of(file, prefix) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(v) for name, v in file.items() if name.startswith(prefix)
    }


def test_postprocessors_act_in_their_order(golden, name, data):
    with np.load(GOLDEN.with_name("schnetpack_post.npz")) as file:
        weights, expected = of(file, "weights/"), float(file[f"molecules/{name}/energy"])
    # 1e-10 of energies of some thousand; measured 2e-12.
    assert energy_of(SchNet.from_schnetpack(weights, activation=SSP), data) == pytest.approx(
        expected, abs=1e-10
    )
    # A factor behind the offsets acts on the mean and on the references too.
    network = float(golden[f"molecules/{name}/energy"])
    offsets = expected - 2.5 * network
    weights["postprocessors.2.scale"] = weights.pop("postprocessors.0.scale")
    behind = energy_of(SchNet.from_schnetpack(weights, activation=SSP), data)
    assert behind == pytest.approx(2.5 * (network + offsets), abs=1e-9)
    weights["postprocessors.1.atomref"] = torch.zeros(100)
    behind = energy_of(SchNet.from_schnetpack(weights, activation=SSP), data)
    assert behind == pytest.approx(2.5 * (network - 0.75 * len(data.z)), abs=1e-10)


@pytest.fixture(scope="module")
def golden_1() -> dict[str, np.ndarray]:
    with np.load(GOLDEN.with_name("schnetpack_1.npz")) as file:
        return dict(file)


# What no entry of the weights tells.
VARIANTS = {
    "sum": {},
    "avg": {"readout": "mean"},
    "hard": {"envelope": None},
    "coupled": {},
    "dipole": {"dipole": True},
}


# 1e-10 of energies of some thousand; measured 3e-12, and 3e-14 for forces.
@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_equal_those_of_schnetpack_1(golden_1, variant, name, data):
    model = SchNet.from_schnetpack(of(golden_1, f"{variant}/weights/"), **VARIANTS[variant])
    pos = data.pos.clone().requires_grad_()
    value = model(data.z, pos, dtype=torch.float64)
    expected = of(golden_1, f"{variant}/molecules/{name}/")
    assert_close(value.detach()[0], expected.get("energy", expected.get("dipole")), atol=1e-10, rtol=0)
    if "forces" in expected:
        (gradient,) = torch.autograd.grad(value.sum(), pos)
        assert_close(-gradient, expected["forces"], atol=1e-10, rtol=0)


def test_version_1_with_other_layers_is_refused(golden_1):
    weights = of(golden_1, "sum/weights/")
    weights["output_modules.0.out_net.1.out_net.2.weight"] = torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"'output_modules.0.out_net.1.out_net.2.weight'"):
        SchNet.from_schnetpack(weights)
    charged = {**of(golden_1, "sum/weights/"), "representation.charge": torch.ones(1, 8)}
    with pytest.raises(ValueError, match=r"got 'representation.charge' too"):
        SchNet.from_schnetpack(charged)
