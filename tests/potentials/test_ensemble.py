"""An ensemble is the mean of its potentials, and knows how far they disagree."""

import json

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Ensemble, Potential, SchNet, load
from pyg_schnet.cli import main
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.graph import pair_graph
from pyg_schnet.potentials import checkpoint, ensemble
from pyg_schnet.potentials.metrics import evaluate

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12}


@pytest.fixture
def potentials(randomize):
    cutoffs = (3.0, 4.0, 2.5)
    return [Potential(randomize(SchNet(**TINY, cutoff=cutoff)).double()).eval() for cutoff in cutoffs]


@pytest.mark.parametrize("compiled", [True, False])
def test_the_mean_is_that_of_all_and_the_deviation_that_of_a_sample(potentials, molecules, compiled):
    batch = Batch.from_data_list(molecules)
    found = [potential(batch) for potential in potentials]
    if compiled:
        for potential in potentials:
            potential.model.filters = "spline"
            potential.compile()
    out = Ensemble(potentials).eval()(batch)
    energy, forces = (torch.stack([f[name] for f in found]) for name in ("energy", "forces"))
    tolerance = {"atol": 1e-6 if compiled else 1e-12, "rtol": 1e-6 if compiled else 1e-12}
    assert_close(out["energy"], energy.mean(0), **tolerance)
    assert_close(out["forces"], forces.mean(0), **tolerance)
    assert_close(out["energy_deviation"], energy.std(0), **tolerance)
    expected = (forces - forces.mean(0)).norm(dim=-1).square().sum(0).div(2).sqrt()
    assert_close(out["forces_deviation"], expected, **tolerance)


def test_equal_potentials_do_not_disagree(potentials, water):
    out = Ensemble([potentials[0]] * 3).eval()(water)
    assert out["energy_deviation"].abs().max() < 1e-14
    assert out["forces_deviation"].abs().max() < 1e-14


def test_energies_alone_cost_no_forces(potentials, water):
    assert set(Ensemble(potentials).eval()(water, forces=False)) == {"energy", "energy_deviation"}


def test_neighbors_are_searched_once(potentials, water, monkeypatch):
    searches = []
    original = ensemble.neighbor_list
    monkeypatch.setattr(
        ensemble, "neighbor_list", lambda *arguments: searches.append(arguments[1]) or original(*arguments)
    )
    given = []
    find_pairs = pair_graph.find_pairs
    monkeypatch.setattr(
        pair_graph, "find_pairs", lambda *arguments: given.append(arguments[5]) or find_pairs(*arguments)
    )
    Ensemble(potentials).eval()(water)
    assert searches == [4.0]
    assert len(given) == len(potentials)
    assert all(edge_index is not None for edge_index in given)


def test_models_with_and_without_cutoff_share_all_pairs(potentials, randomize, molecules):
    whole = Potential(randomize(SchNet(**TINY, cutoff=None, last_center=6.0)).double()).eval()
    batch = Batch.from_data_list(molecules)
    out = Ensemble([whole, potentials[0]]).eval()(batch)
    expected = (whole(batch)["energy"] + potentials[0](batch)["energy"]) / 2
    assert_close(out["energy"], expected, atol=1e-12, rtol=0)


def test_a_crystal_has_its_images(potentials):
    cell = 3.0 * torch.eye(3, dtype=torch.float64)[None]
    crystal = Data(
        z=torch.tensor([6, 8]),
        pos=torch.tensor([[0.0, 0, 0], [1.4, 1.5, 1.6]], dtype=torch.float64),
        cell=cell,
        pbc=torch.tensor([[True, True, False]]),
    )
    out = Ensemble(potentials).eval()(crystal)
    expected = torch.stack([potential(crystal)["energy"] for potential in potentials]).mean(0)
    assert_close(out["energy"], expected, atol=1e-12, rtol=0)


def test_the_forces_are_the_slope_of_the_mean_energy(potentials, water):
    own = Ensemble(potentials).eval()
    forces, step = own(water)["forces"], 1e-4
    for sign in (1, -1):
        moved = water.clone()
        moved.pos[1, 2] += sign * step
        forces[1, 2] += sign * own(moved, forces=False)["energy"].item() / (2 * step)
    assert abs(forces[1, 2]) < 1e-6


def test_an_ensemble_is_evaluated_like_a_potential(potentials, tmp_path):
    dataset = AtomsDataset(path="datasets/md17/ethanol_gfn2_xtb.npz")[:8]
    assert evaluate(Ensemble(potentials), dataset).n == 8


def test_files_of_several_models_are_measured_as_their_mean(tmp_path, capsys, randomize):
    paths = [tmp_path / f"{k}.safetensors" for k in range(2)]
    for path, scale in zip(paths, (1.0, 2.0), strict=True):
        checkpoint.save(Potential(randomize(SchNet(**TINY)), scale, elements=[1, 6, 8]), path)
    file = "datasets/md17/ethanol_gfn2_xtb.npz"
    joined = ",".join(map(str, paths))
    assert main(["evaluate", joined, file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = evaluate(Ensemble([load(path) for path in paths]), AtomsDataset(path=file))
    assert found["energy_mae"] == pytest.approx(expected.energy_mae, abs=1e-4)
    assert found["forces_mae"] == pytest.approx(expected.forces_mae, abs=1e-6)
    alone = evaluate(load(paths[0]), AtomsDataset(path=file))
    assert abs(found["energy_mae"] - alone.energy_mae) > 1e-2


def test_files_of_a_model_of_ones_own_need_somebody_to_make_it(tmp_path):
    torch.manual_seed(0)
    paths = [tmp_path / f"{k}.safetensors" for k in range(2)]
    for path in paths:
        checkpoint.save(Potential(Own()), path)
    assert len(Ensemble.load(paths, make=Own).potentials) == 2
    with pytest.raises(ValueError, match="holds the weights of Own"):
        Ensemble.load(paths)


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(()))

    def forward(self, z, pos, batch):
        return self.weight * pos.square().sum().reshape(1, 1)


def test_one_potential_is_refused(potentials):
    with pytest.raises(ValueError, match=r"`potentials`.*1"):
        Ensemble(potentials[:1])


def test_other_elements_are_refused(potentials):
    other = Potential(SchNet(**TINY), elements=[1, 8])
    with pytest.raises(ValueError, match=r"elements.*number.*0.*number.*1.*\[1, 8\]"):
        Ensemble([Potential(SchNet(**TINY), elements=[1, 6]), other])
