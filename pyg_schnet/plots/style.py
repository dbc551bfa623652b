"""What all pictures have in common: colors and axes."""

from __future__ import annotations

from matplotlib.axes import Axes

# Okabe and Ito's colors, safe for the color-blind.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
_GRID = "#d9d9d9"
# The usual colors of the elements, darkened to be seen on white.
ELEMENTS = {1: ("H", "#999999"), 6: ("C", "#222222"), 7: ("N", BLUE), 8: ("O", VERMILION)}


def tidy(axes: Axes) -> None:
    """Take away frames that inform of nothing; add a grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
