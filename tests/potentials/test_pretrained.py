"""Pretrained models by name, address and repository: what is found is verified, and runs no code."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from ase.io import write

import pyg_schnet
from pyg_schnet import Ensemble, Potential, SchNet, cli, load, save
from pyg_schnet.io.remote.download import DownloadError
from pyg_schnet.potentials.model_card import Accuracy, ModelCard
from pyg_schnet.potentials.model_files import hash_models, resolve_models
from pyg_schnet.potentials.pretrained import find_model, named_models, read_model_card
from pyg_schnet.transforms.ase_atoms import from_ase
from tests.io.remote import http_server

NAME = "tiny-water"
FACTS = {
    "name": NAME,
    "title": "Water: energies and forces, for tests",
    "limits": "water alone; of no use for chemistry",
    "predicts": {"energy": "eV", "forces": "eV/Å"},
    "elements": ["H", "O"],
    "level_of_theory": "none",
    "data": "none",
    "data_license": "CC0 1.0",
    "split": "none",
    "recipe": "none",
    "commit": "0000000",
    "license": "CC0-1.0",
    "errors": [],
}


def as_toml(facts):
    """Return a card as TOML, whose values are those of JSON."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items() if key != "predicts"]
    units = [f"{key} = {json.dumps(value)}" for key, value in facts["predicts"].items()]
    return "\n".join([*lines, "[predicts]", *units, ""])


@pytest.fixture
def weights(tmp_path):
    """Write a model with its card in its provenance."""
    torch.manual_seed(0)
    potential = Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1), elements=[1, 8])
    save(potential, path := tmp_path / "water.safetensors", {"card": FACTS})
    return path


