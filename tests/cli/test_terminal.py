"""Pipes get plain text; terminals get bars, and colors only where NO_COLOR is not set."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch
import yaml
from ase.build import molecule

from pyg_schnet import Potential, SchNet
from pyg_schnet.checkpoint import save

ROOT = Path(__file__).parents[2]
SAMPLE = str(ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz")
RECIPE = {
    "data": {"path": SAMPLE, "n_train": 32, "n_val": 8},
    "model": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "cutoff": 4.0},
    "trainer": {"max_steps": 2, "val_every": 1},
}
VERBS = {
    "train": ["recipe.yaml", "--out", "run"],
    "evaluate": ["model.safetensors,other.safetensors", SAMPLE],
    "predict": ["model.safetensors", "in.xyz", "predicted.xyz"],
    "relax": ["model.safetensors", "in.xyz", "relaxed.xyz", "--steps", "3"],
    "md": ["model.safetensors", "in.xyz", "path.traj", "--duration", "0.002"],
    "select": ["model.safetensors,other.safetensors", "in.xyz", "chosen.xyz", "--k", "2"],
    "data": [SAMPLE],
}
# One process for all verbs: to import torch takes longer than they do. Lines tell where each begins.
SCRIPT = """
import json, sys
from pyg_schnet import cli
for verb, *arguments in json.loads(sys.argv[1]):
    for stream in (sys.stdout, sys.stderr):
        print("verb", verb, file=stream, flush=True)
    cli.main([verb, *arguments])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    for seed, name in enumerate(("model", "other")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, num_gaussians=8, cutoff=4.0)
        save(Potential(model, scale=0.1, elements=[1, 6, 8]), folder / f"{name}.safetensors")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    ase.io.write(folder / "in.xyz", [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4")])
    return folder


def command(verbs):
    return [sys.executable, "-c", SCRIPT, json.dumps(verbs)]


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", **changes}


def sections(text: str) -> dict[str, str]:
    """Give what each verb said."""
    parts = re.split(r"^verb (\w+)\r?\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def piped(folder):
    run = subprocess.run(
        command([[verb, *arguments] for verb, arguments in VERBS.items()]),
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=True,
    )
    streams = (sections(stream.decode()) for stream in (run.stdout, run.stderr))
    return {"output": next(streams), "errors": next(streams)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_pipe_gets_text_without_control_characters(piped, verb):
    assert len(piped["output"][verb].strip()) > 20
    assert piped["errors"][verb] == ""
    assert all(c.isprintable() or c == "\n" for c in piped["output"][verb])


@pytest.mark.parametrize("verb", ["evaluate", "relax", "data"])
def test_tables_in_a_pipe_are_aligned_and_fit_80_columns(piped, verb):
    lines = piped["output"][verb].replace(SAMPLE, "").splitlines()
    table = [line for line in lines if line.startswith(("┃", "│"))]
    assert max(map(len, lines), default=0) <= 80 or verb == "relax"  # whose last line is not broken
    assert len({len(line) for line in table}) <= 2  # two tables of evaluate
    assert len(table) > 3 or verb == "data"


@pytest.fixture(scope="module")
def on_a_terminal(folder):
    """What a terminal gets, with colors and without."""
    found = {}
    for name, changes in {"plain": {}, "no color": {"NO_COLOR": "1"}}.items():
        screen, inside = pty.openpty()
        verbs = [["predict", *VERBS["predict"], "--overwrite"], ["predict", *VERBS["predict"][:2], "q.xyz"]]
        verbs = [verbs[0], [*verbs[1], "--quiet", "--overwrite"]]
        process = subprocess.Popen(
            command(verbs), cwd=folder, env=environment(**changes), stdout=inside, stderr=inside
        )
        os.close(inside)
        text = b""
        while True:
            try:
                part = os.read(screen, 2**16)
            except OSError:  # Linux's way to tell the end
                break
            if not part:
                break
            text += part
        assert process.wait() == 0
        os.close(screen)
        found[name] = text.decode()
    return found


COLOR = re.compile(r"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[0-9;]*m")


def test_a_terminal_has_a_bar_in_color(on_a_terminal):
    assert COLOR.search(on_a_terminal["plain"])
    assert "predicting" in on_a_terminal["plain"]


def test_no_color_is_respected(on_a_terminal):
    assert "predicting" in on_a_terminal["no color"]
    assert not COLOR.search(on_a_terminal["no color"])


def test_quiet_has_no_bar_on_a_terminal(on_a_terminal):
    last = re.split(r"verb predict\r\n", on_a_terminal["plain"])[-1]
    assert last.strip() == ""
