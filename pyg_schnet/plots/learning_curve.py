"""The picture of a training run: validation errors over the steps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyg_schnet.plots.style import BLUE, GREEN, VERMILION, tidy


def plot_learning_curve(rows: Sequence[dict[str, float]], path: str | os.PathLike) -> None:
    """Draw the validation errors over the steps.

    Args:
        rows: Of ``metrics.csv``, see :class:`~pyg_schnet.training.RunDirectory`.
        path: The picture.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one validation, got 0")
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in rows]
    curves = [("val_energy_mae_eV", "energy (meV)", BLUE, "o")]
    if "val_forces_mae_eV_per_A" in rows[0]:
        curves.append(("val_forces_mae_eV_per_A", "forces (meV/Å)", VERMILION, "s"))
    if "val_stress_mae_eV_per_A3" in rows[0]:
        curves.append(("val_stress_mae_eV_per_A3", "stress (meV/Å³)", GREEN, "^"))
    for key, label, color, marker in curves:
        values = [row[key] * 1e3 for row in rows]
        axes.plot(steps, values, color=color, marker=marker, markersize=3, linewidth=1.2, label=label)
        axes.annotate(
            f"{values[-1]:.3g}",
            (steps[-1], values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=8,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training step")
    units = "" if len(curves) > 2 else " (meV, meV/Å)"  # the legend has them
    axes.set_ylabel(f"mean absolute error{units}")
    axes.set_title("Validation, averaged weights", fontsize=10)
    axes.margins(x=0.1)  # room for the last values
    axes.legend(frameon=False, fontsize=9)
    tidy(axes)
    figure.savefig(path, dpi=200)
