"""The pages for users name all formats, checks and pictures that the package has."""

from pathlib import Path

import pytest

from pyg_schnet.checks.runner import CHECKS
from pyg_schnet.io.formats.registry import SUFFIXES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_that_is_read_is_on_the_page_of_data(suffix):
    assert f"`{suffix}`" in (DOCS / "data.md").read_text()


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_is_explained(name):
    assert f"\n| {name} |" in (DOCS / "model_quality.md").read_text()
