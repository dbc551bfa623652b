"""Pictures in a page follow its colors."""

import re

import numpy as np
import pytest
from ase.build import molecule
from matplotlib.figure import Figure

from pyg_schnet.plots import plot_atomic_energies, plot_learning_curve
from pyg_schnet.plots.style import BACKGROUND, GRID, INK, svg

ROWS = [{"step": step, "val_energy_mae_eV": 1 / step, "lr": 1e-3, "loss": 1.0} for step in (10, 20)]


def test_a_picture_without_a_path_is_a_figure_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(plot_learning_curve(ROWS), Figure)
    assert list(tmp_path.iterdir()) == []


def test_ink_has_the_color_of_the_page(tmp_path):
    text = svg(plot_learning_curve(ROWS))
    assert text.startswith("<svg")
    assert "<?xml" not in text
    colors = re.findall(r"(?:fill|stroke): ?(#\w+)", text)
    assert not {INK, GRID, BACKGROUND} & set(colors)
    labels = re.findall(r'<text style="([^"]*)"[^>]*>', text)
    assert labels
    assert all("fill: currentColor" in style or "fill: #0072b2" in style for style in labels)


@pytest.mark.parametrize(("energy", "color"), [(0.0, "black"), (1.0, "white")])
def test_labels_on_atoms_keep_their_contrast(energy, color):
    hydrogen = molecule("H2")
    figure = plot_atomic_energies([hydrogen], [np.array([energy, -1.0])], means={1: 0.0})
    label = next(text for text in figure.axes[0].texts if text.get_text() == "H0")
    assert label.get_color() == color
    fill = re.search(r'<text style="([^"]*)"[^>]*>H0<', svg(figure)).group(1)
    assert "currentColor" not in fill
    assert ("#ffffff" in fill) == (color == "white")
