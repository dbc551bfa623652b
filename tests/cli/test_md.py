"""The command ``md``: what it writes, says and refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.training_domain import TrainingDomain

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of a random potential that knows H, C, O and Si, and distances."""
    path = tmp_path_factory.mktemp("md") / "model.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = Potential(SchNet(**TINY), scale=0.1, elements=[1, 6, 8, 14])
    met = {(1, 1): 1.0, (6, 6): 1.0, (6, 8): 1.0, (8, 8): 1.0}
    potential.domain = TrainingDomain({**met, (1, 6): 1.0, (1, 8): 0.9, (14, 14): 2.0}, largest_force=5.0)
    checkpoint.save(potential, path)
    return str(path)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.xyz", molecule("CH3CH2OH"))
    ase.io.write("two.extxyz", [molecule("H2O"), molecule("CH3CH2OH")])
    ase.io.write("silicon.extxyz", bulk("Si", cubic=True))
    return tmp_path


def md(model, *options):
    return cli.main(["md", model, *options])


def fails(capsys, model, *options):
    capsys.readouterr()
    assert md(model, *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("pyg-schnet: ")
    assert "Traceback" not in message
    return message


def test_a_table_says_what_was_measured_and_where_it_is(model, files, capsys):
    assert md(model, "in.xyz", "out.traj", "--duration", "0.01") == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == ["run", "temperature", "energy drift", "fluctuation", "speed", "trajectory", "log"]
    assert rows["run"].strip() == "0.01 ps, 20 steps"
    assert rows["log"].strip() == "out.csv"
    assert len((files / "out.csv").read_text().splitlines()) == 4


def test_json_is_one_object_and_quiet_is_nothing(model, files, capsys):
    assert md(model, "in.xyz", "a.traj", "--duration", "0.01", "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["steps"] == 20
    assert numbers["trajectory"] == "a.traj"
    assert numbers["stopped"] is None
    assert md(model, "in.xyz", "b.traj", "--duration", "0.01", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_a_run_that_leaves_its_domain_says_what_to_do_and_fails(model, files, capsys):
    options = ["in.xyz", "out.extxyz", "--temperature", "2000", "--closest", "1.05"]
    assert md(model, *options) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "stopped: at step" in text
    assert "label such structures and train on them, or change --closest, --max_force or" in text
    assert len(ase.io.read("out.extxyz", ":")) >= 1


def test_limits_are_switched_off_by_null(model, files):
    options = ["--closest", "null", "--max_force", "null", "--temperature", "3000", "--duration", "0.003"]
    assert md(model, "in.xyz", "out.traj", *options) == 0
    assert md(model, "in.xyz", "out2.traj", *options[:2], "--max_force", "77.5", "--duration", "0.001") == 0


def test_the_pressure_of_a_crystal_is_told_with_a_word_of_warning(model, files, capsys):
    options = ["--pressure", "0.5", "--thermostat", "langevin", "--duration", "0.003", "--max_force", "null"]
    with pytest.warns(UserWarning, match="the potential was not trained on stresses"):
        assert md(model, "silicon.extxyz", "out.traj", *options) == 0
    text = capsys.readouterr().out
    assert "GPa" in text
    assert "Å³" in text


def test_several_structures_run_side_by_side(model, files, capsys):
    assert md(model, "two.extxyz", "out.extxyz", "--index", ":", "--duration", "0.01", "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert len(numbers["temperature"]) == len(numbers["drift"]) == len(numbers["fluctuation"]) == 2
    frames = ase.io.read("out.extxyz", ":")
    assert {frame.info["system"] for frame in frames} == {0, 1}
    assert md(model, "two.extxyz", "one.traj", "--index", "0", "--duration", "0.001") == 0
    assert len(ase.io.read("one.traj", 0)) == 3


def test_a_batch_is_resumed_to_a_longer_duration(model, files, capsys):
    options = ["--index", ":", "--interval", "2", "--json"]
    assert md(model, "two.extxyz", "straight.extxyz", *options, "--duration", "0.004") == 0
    straight = json.loads(capsys.readouterr().out)
    assert md(model, "two.extxyz", "parts.extxyz", *options, "--duration", "0.002") == 0
    capsys.readouterr()
    assert md(model, "two.extxyz", "parts.extxyz", *options, "--duration", "0.004", "--resume") == 0
    resumed = json.loads(capsys.readouterr().out)
    for name in ("temperature", "drift", "potential_energy", "steps"):
        assert resumed[name] == straight[name]
    assert (files / "parts.extxyz").read_bytes() == (files / "straight.extxyz").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--index", ":", "--pressure", "1"],
            "`--pressure` needs one structure, got 2 by --index :; choose one",
        ),
        (["--index", ":", "--fix", "C"], "`--fix` needs one structure"),
        (["--index", ":", "--thermostat", "bussi"], "`thermostat` must be one of nve, langevin; got 'bussi'"),
        (["--fix", "Si"], "`fix` must select atoms"),
        (["--index", "first"], "`--index` must be a number or a slice"),
        (["--index", "7"], "two.extxyz: has no structure 7; they count from 0"),
        (["--thermostat", "langevn"], "got 'langevn'. Did you mean 'langevin'?"),
        (["--resume", "--overwrite"], "`--resume` and `--overwrite` exclude each other"),
        (["--closest", "-1"], "`closest` must be positive"),
        (["--max_force", "much"], "`max_force` must be 'auto', None (null) or a force in eV/Å, got 'much'"),
        (["--seed", "-1"], "`seed` must be a whole number from 0, got -1"),
        (["--duration", "0"], "`duration` must be positive and in ps, got 0.0"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(model, files, capsys, options, message):
    before = sorted(files.iterdir())
    assert message in fails(capsys, model, "two.extxyz", "out.traj", *options)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(("out", "index"), [("out.pdb", "0"), ("out.pdb", ":"), ("out.extxyz", "0")])
def test_a_format_that_loses_energies_is_named(model, files, capsys, out, index):
    assert md(model, "two.extxyz", out, "--index", index, "--duration", "0.001") == 0
    lost = "out.pdb: proteindatabank holds no energies and forces; out.pdb.extxyz beside it has them."
    assert (lost in capsys.readouterr().out) == (out == "out.pdb")
    if out == "out.pdb":
        assert ase.io.read("out.pdb.extxyz", 0).get_forces().any()
    assert md(model, "two.extxyz", out, "--duration", "0.001", "--overwrite", "--quiet") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.nightly
def test_resume_after_a_kill_ends_as_if_there_had_been_none(model, files):
    options = ["in.xyz", "--thermostat", "langevin", "--duration", "0.5", "--quiet"]
    command = [sys.executable, "-m", "pyg_schnet.cli", "md", model, "in.xyz", "run.extxyz", *options[1:]]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while time.monotonic() < until and not _has_frames("run.csv", 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL  # else it ended before it was killed
    before = len(ase.io.read("run.extxyz", ":"))
    assert before < 101
    assert md(model, "in.xyz", "run.extxyz", *options[1:], "--resume") == 0
    assert md(model, "in.xyz", "whole.extxyz", *options[1:]) == 0
    frames, expected = ase.io.read("run.extxyz", ":"), ase.io.read("whole.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == list(range(0, 1001, 10))
    assert max(np.abs(a.positions - b.positions).max() for a, b in zip(frames, expected, strict=True)) < 1e-3
    assert (files / "run.csv").read_text().count("\n") == 102


def _has_frames(path, number):
    try:
        with open(path) as file:
            return len(file.readlines()) > number
    except FileNotFoundError:
        return False
