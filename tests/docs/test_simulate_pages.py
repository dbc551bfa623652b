"""Pages of ``docs/simulate/``: their scripts run, with barely trained models."""

import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pyg_schnet

ROOT = Path(__file__).parents[2]
MARK = r"<!-- run by tests/docs/test_simulate_pages.py(?:: (\w+))? -->\n```python\n(.*?)```"


def scripts() -> list:
    """Return the marked scripts, each with the library that it needs."""
    found = []
    for page in sorted((ROOT / "docs" / "simulate").glob("*.md")):
        for number, (library, text) in enumerate(
            re.findall(MARK, page.read_text(encoding="utf-8"), re.DOTALL)
        ):
            found.append(pytest.param(library, text, id=f"{page.stem}-{number}"))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulate")
    cutoff = {
        "cutoff": 5.0,
        "envelope": "polynomial",
        "num_gaussians": 50,
        "last_center": None,
        "gamma": None,
    }
    for name, seed, model in (("RUN", 0, {}), ("OTHER", 1, {}), ("RUN_WITH_CUTOFF", 0, cutoff)):
        pyg_schnet.train(
            ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz",
            out=folder / name,
            model=model,
            data={"n_train": 200, "n_val": 20},
            trainer={"max_steps": 150, "val_every": 75, "threads": 1, "seed": seed},
        )
    return folder


@pytest.mark.process
@pytest.mark.parametrize(("library", "text"), scripts())
def test_a_script_runs(trained, tmp_path, monkeypatch, library, text):
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.copy(ROOT / "examples" / "ethanol_opls.xml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(text, encoding="utf-8")
    if library == "ipi":  # which keeps threads, handlers of signals and open files
        subprocess.run([sys.executable, "script.py"], check=True)
    else:
        runpy.run_path(str(tmp_path / "script.py"))


def test_every_engine_has_a_script():
    assert {case.id.partition("-")[0] for case in scripts()} == {
        "ase",
        "batched",
        "ipi",
        "lammps",
        "openmm",
        "openmm_ml",
        "torchsim",
    }


def test_every_script_of_a_page_is_run():
    for page in (ROOT / "docs" / "simulate").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert text.count("```python") == len(re.findall(MARK, text, re.DOTALL)), page.name
