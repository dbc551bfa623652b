"""Figures that are looked at instead of saved: what is drawn, not its pixels."""

from pathlib import Path

import matplotlib.figure
import pytest


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """The figures in the order in which they would be saved; files are empty."""
    found = []

    def save(self, path, *args, **kwargs):
        found.append(self)
        Path(path).touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
    return found
