"""Common style of all pictures: sizes, fonts, colors and axes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

from ase.data import chemical_symbols
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pyg_schnet.io.atomic import atomic_write

COLUMN, PAGE = 3.3, 7.0  # inches: one column of a journal, and two
_SCREEN = 150  # dots per inch of clouds of points and images in a page
SMALL = 7  # points, for numbers and legends; labels are one point larger

# Okabe and Ito's colors, safe for the color-blind.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
GRAY = "#888888"  # readable on white and on black
# One color each for text with axes, grid and page, which occur nowhere else: `svg` exchanges them.
INK, GRID, BACKGROUND = "#222221", "#d9d9d8", "#fffffe"
# The usual colors of the elements, darkened for white paper.
ELEMENTS = {1: ("H", "#999999"), 6: ("C", INK), 7: ("N", BLUE), 8: ("O", VERMILION)}
_OTHERS = (GREEN, ORANGE, PURPLE, SKY)  # elements without a usual color
DIVERGING = "RdBu_r"  # blue below zero, white at it, red above

_PAPER: dict[Any, Any] = {
    "figure.facecolor": BACKGROUND,
    "axes.facecolor": BACKGROUND,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": SMALL,
    "axes.labelsize": SMALL + 1,
    "axes.titlesize": SMALL + 1,
    "axes.linewidth": 0.6,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.4,
    "legend.borderaxespad": 0.2,
    "pdf.fonttype": 42,  # text that editors can change
    "svg.fonttype": "none",
    "savefig.dpi": 300,
}


def paper() -> AbstractContextManager[None]:
    """Return a context with settings for print: fonts of 7 and 8 points at the figure's size, 300 dpi."""
    return rc_context(_PAPER)


def finish(figure: Figure, path: str | os.PathLike | None) -> Figure:
    """Write a figure atomically if there is a path, without the date that SVG and PDF store otherwise."""
    if path is not None:
        dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        with paper(), atomic_write(path) as part:
            figure.savefig(part, metadata=dates.get(part.suffix.lower()))
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element for a page, light or dark.

    The background is transparent. Text, axes and other ink have the page's ``color``; the grid and the gaps
    between atoms and squares have the CSS variables ``--grid`` and ``--background``, if they are defined.
    """
    file = io.StringIO()
    with paper():
        figure.savefig(file, format="svg", transparent=True, dpi=_SCREEN, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for color, name in ((INK, "currentColor"), (GRID, f"var(--grid, {GRID})")):
        text = text.replace(color, name)
    return text.replace(BACKGROUND, f"var(--background, {BACKGROUND})")


def compact(figure: Figure) -> None:
    """Reduce the space between panels."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01)


def element_styles(elements: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Return symbol and color by atomic number; elements without a usual color cycle through others."""
    others = cycle(_OTHERS)
    return {z: ELEMENTS.get(z) or (chemical_symbols[z], next(others)) for z in sorted(set(elements))}


def readable_on(color: Any) -> str:
    """Return black or white, whichever has more contrast with a color (red, green, blue)."""
    red, green, blue = color[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def letter(axes: Axes, text: str) -> None:
    """Label a panel with a letter above its corner."""
    axes.set_title(text, loc="left", fontsize=SMALL + 2, fontweight="bold")


def tidy(axes: Axes) -> None:
    """Remove the upper and right frame, and add a grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