@pytest.fixture
def package(weights, tmp_path, monkeypatch):
    """Install a package with the model, the import of which fails."""
    folder = tmp_path / "site" / "models_of_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('code of the package runs')\n")
    (folder / f"{NAME}.safetensors").write_bytes(weights.read_bytes())
    digits = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / f"{NAME}.toml").write_text(as_toml({**FACTS, "sha256": digits}), encoding="utf-8")
    metadata = folder.parent / "models_of_a_test-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: models-of-a-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pyg_schnet.models]\nmodels_of_a_test = models_of_a_test\n")
    monkeypatch.syspath_prepend(folder.parent)
    named_models.cache_clear()
    yield folder
    named_models.cache_clear()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve files on this machine; downloads are kept in a folder of the test."""
    monkeypatch.setenv("PYG_SCHNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYG_SCHNET_OFFLINE", raising=False)
    with http_server.Server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url())
        yield server


def energy(potential):
    return potential(from_ase(molecule("H2O")), forces=False)["energy"]


def test_a_model_is_loaded_by_its_name_with_its_card_and_without_running_code(package, weights):
    potential = load(NAME)
    assert torch.equal(energy(potential), energy(load(weights)))
    assert potential.card == ModelCard.from_json(FACTS)
    assert read_model_card(NAME).limits == FACTS["limits"]
    assert hash_models(NAME) == hash_models(weights)


def test_an_existing_path_precedes_a_name(package, tmp_path, monkeypatch):
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model(NAME) == NAME
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint"):
        load(NAME)


def test_an_unknown_name_is_an_error_with_the_nearest(package):
    for call in (load, read_model_card, lambda name: pyg_schnet.relax(name, molecule("H2O"))):
        with pytest.raises(FileNotFoundError, match=r"tiny-wate: no such checkpoint.*'tiny-water'\?"):
            call("tiny-wate")


def test_a_missing_file_is_an_error_with_its_path(package):
    with pytest.raises(FileNotFoundError, match=r"^runs/tiny-water: no such checkpoint"):
        load("runs/tiny-water")


def test_weights_other_than_those_of_the_card_are_rejected(package):
    path = package / f"{NAME}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"tiny-water\.safetensors: must be the file of its card"):
        load(NAME)


def test_names_and_paths_make_an_ensemble(package, weights):
    assert resolve_models(f"{NAME},{weights}") == [str(package / f"{NAME}.safetensors"), str(weights)]
    assert Ensemble.load([NAME, weights]).elements == [1, 8]


def test_a_model_is_downloaded_once_from_an_address_with_its_hash(weights, server):
    data = weights.read_bytes()
    server.answers["/some/model.safetensors"] = [http_server.content(data)]
    address = f"{server.url('/some/model.safetensors')}#sha256={hashlib.sha256(data).hexdigest()}"
    for _ in range(2):
        assert torch.equal(energy(load(address)), energy(load(weights)))
    assert len(server.requests) == 1


def test_an_address_without_its_hash_is_an_error_that_states_its_form(server):
    for fragment in ("", "#sha256=12", "#md5=" + 32 * "0"):
        with pytest.raises(ValueError, match=r"must end in the hash.*/m\.safetensors#sha256=…"):
            load(server.url("/m.safetensors") + fragment)
    assert server.requests == []


def test_another_file_than_that_of_the_hash_is_not_loaded(weights, server, tmp_path):
    server.answers["/m.safetensors"] = [http_server.content(weights.read_bytes())]
    with pytest.raises(DownloadError, match="SHA-256 is"):
        load(f"{server.url('/m.safetensors')}#sha256={64 * '0'}")
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_a_model_of_hugging_face_is_downloaded_once(weights, server):
    data = weights.read_bytes()
    digits = hashlib.sha256(data).hexdigest()
    server.answers["/a/b/resolve/main/model.safetensors"] = [http_server.content(data)]
    server.answers["/a/b/resolve/v1/sub/x.safetensors"] = [http_server.content(data)]
    for name in ("hf:a/b", "hf:a/b@v1/sub/x.safetensors", f"hf:a/b@v1/sub/x.safetensors#sha256={digits}"):
        for _ in range(2):
            assert torch.equal(energy(load(name)), energy(load(weights)))
    assert len(server.requests) == 3
    with pytest.raises(ValueError, match="must be hf:owner/repository"):
        load("hf:a")


def test_offline_a_downloaded_model_is_loaded_and_another_is_an_error(weights, server, monkeypatch):
    server.answers["/a/b/resolve/main/model.safetensors"] = [http_server.content(weights.read_bytes())]
    load("hf:a/b")
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", "1")
    load("hf:a/b")
    with pytest.raises(DownloadError, match="PYG_SCHNET_OFFLINE"):
        load("hf:a/c")


def test_the_command_lists_the_models_and_shows_a_card(package, weights, capsys):
    assert cli.main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)[NAME]
    assert Path(listed["path"]) == package / f"{NAME}.safetensors"
    assert listed["bytes"] == weights.stat().st_size
    assert cli.main(["models", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed
    assert cli.main(["models"]) == 0
    assert FACTS["title"].split(":")[0] in capsys.readouterr().out
    for one in (NAME, str(weights)):
        assert cli.main(["models", one]) == 0
        assert FACTS["limits"] in capsys.readouterr().out
    assert cli.main(["models", "tiny-wate"]) == 2
    assert "Did you mean 'tiny-water'?" in capsys.readouterr().err


def test_commands_print_the_limits_of_a_model_unless_they_are_quiet(package, tmp_path, capsys):
    write(tmp_path / "in.xyz", molecule("H2O"))
    arguments = ["predict", NAME, str(tmp_path / "in.xyz"), str(tmp_path / "out.xyz"), "--overwrite"]
    assert cli.main(arguments) == 0
    assert f"pyg-schnet: {NAME}: {FACTS['limits']}\n" in capsys.readouterr().err
    for option in ("--quiet", "--json"):
        assert cli.main([*arguments, option]) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Water"}, "`name` must be of small letters"),
        ({"limits": ""}, "`limits` must be one line"),
        ({"sha256": "12"}, "`sha256` must be 64"),
        ({"elements": "H"}, "`elements` must be a list"),
        ({"errors": [vars(Accuracy("dipole", 0.1, 0.1, "D", 1, "x"))]}, "`errors` must be of quantities"),
    ],
)
def test_a_wrong_card_is_an_error_with_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        ModelCard.from_json({**FACTS, **change})


def test_a_card_of_a_later_version_is_read():
    assert ModelCard.from_json({**FACTS, "later": 1}) == ModelCard.from_json(FACTS)
