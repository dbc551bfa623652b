"""Pretrained models of the clone: files agree with their cards, load, and have the stated errors."""

import importlib.util
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ase.build import molecule

import pyg_schnet
from pyg_schnet import Potential, SchNet
from pyg_schnet.io.toml_file import read_toml
from pyg_schnet.potentials import PropertyErrors, Target
from pyg_schnet.potentials.checkpoint import provenance
from pyg_schnet.potentials.model_card import Accuracy, ModelCard
from pyg_schnet.potentials.pretrained import named_models
from pyg_schnet.training.evaluation import evaluate

FOLDER = Path(__file__).parents[1] / "models"
CARDS = sorted(FOLDER.glob("pyg_schnet_models/*.toml"))
PARTS = {path.stem.removeprefix("rmd17-"): path for path in CARDS if path.stem.startswith("rmd17-")}


def script(name):
    """Load a script of `models/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_weights_are_those_of_the_card_and_load_by_name(card):
    read = script("build").check(card)
    potential = pyg_schnet.load(card.stem)
    assert set(read.predicts) >= {error.quantity for error in read.errors}
    assert len(potential.elements) == len(read.elements)
    assert next(potential.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_the_provenance_holds_no_paths_of_a_machine(card):
    data = provenance(card.with_suffix(".safetensors"))["data"]
    assert [value for value in data.values() if isinstance(value, str) and "/" in value] == []


def test_the_licenses_of_all_data_are_listed():
    text = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for path in CARDS:
        card = read_toml(ModelCard, path)
        assert f"`{path.stem.partition('-')[0]}-…`" in text or f"`{path.stem}`" in text
        assert card.data_license in text


@pytest.mark.parametrize("name", PARTS)
def test_the_errors_of_the_card_are_those_on_the_test_set(name):
    folder = os.environ.get("RMD17")
    if folder is None:
        pytest.skip("RMD17 must name the folder of rmd17_*_test_01.npz")
    card = read_toml(ModelCard, PARTS[name])
    file = Path(folder) / f"rmd17_{name}_test_01.npz"
    found = evaluate(card.name, file, energy_key="energies", forces_key="forces")
    for error in card.errors:
        assert getattr(found, f"{error.quantity}_mae") == pytest.approx(error.mae, rel=1e-3)


@pytest.fixture
def facts():
    return {
        "name": "water",
        "title": "Water",
        "limits": "water alone",
        "level_of_theory": "none",
        "data": "one frame",
        "data_license": "none",
        "split": "none",
        "recipe": "none",
        "test_set": "the frame again",
    }


@pytest.fixture
def run(tmp_path):
    """Save a model, and a structure with labels that are off by known errors."""
    torch.manual_seed(0)
    potential = Potential(
        SchNet(hidden_channels=8, num_filters=8, num_interactions=1), elements=[1, 8]
    ).double()
    data = {"path": str(tmp_path / "frames.extxyz"), "val_path": [str(tmp_path / "a"), "b"], "root": None}
    pyg_schnet.save(potential, tmp_path / "run.safetensors", {"data": data, "date": "today"})
    frame = pyg_schnet.predict(tmp_path / "run.safetensors", molecule("H2O"))
    frame.calc.results["energy"] += 0.25
    frame.calc.results["forces"] = frame.calc.results["forces"] + 0.5
    frame.write(tmp_path / "test.extxyz")
    return tmp_path / "run.safetensors"


def test_a_run_becomes_a_model_with_measured_errors_by_one_call(run, facts, tmp_path):
    script("add").add(run, facts, tmp_path / "test.extxyz", folder=tmp_path)
    card = script("build").check(tmp_path / "water.toml")
    assert [(error.quantity, error.structures) for error in card.errors] == [("energy", 1), ("forces", 1)]
    assert [error.mae for error in card.errors] == pytest.approx([0.25, 0.5], abs=1e-4)
    assert card.elements == ("H", "O")
    assert card.predicts == {"energy": "eV", "forces": "eV/Å"}
    assert str(tmp_path).encode() not in (tmp_path / "water.safetensors").read_bytes()
    assert script("add").add(
        run, {**facts, "equilibrium": True}, tmp_path / "test.extxyz", folder=tmp_path
    ).predicts == {"energy": "eV"}


def test_properties_have_their_units_and_errors_and_missing_labels_none(facts, tmp_path, monkeypatch):
    torch.manual_seed(0)
    targets = {target: target.readout(8) for target in (Target("mu"), Target("gap"))}
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, readout=None)
    pyg_schnet.save(Potential(model, elements=[1, 8], properties=targets), tmp_path / "run.safetensors")
    labels = torch.zeros(2, 1)
    found = {
        "mu": PropertyErrors(Target("mu"), 0.02, 0.03, labels),
        "gap": PropertyErrors(Target("gap"), math.nan, math.nan, labels[:, :0]),
    }
    module = script("add")
    errors = SimpleNamespace(n=1, trained_on=0, properties=found)
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: errors)
    card = module.add(tmp_path / "run.safetensors", facts, tmp_path / "test.xyz", folder=tmp_path)
    assert card.predicts == {"mu": "D", "gap": "eV"}
    assert card.errors == (Accuracy("mu", 0.02, 0.03, "D", 1, "the frame again"),)
    assert script("build").check(tmp_path / "water.toml") == card


def test_a_wrong_model_is_not_built(run, facts, tmp_path):
    add, check = script("add"), script("build").check
    card = add.add(run, facts, tmp_path / "test.extxyz", folder=tmp_path)
    path = tmp_path / "water.toml"
    for change, message in (
        ({"sha256": 64 * "0"}, "must have the hash"),
        ({"limits": "none"}, "must hold the card"),
        ({"name": "ice"}, "`name` must be that of the file"),
        ({"errors": ()}, "`errors` must"),
    ):
        path.write_text(add.as_toml(replace(card, **change)), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            check(path)


def test_the_clone_s_models_are_found_without_installation():
    assert {path.stem for path in CARDS} <= set(named_models())
