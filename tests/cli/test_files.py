"""What verbs write takes no other place than that of a file that may be replaced."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.io.locks import locked
from pyg_schnet.potentials import checkpoint

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12, "cutoff": 4.0}
SHORT = "--duration 0.001 --closest null --max_force null"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints of random potentials."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        for name in "ab":
            torch.manual_seed(ord(name))
            potential = Potential(SchNet(**TINY), scale=0.1, elements=[1, 6, 8])
            checkpoint.save(potential, folder / f"{name}.safetensors")
    return [folder / "a.safetensors", folder / "b.safetensors"]


@pytest.fixture
def here(tmp_path, monkeypatch, models):
    """A folder with two checkpoints, a structure, some more, and labelled ones."""
    monkeypatch.chdir(tmp_path)
    for model in models:
        Path(model.name).write_bytes(model.read_bytes())
    ase.io.write("in.xyz", molecule("CH3CH2OH"))
    with np.load(SAMPLE) as file:
        arrays = {key: file[key][:20] for key in "REF"} | {"z": file["z"]}
    np.savez("labelled.npz", **arrays)
    ase.io.write("frames.extxyz", [ase.Atoms(arrays["z"], pos) for pos in arrays["R"]])
    return tmp_path


def fails(capsys, command: str) -> str:
    """The only line that a command writes, to standard error."""
    capsys.readouterr()
    words = command.replace("MODEL", "a.safetensors").replace("BOTH", "a.safetensors,b.safetensors")
    assert cli.main([*words.split(), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("pyg-schnet: ")


# Commands that write OUT, and names of OUT.
WRITERS = {
    "predict MODEL in.xyz OUT --overwrite": ("results", "out.extxyz", "out.traj"),
    "predict MODEL in.xyz OUT --resume": ("results", "out.extxyz"),
    "predict MODEL in.xyz OUT": ("results",),
    "relax MODEL in.xyz OUT --overwrite --steps 1": ("results", "out.extxyz"),
    "relax MODEL in.xyz new.extxyz --steps 1 --overwrite --trajectory OUT": ("path.traj", "path.extxyz"),
    f"md MODEL in.xyz OUT --overwrite {SHORT}": (
        "out.traj",
        "out.extxyz",
        "out.pdb",
        "out.bundle",
        "results",
    ),
    f"md MODEL in.xyz OUT --resume {SHORT}": ("out.traj", "results"),
    f"md MODEL in.xyz new.traj --overwrite --log OUT {SHORT}": ("log.csv",),
    f"md MODEL frames.extxyz OUT --overwrite --index :2 {SHORT}": ("out.traj",),
    "select BOTH frames.extxyz OUT --k 2 --overwrite": ("results", "out.extxyz"),
    "evaluate BOTH labelled.npz --calibrate OUT --overwrite": ("x.json",),
    "evaluate MODEL labelled.npz --plot OUT": ("x.png",),
    "evaluate BOTH labelled.npz --plot_calibration OUT": ("x.png",),
    "data labelled.npz --plot OUT": ("x.png",),
    "plot MODEL --only elements --out . --overwrite": ("elements.png",),
}
CASES = [(command, out) for command, outs in WRITERS.items() for out in outs]


@pytest.mark.parametrize(("command", "out"), CASES)
def test_a_folder_is_never_replaced(here, capsys, command, out):
    own = Path(out) / "thesis.tex"
    own.parent.mkdir()
    own.write_text("years of work")
    assert f"{out}: is a folder" in fails(capsys, command.replace("OUT", out))
    assert own.read_text() == "years of work"


@pytest.mark.parametrize(("command", "out"), [case for case in CASES if case[1] != "results"])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_written_where_a_link_leads(here, capsys, command, out, exists):
    (here / "elsewhere").mkdir()
    target = here / "elsewhere" / "precious"
    if exists:
        target.write_text("years of work")
    Path(out).symlink_to(target)
    assert f"{out}: is a link" in fails(capsys, command.replace("OUT", out))
    assert [path.read_text() for path in (here / "elsewhere").iterdir()] == ["years of work"] * exists


@pytest.mark.parametrize("out", ["out.traj", "out.extxyz", "out.pdb"])
def test_what_has_another_name_stays_under_that_name(here, out):
    Path("precious").write_text("years of work")
    Path(out).hardlink_to("precious")
    arguments = ["in.xyz", out, "--overwrite", "--quiet"]
    assert cli.main(["md", "a.safetensors", *arguments, *SHORT.split()]) == 0
    assert Path("precious").read_text() == "years of work"
    assert len(ase.io.read(out, ":")) == 1


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (f"md MODEL in.xyz out.traj --overwrite --log MODEL {SHORT}", ("MODEL", "--log")),
        (f"md BOTH in.xyz out.traj --overwrite --log b.safetensors {SHORT}", ("MODEL", "--log")),
        (f"md MODEL in.xyz out.traj --overwrite --log out.traj {SHORT}", ("OUT", "--log")),
        (f"md MODEL in.xyz out.traj --overwrite --log out.traj.restart {SHORT}", ("OUT.restart", "--log")),
        (f"md MODEL in.xyz out.pdb --overwrite --log out.pdb.extxyz {SHORT}", ("OUT.extxyz", "--log")),
        (f"md MODEL in.xyz ./sub/../in.xyz --overwrite {SHORT}", ("IN", "OUT")),
        ("predict MODEL in.xyz in.xyz --overwrite", ("IN", "OUT")),
        ("predict MODEL o.xyz.partial o.xyz --overwrite", ("IN", "the partial results of OUT")),
        ("predict MODEL o.xyz.part.extxyz o.xyz --overwrite", ("IN", "OUT.part.extxyz")),
        ("relax MODEL in.xyz out.xyz --overwrite --trajectory out.xyz", ("OUT", "--trajectory")),
        ("select BOTH frames.extxyz frames.extxyz --overwrite", ("IN", "OUT")),
        ("evaluate e.json labelled.npz --calibrate e.json --overwrite", ("MODEL", "--calibrate")),
        ("evaluate BOTH f.json --calibrate f.json --overwrite", ("FILE", "--calibrate")),
        (
            "evaluate BOTH labelled.npz --plot x.png --plot_calibration x.png",
            ("--plot", "--plot_calibration"),
        ),
    ],
)
def test_no_output_is_another_file_of_the_command(here, capsys, command, names):
    Path("sub").mkdir()
    for name in ("o.xyz.partial", "o.xyz.part.extxyz"):
        Path(name).write_bytes(Path("in.xyz").read_bytes())
    Path("f.json").write_text("[]")
    arguments = ["labelled.npz", "--calibrate", "e.json", "--quiet"]
    assert cli.main(["evaluate", "a.safetensors,b.safetensors", *arguments]) == 0
    before = {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}
    line = fails(capsys, command)
    assert f"`{names[0]}` and `{names[1]}` must be different files" in line
    assert all(Path(name).read_bytes() == content for name, content in before.items())


def test_a_checkpoint_that_the_command_does_not_use_is_no_log_either(here, capsys):
    before = Path("b.safetensors").read_bytes()
    line = fails(capsys, f"md MODEL in.xyz out.traj --overwrite --log b.safetensors {SHORT}")
    assert "b.safetensors: is a checkpoint" in line
    assert Path("b.safetensors").read_bytes() == before


def test_overwriting_a_trajectory_takes_no_log_of_another_run(here, capsys):
    arguments = ["md", "a.safetensors", "in.xyz"]
    assert cli.main([*arguments, "x.traj", "--quiet", *SHORT.split()]) == 0
    before = Path("x.csv").read_bytes()
    assert "x.csv: exists" in fails(capsys, f"md MODEL in.xyz x.extxyz --overwrite {SHORT}")
    assert Path("x.csv").read_bytes() == before
    assert cli.main([*arguments, "x.traj", "--quiet", "--overwrite", *SHORT.split()]) == 0


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("select BOTH frames.extxyz OUT --k 2", "out.extxyz"),
        ("evaluate BOTH labelled.npz --calibrate OUT", "x.json"),
        ("evaluate MODEL labelled.npz --plot OUT", "x.png"),
        (f"md MODEL in.xyz new.traj --log OUT {SHORT}", "log.csv"),
        (f"md MODEL in.xyz x.extxyz {SHORT}", "x.csv"),  # the log of x.traj, too
        ("relax MODEL in.xyz new.extxyz --steps 1 --trajectory OUT", "path.traj"),
    ],
)
def test_of_two_that_write_one_file_one_is_refused(here, capsys, command, out):
    with locked(out):
        assert f"{out}: another process is writing" in fails(capsys, command.replace("OUT", out))
    assert not Path(out).exists()
