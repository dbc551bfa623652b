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
