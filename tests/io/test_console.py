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
from rich.text import Text

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.io.console import out, printable, printable_errors
from pyg_schnet.potentials.checkpoint import save

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


@pytest.mark.process
@pytest.mark.parametrize("verb", VERBS)
def test_a_pipe_gets_text_without_control_characters(piped, verb):
    assert len(piped["output"][verb].strip()) > 20
    assert piped["errors"][verb] == ""
    assert all(c.isprintable() or c == "\n" for c in piped["output"][verb])


@pytest.mark.process
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


@pytest.mark.process
def test_a_terminal_has_a_bar_in_color(on_a_terminal):
    assert COLOR.search(on_a_terminal["plain"])
    assert "predicting" in on_a_terminal["plain"]


@pytest.mark.process
def test_no_color_is_respected(on_a_terminal):
    assert "predicting" in on_a_terminal["no color"]
    assert not COLOR.search(on_a_terminal["no color"])


@pytest.mark.process
def test_quiet_has_no_bar_on_a_terminal(on_a_terminal):
    last = re.split(r"verb predict\r\n", on_a_terminal["plain"])[-1]
    assert last.strip() == ""


# Sets the title, clears the screen, colors, goes back, turns the direction of writing.
COMMAND = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp"


def test_what_would_command_a_terminal_is_written_as_an_escape():
    assert printable("Å — ✓\n\t│") == "Å — ✓\n\t│"
    assert printable("\x1b[31m\r\x9b\u202e\udcff") == "\\x1b[31m\\r\\x9b\\u202e\\udcff"


def test_names_of_files_and_texts_in_them_command_no_terminal(folder, tmp_path, capsys):
    key = COMMAND.replace("\r", "")
    text = f"2\nenergy=-1.0 '{key}energy'=-2.0 title='{key}'\nO 0 0 0\nH 0 0 {{}}\n"
    path = tmp_path / f"{COMMAND}.xyz"
    path.write_text("".join(text.format(x) for x in (0.9, 1.0, 1.1)), encoding="utf-8")
    model = str(folder / "model.safetensors")
    for arguments in (["data", str(path)], ["predict", model, str(path), "none/at/all.xyz"]):
        cli.main(arguments)
    path.write_text(f"2\nenergy=-1.0 Properties={key}:R:3\nO 0 0 0\nH 0 0 1\n", encoding="utf-8")
    cli.main(["data", str(path)])
    streams = capsys.readouterr()
    for stream in streams:
        assert "gnp" in stream
        assert all(c.isprintable() or c in "\n" for c in stream)


def test_what_others_write_to_standard_error_commands_no_terminal(capsys):
    with printable_errors():
        print(COMMAND, file=sys.stderr)
    assert "\\x1b[2J" in capsys.readouterr().err


def test_colors_of_our_own_reach_a_terminal(capsys):
    terminal = type(out)(force_terminal=True, color_system="standard")
    terminal.print(Text(COMMAND, style="bold"))
    assert "\x1b[1m]0;owned\x1b[0m" in capsys.readouterr().out


def test_a_message_stays_in_its_line(tmp_path, capsys):
    assert cli.main(["data", str(tmp_path / "a\npyg-schnet: all is well")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_little_memory_is_told_in_one_line(monkeypatch, capsys):
    def run(options):
        raise MemoryError

    monkeypatch.setattr("pyg_schnet.cli.data.run", run)
    assert cli.main(["data", "a.xyz"]) == 1
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such pipes")
@pytest.mark.parametrize("json_too", [False, True])
def test_who_reads_no_more_is_no_mistake(tmp_path, json_too):
    arguments = ["data", SAMPLE, *(["--json"] if json_too else [])]
    code = f"import sys; from pyg_schnet.cli import main; sys.exit(main({arguments!r}))"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
