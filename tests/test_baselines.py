"""The paper's other systems: their equations, their invariances, and what they cannot do."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close
from torch_geometric.data import Batch
from torch_geometric.nn import Set2Set

from pyg_schnet import Potential
from pyg_schnet.datasets import QM9
from pyg_schnet.training import DataConfig, Report, RunDirectory, TrainConfig, TrainerConfig, train

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.baselines.__main__ import main  # noqa: E402
from benchmarks.baselines.dtnn import DTNN  # noqa: E402
from benchmarks.baselines.enn_s2s import ENNS2S  # noqa: E402

SAMPLE = ROOT / "datasets" / "qm9" / "sample.xyz.tar.bz2"


@pytest.fixture(scope="module")
def graphs():
    return QM9(source=SAMPLE, features=True, dtype=torch.float64)


@pytest.fixture(params=[DTNN, ENNS2S], ids=["DTNN", "enn-s2s"])
def potential(request):
    torch.manual_seed(0)
    model = request.param().double()
    torch.nn.init.normal_(model.dense2.weight)
    return Potential(model).eval()


def rotated(graph):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())
    moved = graph.clone()
    moved.pos = graph.pos @ q.T + torch.tensor([1.0, -2.0, 3.0]).double()  # a reflection, too
    return moved


def permuted(graph):
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(2))
    moved = graph.clone()
    moved.z, moved.pos, moved.x = graph.z[order], graph.pos[order], graph.x[order]
    moved.edge_index = order.argsort()[graph.edge_index]
    return moved


@pytest.mark.parametrize("change", [rotated, permuted])
def test_the_energy_does_not_depend_on_place_and_order(potential, graphs, change):
    for graph in graphs[20:24]:
        assert_close(potential(change(graph), False), potential(graph, False), atol=1e-10, rtol=0)


def test_a_molecule_is_the_same_alone_and_in_a_batch(potential, graphs):
    some = [graphs[k] for k in (0, 40, 7)]
    together = potential(Batch.from_data_list(some), False)["energy"]
    alone = torch.cat([potential(graph, False)["energy"] for graph in some])
    assert_close(together, alone, atol=1e-10, rtol=0)


def test_dtnn_is_its_equation(graphs):
    torch.manual_seed(0)
    model, graph = DTNN(hidden_channels=6, num_factors=5).double(), graphs[30]
    torch.nn.init.normal_(model.dense2.weight)
    c = model.embedding(graph.z)
    for _ in range(3):
        new = []
        for i in range(len(c)):
            total = c[i]
            for j in range(len(c)):
                if j != i:
                    d = (graph.pos[i] - graph.pos[j]).norm()
                    centers = 0.2 * torch.arange(101).double()
                    gaussians = torch.exp(-((d - centers) ** 2) / (2 * 0.2**2))
                    product = model.by_atom(c[j]) * model.by_distance(gaussians)
                    total = total + torch.tanh(model.to_features.weight @ product)
            new.append(total)
        c = torch.stack(new)
    expected = model.dense2(torch.tanh(model.dense1(c))).sum()
    assert_close(model(graph.z, graph.pos).squeeze(), expected, atol=1e-10, rtol=0)


def enn_s2s_written_out(model, graph):
    """The equations of one molecule: a matrix for each pair of atoms, and PyG's set2set."""
    atoms, channels = graph.num_nodes, model.update.hidden_size
    kernel = model.to_message.weight.view(channels, -1, channels)  # out, k, in
    matrix = {}
    for v in range(atoms):
        for w in set(range(atoms)) - {v}:
            types = graph.edge_attr[graph.edge_index.T.eq(torch.tensor([v, w])).all(1)].double().sum(0)
            distance = (graph.pos[v] - graph.pos[w]).norm()
            hidden = model.edge_network(torch.stack([*types, 1 - types.sum(), distance]))
            matrix[v, w] = torch.einsum("okc,k->oc", kernel, torch.cat([hidden, torch.ones(1)]))
    x = torch.cat([graph.x.double(), torch.ones(atoms, 1)], dim=1)
    h = model.embedding(x)
    for _ in range(model.num_passes):
        sums = [sum(matrix[v, w] @ h[w] for w in range(atoms) if w != v) for v in range(atoms)]
        h = model.update(torch.stack(sums) + model.to_message.bias, h)
    readout = Set2Set(x.size(1) + channels, model.readout.steps).double()
    weights = {f"lstm.{name}_l0": value for name, value in model.readout.lstm.named_parameters()}
    pooled = functional_call(readout, weights, (torch.cat([h, x], dim=1), torch.zeros(atoms).long()))
    return 10 * model.dense2(torch.relu(model.dense1(pooled))).squeeze()


