"""The command check, on files."""

from __future__ import annotations

import json

import pytest
import torch
from ase.build import molecule
from ase.io import write

from pyg_schnet import Potential, SchNet
from pyg_schnet.cli import main
from pyg_schnet.potentials.checkpoint import save

OTHER = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Settings:
    depth: int = 1

class Spring(nn.Module):
    def forward(self, z, pos, batch):
        distance = (pos[:, None] - pos[None]).square().sum(-1) * (batch[:, None] == batch)
        return torch.zeros(int(batch[-1]) + 1, dtype=pos.dtype).index_add(0, batch, distance.sum(1))

def make(depth=1):
    return Spring()

def lost(z, pos, batch):
    return Spring()(z, pos, batch) + pos[0, 0]

number = 3
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    save(Potential(model, elements=[1, 6, 8]), folder / "model.safetensors")
    write(folder / "in.xyz", [molecule("CH3OH"), molecule("H2O")])
    (folder / "other.py").write_text(OTHER)
    return folder


def check(files, model, *options):
    return main(["check", str(files / model), str(files / "in.xyz"), *options])


def test_a_table_has_numbers_bounds_and_verdicts(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert check(files, "model.safetensors", "--only", "rotation,permutation,stress") == 0
    text = capsys.readouterr().out
    assert "│ rotation, energy " in text
    assert "e-08 │ eV   │ pass │" in text
    assert "skip stress: there are no crystals" in text
    assert "5 pass, 1 skip, in " in text
    assert "\x1b" not in text


def test_json_is_one_object_and_quiet_is_nothing(files, capsys):
    assert check(files, "model.safetensors", "--only", "forces,elements", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    assert told["counts"] == {"pass": 3, "fail": 0, "limit": 0, "skip": 0}
    forces = told["findings"][1]
    assert forces["check"] == "forces"
    assert 0 <= forces["value"] <= forces["bound"]
    assert forces["unit"] == "eV/Å"
    assert check(files, "model.safetensors", "--only", "rotation", "--quiet") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["Spring", "make"])
def test_models_of_others_are_named_by_their_file(name, files, capsys):
    assert check(files, f"other.py:{name}", "--only", "rotation,forces", "--json") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "float64"


def test_quiet_tells_failures_on_standard_error(files, capsys):
    assert check(files, "other.py:lost", "--only", "translation", "--quiet") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("fail   translation, energy: ")


def test_a_failed_check_is_printed_with_its_reason_and_the_exit_code(files, capsys):
    assert check(files, "other.py:lost", "--only", "translation") == 1
    assert "fail translation: energies must not depend on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("other.py:none", [], "`model` names 'none', which"),
        ("other.py:number", [], "`model` must name a callable, got int for 'number'"),
        ("none.py:make", [], "none.py: no such file; pass FILE.py:NAME, or a checkpoint"),
        ("model.safetensors", ["--only", "rotatoin"], "Did you mean 'rotation'"),
        ("model.safetensors", ["--structures", "0"], "`number` must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(model, options, message, files, capsys):
    assert check(files, model, *options) != 0
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_structures_is_named(files, capsys):
    assert main(["check", str(files / "model.safetensors"), str(files / "other.py")]) != 0
    assert "other.py: ASE cannot read it" in capsys.readouterr().err
