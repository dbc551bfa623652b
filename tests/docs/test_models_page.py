"""The page of pretrained models has a row for each card, with its errors in two units."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CARDS = sorted((DOCS.parent / "models" / "pyg_schnet_models").glob("*.toml"))


@pytest.fixture(scope="module")
def pretrained():
    """Load `docs/_ext/pretrained.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("pretrained", DOCS / "_ext" / "pretrained.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_a_row_for_each_model(pretrained):
    rows = pretrained.write_table(CARDS).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [path.stem for path in CARDS]


def test_errors_are_shown_in_both_units(pretrained):
    (row,) = (row for row in pretrained.write_table(CARDS).splitlines() if "`rmd17-ethanol`" in row)
    assert "energy: 1.71 meV (0.0394 kcal/mol); forces: 10.4 meV/Å (0.239 kcal/mol/Å)" in row