def test_enn_s2s_is_its_equations(graphs):
    torch.manual_seed(0)
    model, some = ENNS2S(8, 5, 7).double(), [graphs[k] for k in (30, 0, 41)]
    torch.nn.init.normal_(model.dense2.weight)
    batch = Batch.from_data_list(some)
    arguments = (batch.x, batch.edge_index, batch.edge_attr, len(some))
    energies = model(batch.z, batch.pos, batch.batch, *arguments)
    expected = torch.stack([enn_s2s_written_out(model, graph) for graph in some])
    assert_close(energies, expected, atol=1e-12, rtol=0)
    weights, factors = list(model.parameters()), torch.tensor([1.0, -2.0, 3.0]).double()
    gradients = torch.autograd.grad(energies @ factors, weights)
    assert_close(gradients, torch.autograd.grad(expected @ factors, weights), atol=1e-12, rtol=0)


@pytest.mark.parametrize("atoms", [1, 2])
def test_enn_s2s_takes_molecules_without_bonds(atoms):
    torch.manual_seed(0)
    model, pos = ENNS2S().double(), 2.0 * torch.eye(3).double()[:atoms]
    torch.nn.init.normal_(model.dense2.weight)
    none = torch.empty(2, 0).long(), torch.empty(0, 4)
    one = torch.zeros(atoms).long()
    energy = model(one, pos, one, torch.ones(atoms, 11), *none, 1)
    assert energy.isfinite().all()
    assert energy.shape == (1,)


def test_enn_s2s_jumps_where_a_bond_is_drawn_otherwise(graphs):
    """Why it has no row in table 2: where a bond breaks its edges change in one step, and the energy."""
    torch.manual_seed(0)
    model = ENNS2S().double()
    torch.nn.init.normal_(model.dense2.weight)
    potential, graph = Potential(model).eval(), graphs[30]
    drawn = graph.clone()  # of the same geometry
    others = (graph.edge_index.sort(0).values != graph.edge_index[:, :1].sort(0).values).any(0)
    drawn.edge_index, drawn.edge_attr = graph.edge_index[:, others], graph.edge_attr[others]
    assert abs(potential(graph, False)["energy"] - potential(drawn, False)["energy"]) > 1e-3


def test_what_a_model_needs_and_the_data_lack_is_named(graphs):
    graph = graphs[0].clone()
    del graph.edge_attr
    with pytest.raises(ValueError, match=r"`data`.*`edge_attr`.*ENNS2S"):
        Potential(ENNS2S()).eval()(graph, False)


@pytest.mark.parametrize("name", ["dtnn", "enn-s2s"])
def test_a_baseline_is_trained_and_evaluated_by_the_same_loop(name, tmp_path, capsys):
    file = QM9(str(tmp_path / "qm9"), source=SAMPLE, features=True).processed_paths[0]
    options = ["--data.path", file, "--data.energy_key", "U0", "--data.n_train", "64", "--data.n_val", "16"]
    options += ["--trainer.max_steps", "4", "--trainer.val_every", "2", "--quiet"]
    assert main([name, "train", *options, "--out", str(tmp_path / "run")]) == 0
    model = str(tmp_path / "run" / "model.safetensors")
    assert main([name, "evaluate", model, file, "--part", "test", "--energy_key", "U0", "--json"]) == 0
    assert '"n": 40' in capsys.readouterr().out


@pytest.mark.nightly
def test_the_loop_learns_what_a_baseline_can(tmp_path):
    file = QM9(str(tmp_path / "qm9"), source=SAMPLE).processed_paths[0]
    config = TrainConfig(
        data=DataConfig(path=file, energy_key="U0", n_train=100, n_val=20),
        trainer=TrainerConfig(max_steps=120, val_every=60, lr=3e-3),
        out=str(tmp_path / "run"),
    )
    torch.manual_seed(0)
    run = train(config, Report(), model=DTNN())
    first, last = (row["loss"] for row in run.read_metrics())
    assert last < 0.8 * first


def test_the_mean_predictor_predicts_the_mean_and_no_forces(tmp_path, capsys):
    file = tmp_path / "frames.npz"
    with np.load(ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz") as sample:
        arrays = {"z": sample["z"], **{key: sample[key][:60] for key in "REF"}}
    np.savez(file, **arrays)
    options = ["--data.path", str(file), "--data.n_train", "40", "--data.n_val", "10"]
    options += ["--trainer.max_steps", "1", "--trainer.val_every", "1", "--quiet"]
    assert main(["mean", "train", *options, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    model = str(tmp_path / "run" / "model.safetensors")
    assert main(["mean", "evaluate", model, str(file), "--part", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    split = RunDirectory(tmp_path / "run").read_split()
    energy, forces = arrays["E"].reshape(-1), arrays["F"]
    expected = np.abs(energy[split.test] - energy[split.train].mean()).mean()
    assert found["energy_mae_kcal"] == pytest.approx(expected, rel=1e-6)
    assert found["forces_mae_kcal"] == pytest.approx(np.abs(forces[split.test]).mean(), rel=1e-6)


def test_a_wrong_name_is_answered_with_the_usage(capsys):
    assert main(["mlp", "train"]) == 2
    assert "python -m benchmarks.baselines dtnn train" in capsys.readouterr().err
