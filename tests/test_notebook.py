"""The notebook of the examples runs from top to bottom, on the sample."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "15_from_file_to_dynamics.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Text and pictures of the cells, after a run of seconds in a folder of its own."""
    place = tmp_path_factory.mktemp("notebook")
    (place / "examples").mkdir()
    (place / "datasets").symlink_to(ROOT / "datasets")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if "STEPS = 1500 " in cell.source)
    settings.source = settings.source.replace("STEPS = 1500 ", "STEPS = 300 ")
    before = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": place / "examples"}})
        client.execute()
    finally:
        os.environ["PATH"] = before
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output["text"] for output in found if output.output_type == "stream")
    pictures = [output for output in found if "image/png" in output.get("data", {})]
    return text, pictures, place / "examples" / "runs" / "notebook"


def test_every_step_does_what_it_says(outputs):
    text, pictures, run = outputs
    assert "Warning" not in text, text
    assert "No warnings" in text
    assert "Errors on 350 structures" in text
    assert "passed" in text
    assert re.search(r"2 ps at \d+ K, complete: runs/notebook/dynamics.extxyz", text)
    assert len(pictures) == 4
    assert (run / "dynamics.extxyz").stat().st_size > 0


def test_the_page_has_no_progress_bars(outputs):
    assert "\x1b" not in outputs[0]


def test_it_is_kept_with_what_came_out_and_without_traces_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    outputs = [cell.outputs for cell in nbformat.reads(text, 4).cells if cell.cell_type == "code"]
    assert all(outputs[2:])  # the first installs, the second names the file
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert len(text) < 600_000
