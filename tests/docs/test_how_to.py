"""Who follows a page of docs/how_to, line by line, gets a package that works."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "pyg_schnet").is_dir():
    pytest.skip("there is no source of the package here", allow_module_level=True)
PAGES = sorted(page for page in (ROOT / "docs" / "how_to").glob("*.md") if page.stem != "index")

_spec = importlib.util.spec_from_file_location("how_to", Path(__file__).parent / "how_to.py")
how_to = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(how_to)

of_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def run(folder: Path, *command: str) -> str:
    """Run a program in a changed copy of the source, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@of_page
def test_the_changes_of_a_page_fit_the_source(page, tmp_path):
    found = how_to.blocks(page)
    assert {block.is_change for block in found} == {True, False}
    for path in {block.path for block in found if block.is_change}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    for block in found:
        assert block.is_change or not (ROOT / block.path).exists()
        how_to.apply(block, tmp_path)
        if block.path.endswith(".py"):
            compile((tmp_path / block.path).read_text(encoding="utf-8"), block.path, "exec")


@of_page
def test_what_a_page_imports_from_the_package_exists(page):
    found = [block for block in how_to.blocks(page) if not block.is_change and block.path.endswith(".py")]
    new = {block.path.removesuffix(".py").replace("/", ".") for block in found}
    names = [
        (node.module, alias.name)
        for block in found
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom)
        and node.module.startswith("pyg_schnet.")
        and node.module not in new
        for alias in node.names
    ]
    changed = "".join(block.text for block in how_to.blocks(page) if block.is_change)
    missing = [
        (module, name)
        for module, name in names
        if not hasattr(importlib.import_module(module), name) and f" as {name}\n" not in changed
    ]
    assert names
    assert missing == []


@pytest.mark.process
@of_page
def test_the_tests_of_a_page_pass_in_the_changed_source(page, tmp_path):
    for name in ("pyg_schnet", "tests", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    found = how_to.blocks(page)
    for block in found:
        how_to.apply(block, tmp_path)
    tests = sorted({block.path for block in found if re.search(r"(^|/)test_\w+\.py$", block.path)})
    assert tests
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(tmp_path, *pytest_, *tests)
    for block in found:
        for door in re.findall(r'^\+    "(.+)": Door', block.text, flags=re.MULTILINE):
            chosen = ("-m", "not network", "-k", " and ".join(door.split()))
            run(tmp_path, *pytest_, "tests/faults/test_fuzz.py", *chosen)
    changed = sorted({block.path for block in found if block.path.endswith(".py")})
    for command in (("ruff", "format", "--check"), ("ruff", "check")):
        if shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"):
            run(tmp_path, *command, *changed)
