"""Runs, training states and checkpoints of version 0.1, stored as files, keep working.

``runs_of_0_1/`` holds two runs of 12 steps in float64, written by commit fcd9648, without the files for
TensorBoard and the picture.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet, load
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import DataConfig, FabricConfig, TrainConfig, TrainerConfig
from pyg_schnet.training.state import TrainingState

STORED = Path(__file__).parent / "runs_of_0_1"
# Energy (eV) and first row of the forces (eV/Å) of the first structure, computed by commit fcd9648.
ENERGY = {"soap": -2042.2365618607887, "adam": -2040.787634030581}
FORCES = {
    "soap": [-0.03645011856580749, -0.07473634984008587, 0.5010538885159388],
    "adam": [-0.04378004466658034, -0.0845435890798312, 0.3993815396713346],
}
OPTIMIZERS = ["soap", "adam"]


@pytest.fixture
def stored(tmp_path):
    """Copy a stored run, and return its configuration."""

    def copy(optimizer):
        shutil.copytree(STORED / optimizer, tmp_path / optimizer)
        entries = yaml.safe_load((STORED / optimizer / "config.yaml").read_text(encoding="utf-8"))
        return TrainConfig(
            DataConfig(**entries["data"] | {"path": str(STORED / "ammonia.npz")}),
            SchNetConfig(**entries["model"]),
            TrainerConfig(**entries["trainer"]),
            str(tmp_path / optimizer),
            FabricConfig(**entries["fabric"]),
        )

    return copy


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stored_checkpoint_predicts_the_same(optimizer):
    potential = load(STORED / optimizer / "model.safetensors")
    with np.load(STORED / "ammonia.npz") as file:
        molecule = Data(z=torch.tensor(file["z"]), pos=torch.tensor(file["R"][0]))
    out = potential(molecule)
    assert float(out["energy"].detach()) == pytest.approx(ENERGY[optimizer], rel=1e-14)
    assert out["forces"][0].tolist() == pytest.approx(FORCES[optimizer], abs=1e-12)
    assert potential.domain.shortest[1, 7] == pytest.approx(0.857241, abs=1e-6)
    assert checkpoint.provenance(STORED / optimizer / "model.safetensors")["trainer"]["lr"] == 1e-2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stored_state_is_restored_bit_by_bit(optimizer, stored, tmp_path):
    config = stored(optimizer)
    potential = Potential(SchNet(**vars(config.model)).double())
    state = TrainingState(potential, optimizer, lr=1e-2, ema_decay=0.9)
    state.restore(f"{config.out}/last.safetensors")
    state.save(tmp_path / "again.safetensors")
    (old, kept), (new, again) = (
        checkpoint.read(path, "training state")
        for path in (f"{config.out}/last.safetensors", tmp_path / "again.safetensors")
    )
    assert new["counters"] == old["counters"]
    assert old["counters"]["step"] == 12
    assert again.keys() == kept.keys()
    assert all(again[name].equal(kept[name]) for name in kept)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stored_run_is_resumed(optimizer, stored, run):
    config = stored(optimizer)
    directory = run(replace(config, trainer=replace(config.trainer, max_steps=20)), resume=True)
    rows = directory.read_metrics()
    assert [row["step"] for row in rows] == [5, 10, 12, 15, 20]
    assert rows[-1]["val_forces_mae_eV_per_A"] < rows[0]["val_forces_mae_eV_per_A"]
    if optimizer == "soap":  # rounding, which differs among processors, decides its first rotations
        return
    whole = run(replace(config, out=f"{config.out}_whole", trainer=replace(config.trainer, max_steps=20)))
    resumed, again = (load(one.model).state_dict() for one in (directory, whole))
    for name, weights in again.items():
        torch.testing.assert_close(resumed[name], weights, rtol=1e-6, atol=1e-6)
