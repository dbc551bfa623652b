"""Pictures of a training run and of a potential's errors."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pyg_schnet.evaluation import Evaluation
from pyg_schnet.units import kcal_per_mol

_ENERGY, _FORCES, _GRID = (
    "#0072B2",
    "#D55E00",
    "#d9d9d9",
)  # Okabe and Ito's, safe for the colour-blind
# The usual colours of the elements, darkened to be seen on white.
_ELEMENTS = {1: ("H", "#999999"), 6: ("C", "#222222"), 7: ("N", "#0072B2"), 8: ("O", "#D55E00")}


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
    curves = [("val_energy_mae_eV", "energy (meV)", _ENERGY, "o")]
    if "val_forces_mae_eV_per_A" in rows[0]:
        curves.append(("val_forces_mae_eV_per_A", "forces (meV/Å)", _FORCES, "s"))
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
    axes.set_ylabel("mean absolute error (meV, meV/Å)")
    axes.set_title("Validation, averaged weights", fontsize=10)
    axes.margins(x=0.1)  # room for the last values
    axes.legend(frameon=False, fontsize=9)
    _tidy(axes)
    figure.savefig(path, dpi=200)


def plot_parity(evaluation: Evaluation, path: str | os.PathLike, labels: str = "reference") -> None:
    """Draw predictions over labels, energies and forces.

    Args:
        evaluation: Of a potential on a data set.
        path: The picture.
        labels: What the labels are called on the axis, for instance "GFN2-xTB".
    """
    panels = 1 if evaluation.forces is None else 2
    figure = Figure(figsize=(3.5 * panels, 3.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    reference, prediction = (evaluation.energy - evaluation.energy[0].mean()).numpy()
    axes[0].plot(reference, prediction, ".", color=_ENERGY, markersize=3, alpha=0.7, markeredgewidth=0)
    _parity_axes(axes[0], "energy − mean", "eV", labels)
    _note_errors(axes[0], evaluation.energy_mae, evaluation.energy_rmse, "meV", "kcal/mol")
    if evaluation.forces is not None:
        for z in evaluation.z.unique().tolist():
            name, color = _ELEMENTS.get(z, (f"Z = {z}", "#CC79A7"))
            reference, prediction = evaluation.forces[:, evaluation.z == z].flatten(1).numpy()
            axes[1].plot(
                reference,
                prediction,
                ".",
                color=color,
                markersize=2,
                alpha=0.5,
                markeredgewidth=0,
                label=name,
            )
        _parity_axes(axes[1], "force component", "eV/Å", labels)
        assert evaluation.forces_mae is not None
        assert evaluation.forces_rmse is not None
        _note_errors(axes[1], evaluation.forces_mae, evaluation.forces_rmse, "meV/Å", "kcal/mol/Å")
        legend = axes[1].legend(frameon=False, fontsize=8, loc="lower right", markerscale=4)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    figure.savefig(path, dpi=200)


def _parity_axes(axes: Axes, quantity: str, unit: str, labels: str) -> None:
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color="#888888", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{labels} {quantity} ({unit})")
    axes.set_ylabel(f"SchNet {quantity} ({unit})")
    _tidy(axes)


def _note_errors(axes: Axes, mae: float, rmse: float, unit: str, chemists_unit: str) -> None:
    text = (
        f"MAE {mae * 1e3:.1f} {unit} ({mae / kcal_per_mol:.3f} {chemists_unit})\n"
        f"RMSE {rmse * 1e3:.1f} {unit} ({rmse / kcal_per_mol:.3f} {chemists_unit})"
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=7.5)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
