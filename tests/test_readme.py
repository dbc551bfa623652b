"""README and documentation keep their promises."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ase.io import read, write

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.transforms import to_ase

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "datasets/md17/ethanol_gfn2_xtb.npz"
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/simulate").glob("*.md")]


def marked_blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"<!-- run by tests/test_readme.py -->\n```python\n(.*?)```", text, flags=re.DOTALL)


def run(code):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    torch.manual_seed(0)
    (tmp_path / "RUN").mkdir()
    save(Potential(SchNet(8, 8, 1, 12, 4.0)), tmp_path / "RUN" / "model.safetensors")
    monkeypatch.chdir(tmp_path)


@pytest.mark.process
def test_the_functions_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [to_ase(frame) for frame in AtomsDataset(path=SAMPLE)[:60]]
    write("frames.extxyz", frames)
    write("start.xyz", frames[0])
    steps = 'out="RUN", trainer={"max_steps": 3, "val_every": 3}'
    code = (
        marked_blocks()[0]
        .replace('out="RUN"', steps)
        .replace("temperature=300", "temperature=300, duration=0.01")
    )
    assert run(code)["run"].potential.scale > 0
    assert len(read("path.extxyz", ":")) > 1


def test_the_layer_runs():
    assert run(marked_blocks()[1])["out"].shape == (4, 16)


def test_the_data_set_is_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    out = run(marked_blocks()[2])["out"]
    assert out["energy"].shape == (32,)
    assert out["forces"].shape == (288, 3)


def test_the_calculator_relaxes(untrained, capsys):
    atoms = run(marked_blocks()[3].replace("run(fmax=0.01)", "run(fmax=0.01, steps=2)"))["atoms"]
    assert len(atoms) == 9
    assert "BFGS:    2" in capsys.readouterr().out


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
        links = [link for link in links if not link.startswith("gallery/")]  # made of examples/ by Sphinx
        broken += [(page.name, link) for link in links if not (page.parent / link).exists()]
    assert broken == []


def code_of_pages():
    """Return all code of README and documentation, as one text."""
    fence = r"^(`{3,})(?!\{(?:glossary|toctree))[^\n]*\n(.*?)^\1$"
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    return "\n".join(body for text in texts for _, body in re.findall(fence, text, re.DOTALL | re.MULTILINE))


def test_every_name_that_a_page_imports_exists():
    lines = re.findall(r"^from (pyg_schnet[\w.]*) import ([\w, ]+)", code_of_pages(), re.MULTILINE)
    assert len(lines) > 10
    for module, names in lines:
        for name in re.split(r",\s*", names.strip()):
            assert hasattr(importlib.import_module(module), name.split()[0]), (module, name)


def test_every_option_of_a_command_on_a_page_exists(capsys):
    lines = code_of_pages().replace("\\\n", " ").splitlines()
    lines = [line.split(" #")[0].lstrip("!$ ") for line in lines]
    commands = [line.split() for line in lines if line.startswith("pyg-schnet ")]
    used: dict[str, set[str]] = {}
    for _, verb, *words in commands:
        if not verb.startswith("--"):
            used.setdefault(verb, set()).update(word for word in words if word.startswith("--"))
    assert {*used} > {"train", "check", "plot", "md", "data", "report"}
    for verb, options in used.items():
        with pytest.raises(SystemExit) as end:
            cli.main([verb, "--help"])
        assert end.value.code == 0
        assert options <= {*re.findall(r"--[\w.]+", capsys.readouterr().out)}, verb


def test_every_make_target_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("`make\n", "`make ")
    named = {*re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)}
    targets = {
        *re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert {"demo", "test", "docs"} <= named <= targets


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
