"""Figures that are looked at instead of saved: what is drawn, not its pixels."""

import matplotlib.figure
import pytest


@pytest.fixture
def figures(monkeypatch):
    """The figures in the order in which they would be saved; no file is written."""
    found = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, *args, **kwargs: found.append(self))
    return found
