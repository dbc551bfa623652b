from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

GOLDEN = Path(__file__).parent / "schnetpack_schnet.npz"  # see README.md beside it
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
    energy = Potential(SchNet.from_schnetpack(weights)).eval()(data)["energy"]
    assert float(energy) == pytest.approx(float(golden[f"molecules/{name}/energy"]), abs=1e-10)


def test_forces_equal_schnetpacks(golden, weights, name, data):
    forces = Potential(SchNet.from_schnetpack(weights)).eval()(data)["forces"]
    expected = torch.from_numpy(golden[f"molecules/{name}/forces"])
    assert_close(forces, expected, atol=1e-10, rtol=0)


def test_features_of_atoms_equal_schnetpacks(golden, weights, name, data):
    model = SchNet.from_schnetpack(weights)
    seen = []
    model.readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model(data.z, data.pos)
    expected = torch.from_numpy(golden[f"molecules/{name}/representation"])
    assert_close(seen[0], expected, atol=1e-10, rtol=0)


def test_hyperparameters_are_read_from_the_weights(golden, weights):
    config = SchNet.from_schnetpack(weights).config
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
    with pytest.raises(ValueError, match=f"`weights` must be the state_dict of .* got one without .*{named}"):
        SchNet.from_schnetpack(weights)


def test_gaussians_of_another_width_are_refused(weights):
    # SchNetPack's `trainable_rbf` changes them; ours have one width.
    weights["representation.radial_basis.widths"] = weights["representation.radial_basis.widths"] * 1.1
    with pytest.raises(ValueError, match="`weights` must have equally spaced Gaussians"):
        SchNet.from_schnetpack(weights)


def extended(weights, changes):
    """Weights with entries that are added, replaced, or taken away by None."""
    return {name: value for name, value in {**weights, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"output_modules.0.outnet.2.weight": torch.ones(1, 1)},
            r"got 'output_modules.0.outnet.2.weight' too",
        ),
        ({"representation.electronic_embeddings.0.q": torch.ones(1)}, r"got 'representation.electronic"),
        (
            {"output_modules.2.outnet.0.bias": torch.ones(1)},
            r"one output, got output_modules.0 and output_mod",
        ),
        ({"output_modules.0.outnet.0.bias": torch.ones(7)}, r"\(4,\) numbers in 'readout.*bias'.*got \(7,\)"),
        ({"representation.embedding.weight": torch.ones(54, 8)}, r"atomic numbers 0 to 99, got 54 rows"),
        ({"representation.cutoff_fn.eps": torch.ones(1)}, r"CosineCutoff or HardCutoff, got MollifierCutoff"),
        (
            {"postprocessors.0.scale": torch.ones(1), "postprocessors.3.scale": torch.ones(1)},
            r"one 'scale' among its postprocessors, got a second, 'postprocessors.3.scale'",
        ),
        ({"postprocessors.0.scale": torch.ones(3)}, r"one number in 'postprocessors.0.scale', got 3"),
    ],
)
def test_what_schnet_cannot_hold_is_refused_with_its_name(weights, changes, message):
    with pytest.raises(ValueError, match=message):
        SchNet.from_schnetpack(extended(weights, changes))


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model."])
def test_prefixes_of_lightning_and_of_parallel_models_are_dropped(weights, prefix, data):
    prefixed = {prefix + name: tensor for name, tensor in weights.items()}
    prefixed["outputs.0.train_metrics.mae.total"] = torch.ones(1)
    first, again = (SchNet.from_schnetpack(entries)(data.z, data.pos) for entries in (weights, prefixed))
    assert torch.equal(first, again)


def of(file, prefix) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(v) for name, v in file.items() if name.startswith(prefix)
    }


def test_postprocessors_act_in_their_order(name, data):
    with np.load(GOLDEN.with_name("schnetpack_post.npz")) as file:
        weights, expected = of(file, "weights/"), float(file[f"molecules/{name}/energy"])
    # 1e-10 of energies of some thousand; measured 2e-12.
    energy = SchNet.from_schnetpack(weights)(data.z, data.pos, dtype=torch.float64).detach()
    assert float(energy) == pytest.approx(expected, abs=1e-10)
    weights["postprocessors.2.scale"] = weights.pop("postprocessors.0.scale")
    energy = SchNet.from_schnetpack(weights)(data.z, data.pos, dtype=torch.float64).detach()
    assert abs(float(energy)) > 2 * abs(expected)  # the factor now acts on the references too


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
    with pytest.raises(ValueError, match=r"got 'output_modules.0.out_net.1.out_net.2.weight' too"):
        SchNet.from_schnetpack(weights)
    charged = {**of(golden_1, "sum/weights/"), "representation.charge": torch.ones(1, 8)}
    with pytest.raises(ValueError, match=r"got 'representation.charge' too"):
        SchNet.from_schnetpack(charged)
