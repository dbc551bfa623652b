"""Picture of a training run: validation errors, training loss and learning rate over the steps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from pyg_schnet.io.units import GPa
from pyg_schnet.plots.style import (
    BLUE,
    COLUMN,
    GRAY,
    GREEN,
    PAGE,
    PURPLE,
    SMALL,
    VERMILION,
    finish,
    paper,
    tidy,
)

_HEIGHT = 1.15  # inches per panel
_MOST_ROWS = 6  # in one column
_ERRORS = {  # column: label, unit in eV and Å, color, marker
    "val_energy_mae_eV": ("energy MAE\n(meV)", 1e-3, BLUE, "o"),
    "val_forces_mae_eV_per_A": ("force MAE\n(meV/Å)", 1e-3, VERMILION, "s"),
    "val_stress_mae_eV_per_A3": ("stress MAE\n(GPa)", GPa, GREEN, "^"),
}
_POWERS = {"": "", "2": "²", "3": "³"}
_COLORS = (BLUE, VERMILION, GREEN, PURPLE)  # of properties
_LINES = {"loss": ("training loss\n(no unit)", PURPLE), "lr": ("learning rate\n(no unit)", GRAY)}
_MOST_MARKERS = 25  # more would merge into a thick line


def plot_learning_curve(rows: Sequence[dict[str, float]], path: str | os.PathLike | None = None) -> Figure:
    """Draw errors, loss and learning rate over the training steps.

    From top to bottom: mean absolute validation errors (MAE) of energies per structure, force components and
    stress components, and of properties, with averaged weights; training loss, averaged over the steps since
    the last validation and without unit, because errors enter it relative to the spread of the labels;
    learning rate. The lowest error of each panel is labeled. Panels without data are omitted. One journal
    column wide; two for more than six panels, in two columns.

    Args:
        rows: Rows of ``metrics.csv``, see :class:`~pyg_schnet.training.RunDirectory`.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one validation, got 0")
    errors = _ERRORS | _property_errors(rows[0])
    names = [name for name in (*errors, *_LINES) if name in rows[0]]
    with paper():
        columns = 1 if len(names) <= _MOST_ROWS else 2
        height = -(-len(names) // columns)
        size = (COLUMN if columns == 1 else PAGE, _HEIGHT * height + 0.25)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(height, columns, sharex=True, squeeze=False).T.flatten()
        for one, name in zip(axes, names, strict=False):
            _draw_error(one, rows, name, errors[name]) if name in errors else _draw_line(one, rows, name)
            tidy(one)
        for unused in axes[len(names) :]:
            unused.remove()
        for last in (axes[height - 1], axes[len(names) - 1]):
            last.set_xlabel("training step")
            last.tick_params(labelbottom=True)
        axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
        axes[0].xaxis.set_major_formatter("{x:,.0f}" if rows[-1]["step"] < 1e5 else EngFormatter(sep=""))
        axes[0].set_xlim(0, 1.06 * rows[-1]["step"])
        figure.align_ylabels(axes[: len(names)])
        return finish(figure, path)


def _property_errors(row: dict[str, float]) -> dict[str, tuple[str, float, str, str]]:
    """Return label, unit, color and marker of the errors of properties, by column."""
    found = {}
    for column in row:
        if (own := property_of(column)) is not None:
            name, unit = own
            label = f"{name} MAE\n({unit})" if unit else f"{name} MAE"
            found[column] = label, 1.0, _COLORS[len(found) % len(_COLORS)], "o"
    return found


def property_of(column: str) -> tuple[str, str] | None:
    """Return name and unit of the property whose mean absolute error a column of ``metrics.csv`` has.

    Args:
        column: Name of the column, such as ``"val_gap_mae_eV"``.

    Returns:
        ``None`` for other columns.
    """
    name, found, unit = column.removeprefix("val_").partition("_mae")
    if not column.startswith("val_") or not found or column in _ERRORS:
        return None
    unit = unit.removeprefix("_").replace("_per_", "/")
    return name, re.sub(r"\bA([23]?)\b", lambda match: f"Å{_POWERS[match[1]]}", unit)


def _draw_error(
    axes: Axes, rows: Sequence[dict[str, float]], name: str, look: tuple[str, float, str, str]
) -> None:
    label, unit, color, marker = look
    steps, values = [row["step"] for row in rows], [row[name] / unit for row in rows]
    every = -(-len(values) // _MOST_MARKERS)
    axes.plot(steps, values, color=color, marker=marker, markersize=3, markevery=every)
    _scale(axes, space=0.25)
    best = min(range(len(values)), key=values.__getitem__)
    axes.annotate(
        f"{values[best]:.3g}",
        (steps[best], values[best]),
        xytext=(0, -4),  # below the curve, which falls
        textcoords="offset points",
        ha="center",
        va="top",
        color=color,
        fontsize=SMALL,
    )
    axes.set_ylabel(label)


def _draw_line(axes: Axes, rows: Sequence[dict[str, float]], name: str) -> None:
    label, color = _LINES[name]
    marker = "." if len(rows) == 1 else ""
    axes.plot([row["step"] for row in rows], [row[name] for row in rows], color=color, marker=marker)
    if name == "loss":
        _scale(axes)
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel(label)


def _scale(axes: Axes, space: float = 0.0) -> None:
    """Set a logarithmic scale of at least a factor of two, with few tick labels and space below the data."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 2 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 2**0.5, middle * 2**0.5
    low *= (low / high) ** space
    axes.set_ylim(low, high)
    ratio = high / max(low, 1e-300)
    subs = (1,) if ratio > 100 else (1, 3) if ratio > 30 else (1, 2, 5) if ratio > 3 else range(1, 10)
    axes.yaxis.set_major_locator(LogLocator(subs=tuple(subs), numticks=6))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}" if y < 1e5 else f"{y:.0e}")
    axes.yaxis.set_minor_locator(NullLocator())
