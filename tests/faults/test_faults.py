"""Full disks, folders that take no files, signals and second runs: told in a line, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials import checkpoint
from pyg_schnet.simulation.recorder import RunLog
from pyg_schnet.simulation.trajectory import TrajectoryFile

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12, "cutoff": 4.0}
MD = ["--max_force", "null", "--closest", "null", "--duration", "0.05", "--interval", "5", "--quiet"]
NOWHERE = Path("/sys/kernel")  # where no file can be made, by root neither


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints of random potentials."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        for name in "ab":
            torch.manual_seed(ord(name))
            checkpoint.save(
                Potential(SchNet(**TINY), scale=0.1, elements=[1, 6, 8]), folder / f"{name}.safetensors"
            )
    return [str(folder / "a.safetensors"), str(folder / "b.safetensors")]


@pytest.fixture
def model(models):
    return models[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a structure, some more, and labelled ones."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.xyz", molecule("CH3CH2OH"))
    with np.load(SAMPLE) as file:
        arrays = {key: file[key][:60] for key in "REF"} | {"z": file["z"]}
    np.savez("labelled.npz", **arrays)
    ase.io.write("frames.extxyz", [ase.Atoms(arrays["z"], pos) for pos in arrays["R"]])
    return tmp_path


@contextlib.contextmanager
def disk_of(size):
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def said(capsys):
    """The lines on standard error, each of which is ours."""
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("pyg-schnet: ") for line in lines), lines
    return lines


def send(monkeypatch, number, owner, name, call):
    """Let this process get a signal at the so-manieth call of a method."""
    plain, calls = getattr(owner, name), []

    def signalled(*args, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return plain(*args, **options)

    monkeypatch.setattr(owner, name, signalled)


def assert_same_path(one, other):
    pairs = list(zip(ase.io.read(one, ":"), ase.io.read(other, ":"), strict=True))
    assert [frame.info["step"] for frame, _ in pairs] == list(range(0, 101, 5))
    for frame, expected in pairs:
        assert frame.get_potential_energy() == expected.get_potential_energy()
        assert np.array_equal(frame.positions, expected.positions)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_a_signal_ends_a_dynamics_in_order_and_it_goes_on(
    model, here, capsys, monkeypatch, number, code, word, suffix
):
    out = f"out.{suffix}"
    assert cli.main(["md", model, "in.xyz", f"whole.{suffix}", *MD]) == 0
    with monkeypatch.context() as patch:
        send(patch, number, RunLog, "write", 8)
        assert cli.main(["md", model, "in.xyz", out, *MD]) == code
    first, last = said(capsys)
    assert first.endswith(f"are done, in {out}; --resume continues")
    assert "pyg-schnet: 3" in first  # steps: the seventh row is of step 30
    assert last == f"pyg-schnet: {word}"
    assert len(ase.io.read(out, ":")) in (7, 8)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as it was
    assert cli.main(["md", model, "in.xyz", out, *MD, "--resume"]) == 0
    assert_same_path(out, f"whole.{suffix}")
    assert Path("out.csv").read_text() == Path("whole.csv").read_text()


def test_a_second_sigterm_does_not_break_the_end_of_the_first(model, here, monkeypatch):
    send(monkeypatch, signal.SIGTERM, RunLog, "write", 3)
    send(monkeypatch, signal.SIGTERM, TrajectoryFile, "__exit__", 1)
    assert cli.main(["md", model, "in.xyz", "out.extxyz", *MD]) == 143
    assert checkpoint.read("out.extxyz.restart", "dynamics")[0]["step"] >= 5


def test_a_signal_ends_the_true_command(model, here):
    command = [sys.executable, "-m", "pyg_schnet.cli", "md", model, "in.xyz", "out.extxyz", *MD[:4]]
    process = subprocess.Popen([*command, "--duration", "1000"], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120  # of a busy machine; some seconds of a quiet one
        while time.monotonic() < until and not Path("out.csv").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 143
    assert errors.count("\n") == 2
    assert "--resume continues" in errors


def test_a_signal_ends_dynamics_side_by_side(model, here, capsys, monkeypatch):
    send(monkeypatch, signal.SIGTERM, TrajectoryFile, "write", 100)
    assert cli.main(["md", model, "frames.extxyz", "out.extxyz", *MD, "--index", ":20"]) == 143
    assert re.fullmatch(
        r"pyg-schnet: \d+ steps \(\S+ ps\) are done, in out.extxyz; --resume continues", said(capsys)[0]
    )
    assert len(ase.io.read("out.extxyz", ":")) >= 99


def test_a_signal_ends_relaxations_and_they_go_on(model, here, capsys, monkeypatch):
    from pyg_schnet.prediction.results import ResultFile

    options = ["--steps", "10", "--quiet"]
    with monkeypatch.context() as patch:
        send(patch, signal.SIGTERM, ResultFile, "add", 4)
        assert cli.main(["relax", model, "frames.extxyz", "out.extxyz", *options]) == 143
    lines = said(capsys)
    assert lines[0] == "pyg-schnet: 3 structures are done, in out.extxyz.partial; --resume continues"
    assert lines[-1] == "pyg-schnet: terminated"
    assert not Path("out.extxyz").exists()
    assert cli.main(["relax", model, "frames.extxyz", "out.extxyz", *options, "--resume"]) in (0, 1)
    assert [frame.info["input_frame"] for frame in ase.io.read("out.extxyz", ":")] == list(range(60))


def test_a_signal_while_a_set_is_processed_leaves_nothing_half(here, capsys, monkeypatch):
    from pyg_schnet.datasets.storage.writer import StorageWriter

    with monkeypatch.context() as patch:
        send(patch, signal.SIGTERM, StorageWriter, "finish", 1)
        assert cli.main(["data", "labelled.npz", "--root", "root", "--quiet"]) == 143
    assert said(capsys) == ["pyg-schnet: terminated"]
    assert names(here / "root" / "processed") == []
    assert cli.main(["data", "labelled.npz", "--root", "root", "--quiet"]) == 0


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_a_full_disk_stops_a_dynamics_with_whole_frames_and_it_goes_on(model, here, capsys, suffix):
    out = f"out.{suffix}"
    assert cli.main(["md", model, "in.xyz", f"whole.{suffix}", *MD]) == 0
    with disk_of(12_000):
        assert cli.main(["md", model, "in.xyz", out, *MD]) == 2
    lines = said(capsys)
    assert "--resume continues" in lines[0]
    assert lines[-1] == f"pyg-schnet: {out}: cannot be written (File too large); what it had is kept"
    frames = ase.io.read(out, ":")
    assert 3 < len(frames) < 20
    assert cli.main(["md", model, "in.xyz", out, *MD, "--resume"]) == 0
    assert_same_path(out, f"whole.{suffix}")
    assert Path("out.csv").read_text() == Path("whole.csv").read_text()


def test_a_full_disk_is_told_where_a_restart_file_cannot_be_written(model, here, capsys):
    with disk_of(300):
        assert cli.main(["md", model, "in.xyz", "out.extxyz", *MD]) == 2
    assert "out.extxyz.restart: cannot be written" in said(capsys)[-1]
    assert names(here) == ["frames.extxyz", "in.xyz", "labelled.npz"]


def test_a_full_disk_keeps_the_processed_set_that_was_there(here, capsys):
    command = ["data", "labelled.npz", "--root", "root", "--quiet"]
    assert cli.main(command) == 0
    before = AtomsDataset("root", path="labelled.npz")[0].energy
    processed = here / "root" / "processed"
    with disk_of(10_000), pytest.raises(OSError, match=r"cannot be written \(File too large\); make room"):
        AtomsDataset("root", path="labelled.npz", force_reload=True)
    assert len(names(processed)) == 1
    with disk_of(10_000):  # nothing to write
        assert torch.equal(AtomsDataset("root", path="labelled.npz")[0].energy, before)


@pytest.mark.parametrize(
    ("verb", "out"),
    [
        ("data labelled.npz --plot OUT", "picture.png"),
        ("evaluate MODEL labelled.npz --plot OUT", "picture.png"),
        ("evaluate BOTH labelled.npz --calibrate OUT --overwrite", "ensemble.json"),
        ("select BOTH frames.extxyz OUT --k 3 --overwrite", "out.extxyz"),
    ],
)
def test_a_full_disk_leaves_the_file_that_was_there(models, here, capsys, verb, out):
    Path(out).write_text("before")
    words = verb.replace("OUT", out).replace("BOTH", ",".join(models)).replace("MODEL", models[0]).split()
    there = names(here)
    with disk_of(64):
        assert cli.main([*words, "--quiet"]) == 2
    assert "File too large" in said(capsys)[-1]
    assert Path(out).read_text() == "before"
    assert names(here) == there


@pytest.mark.skipif(not NOWHERE.is_dir(), reason="needs a folder that takes no files")
@pytest.mark.parametrize(
    "verb",
    [
        "md MODEL in.xyz NOWHERE/out.extxyz --duration 0.001",
        "md MODEL frames.extxyz NOWHERE/out.extxyz --duration 0.001 --index :",
        "relax MODEL in.xyz NOWHERE/out.extxyz",
        "select BOTH frames.extxyz NOWHERE/out.extxyz --k 3",
        "data labelled.npz --root NOWHERE/root",
        "data labelled.npz --plot NOWHERE/picture.png",
        "evaluate MODEL labelled.npz --plot NOWHERE/picture.png",
        "evaluate BOTH labelled.npz --calibrate NOWHERE/ensemble.json",
        "plot MODEL --out NOWHERE/picture.png",
    ],
)
def test_a_folder_that_takes_no_files_is_told_by_name(models, here, capsys, verb):
    words = verb.replace("NOWHERE", str(NOWHERE)).replace("BOTH", ",".join(models))
    assert cli.main([*words.replace("MODEL", models[0]).split(), "--quiet"]) == 2
    (line,) = said(capsys)
    assert str(NOWHERE) in line
    assert "ermi" in line  # permitted, permission


def test_a_second_dynamics_into_one_trajectory_is_refused(model, here, capsys):
    assert cli.main(["md", model, "in.xyz", "out.extxyz", *MD]) == 0
    before = Path("out.extxyz").read_bytes()
    with TrajectoryFile("out.extxyz", overwrite=True):
        for option in ("--resume", "--overwrite"):
            assert cli.main(["md", model, "in.xyz", "out.extxyz", *MD, option]) == 2
            (line,) = said(capsys)
            assert line.startswith("pyg-schnet: out.extxyz: another process is writing to it")
    assert Path("out.extxyz").read_bytes() == before
    assert cli.main(["md", model, "in.xyz", "out.extxyz", *MD, "--overwrite"]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("verb", ["md", "md side by side", "relax"])
def test_a_start_that_is_not_finite_is_refused(model, here, capsys, verb, value):
    atoms = molecule("CH3CH2OH")
    atoms.positions[4, 1] = value
    ase.io.write("wrong.traj", [atoms, atoms])
    verb, *several = verb.split(maxsplit=1)
    command = [verb, model, "wrong.traj", "out.extxyz", "--index", ":" if several else "0", "--quiet"]
    assert cli.main(command) == 2
    assert "finite" in said(capsys)[-1]
    assert not Path("out.extxyz").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["R", "E", "F"])
@pytest.mark.parametrize("verb", ["data labelled.npz --root root", "evaluate MODEL labelled.npz"])
def test_data_that_are_not_finite_are_told_with_their_frame(model, here, capsys, verb, key, value):
    with np.load("labelled.npz") as file:
        arrays = dict(file)
    arrays[key][7].flat[0] = value
    np.savez("labelled.npz", **arrays)
    assert cli.main([*verb.replace("MODEL", model).split(), "--quiet"]) == 2
    (line,) = said(capsys)
    assert "labelled.npz" in line
    assert "frame 7" in line
    assert not list(here.glob("root/processed/*.safetensors"))
