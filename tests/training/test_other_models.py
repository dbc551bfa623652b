"""The training run takes models of others, PyG's SchNet and ViSNet."""

import pytest
import torch
from torch_geometric.nn import SchNet as PyGSchNet
from torch_geometric.nn.models import ViSNet

from pyg_schnet import load
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials.metrics import evaluate


def all_pairs(pos, batch):
    edge_index = ((batch[:, None] == batch) & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().T
    return edge_index, (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=1)


class Distance(torch.nn.Module):
    def forward(self, pos, batch):
        edge_index, distance = all_pairs(pos, batch)
        loops, zero = torch.arange(len(pos)).expand(2, -1), torch.zeros_like(pos)
        vector = torch.cat([pos[edge_index[0]] - pos[edge_index[1]], zero])
        return torch.cat([edge_index, loops], 1), torch.cat([distance, zero[:, 0]]), vector


def pyg_schnet():
    return PyGSchNet(8, 8, 1, 12, 4.0, interaction_graph=all_pairs)


def pyg_visnet():
    model = ViSNet(hidden_channels=8, num_layers=1, num_heads=2, num_rbf=8)
    model.representation_model.distance = Distance()
    return model


@pytest.fixture(params=[pyg_schnet, pyg_visnet])
def make(request):
    torch.manual_seed(0)
    return request.param


def judged(row):
    return 0.01 * row["val_energy_rmse_eV"] ** 2 + 3 * row["val_forces_rmse_eV_per_A"] ** 2


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_another_model_learns_and_its_best_weights_are_kept(recipe, run, write, make, optimizer):
    data = {"path": write(), "val_path": write("val.npz", frames=8, seed=1), "n_val": None, "n_train": None}
    directory = run(recipe(data=data, max_steps=30, optimizer=optimizer), model=make())
    rows = directory.read_metrics()
    best = min(rows, key=judged)
    assert judged(best) < judged(rows[0]) / 2
    errors = evaluate(load(directory.model, model=make()), AtomsDataset(path=data["val_path"]))
    # float32 sums of batches of another size, relative to energies of some eV
    assert errors.forces_rmse == pytest.approx(best["val_forces_rmse_eV_per_A"], rel=1e-5)
    assert errors.energy_rmse == pytest.approx(best["val_energy_rmse_eV"], rel=1e-4)


def test_the_run_of_another_model_can_be_resumed(recipe, run, make):
    whole = run(recipe("whole", max_steps=10, schedule="constant"), model=make())
    torch.manual_seed(0)
    run(recipe("parts", max_steps=5, schedule="constant"), model=make())
    parts = run(recipe("parts", max_steps=10, schedule="constant"), resume=True, model=make())
    (first, second) = (load(where.model, model=make()).state_dict() for where in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


class Normalized(torch.nn.Module):
    """A sum over atoms of a normalized function of their distances."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.head = torch.nn.Linear(1, 1)

    def forward(self, z, pos, batch):
        edge_index, distance = all_pairs(pos, batch)
        near = torch.zeros_like(pos[:, 0]).index_add(0, edge_index[0], torch.exp(-distance))
        atomic = self.head(self.norm(near[:, None])).squeeze(-1)
        return atomic.new_zeros(int(batch.max()) + 1).index_add(0, batch, atomic)


def test_the_running_statistics_of_a_batch_norm_are_in_the_checkpoint(recipe, run):
    torch.manual_seed(0)
    model = Normalized()
    directory = run(recipe(max_steps=5), model=model)
    kept = load(directory.model, model=Normalized()).model
    assert kept.norm.num_batches_tracked == 5
    assert torch.equal(kept.norm.running_mean, model.norm.running_mean)
    assert torch.equal(kept.norm.running_var, model.norm.running_var)
    assert kept.norm.running_mean.abs() > 0.1
