"""Picture of a training run: validation errors, training loss and learning rate over the steps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from pyg_schnet.plots.style import BLUE, COLUMN, GRAY, GREEN, PURPLE, SMALL, VERMILION, paper, save, tidy

_HEIGHTS = {"errors": 2.2, "loss": 1.1, "lr": 0.8}  # inches
_ERRORS = (
    ("val_energy_mae_eV", "energy (meV)", BLUE, "o"),
    ("val_forces_mae_eV_per_A", "forces (meV/Å)", VERMILION, "s"),
    ("val_stress_mae_eV_per_A3", "stress (meV/Å³)", GREEN, "^"),
)
_MOST_MARKERS = 25  # more would merge into a thick line


def plot_learning_curve(rows: Sequence[dict[str, float]], path: str | os.PathLike) -> None:
    """Draw errors, loss and learning rate over the training steps, one journal column wide.

    From top to bottom: mean absolute validation errors with averaged weights; training loss, averaged over
    the steps since the last validation and without unit, because energies and forces enter it relative to
    their standard deviations; learning rate. Panels without data are omitted.

    Args:
        rows: Rows of ``metrics.csv``, see :class:`~pyg_schnet.training.RunDirectory`.
        path: Picture to write.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one validation, got 0")
    names = ["errors", *(name for name in ("loss", "lr") if name in rows[0])]
    heights = [_HEIGHTS[name] for name in names]
    with paper():
        figure = Figure(figsize=(COLUMN, sum(heights) + 0.2), layout="constrained")
        axes = figure.subplots(len(names), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        _draw_errors(axes[0], rows)
        for one, name in zip(axes[1:], names[1:], strict=True):
            _draw_line(one, rows, name)
        for one in axes:
            tidy(one)
        axes[-1].set_xlabel("training step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
        axes[-1].xaxis.set_major_formatter("{x:,.0f}" if rows[-1]["step"] < 1e5 else EngFormatter(sep=""))
        axes[-1].set_xlim(left=0)
        figure.align_ylabels(axes)
        save(figure, path)


def _draw_errors(axes: Axes, rows: Sequence[dict[str, float]]) -> None:
    curves = [curve for curve in _ERRORS if curve[0] in rows[0]]
    steps = [row["step"] for row in rows]
    for key, label, color, marker in curves:
        values = [row[key] * 1e3 for row in rows]
        every = -(-len(values) // _MOST_MARKERS)
        axes.plot(steps, values, color=color, marker=marker, markersize=3, markevery=every, label=label)
        axes.annotate(
            f"{values[-1]:.3g}",
            (steps[-1], values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=SMALL,
        )
    _scale(axes)
    axes.set_ylabel("validation error\n(MAE)" if len(curves) > 2 else "validation MAE\n(meV, meV/Å)")
    axes.margins(x=0.1)  # space for the last values
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "columnspacing": 1.2}
    axes.legend(**above)


def _draw_line(axes: Axes, rows: Sequence[dict[str, float]], name: str) -> None:
    label, color = {"loss": ("training loss\n(no unit)", PURPLE), "lr": ("learning\nrate", GRAY)}[name]
    axes.plot([row["step"] for row in rows], [row[name] for row in rows], color=color)
    if name == "loss":
        _scale(axes)
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel(label)


def _scale(axes: Axes) -> None:
    """Set a logarithmic scale, with a readable number of tick labels."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = high / max(low, 1e-300) > 300
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if few else (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
