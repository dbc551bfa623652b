"""The picture of a potential's errors: predictions over labels."""

from __future__ import annotations

import os

import torch
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.evaluation import Evaluation
from pyg_schnet.plots.style import BLUE, ELEMENTS, PURPLE, VERMILION, tidy
from pyg_schnet.units import GPa, kcal_per_mol


def plot_parity(evaluation: Evaluation, path: str | os.PathLike, labels: str = "reference") -> None:
    """Draw predictions over labels: energies, forces and stresses.

    Args:
        evaluation: Of a potential on a data set.
        path: The picture.
        labels: What the labels are called on the axis, for instance "GFN2-xTB".
    """
    panels = 1 + (evaluation.forces is not None) + (evaluation.stress is not None)
    figure = Figure(figsize=(3.5 * panels, 3.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    reference, prediction = (evaluation.energy - evaluation.energy[0].mean()).numpy()
    axes[0].plot(reference, prediction, ".", color=BLUE, markersize=3, alpha=0.7, markeredgewidth=0)
    _parity_axes(axes[0], "energy − mean", "eV", labels)
    _note_errors(axes[0], evaluation.energy_mae, evaluation.energy_rmse, "meV", "kcal/mol")
    if evaluation.forces is not None:
        for z in evaluation.z.unique().tolist():
            name, color = ELEMENTS.get(z, (chemical_symbols[z], PURPLE))
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
    if evaluation.stress is not None:
        assert evaluation.stress_mae is not None
        assert evaluation.stress_rmse is not None
        _draw_stress(axes[-1], evaluation.stress / GPa, labels)
        text = f"MAE {evaluation.stress_mae / GPa:.3f} GPa\nRMSE {evaluation.stress_rmse / GPa:.3f} GPa"
        axes[-1].text(0.04, 0.96, text, transform=axes[-1].transAxes, va="top", fontsize=7.5)
    figure.savefig(path, dpi=200)


def _draw_stress(axes: Axes, stress: Tensor, labels: str) -> None:
    diagonal = torch.eye(3, dtype=torch.bool)
    for name, color, which in (("normal", BLUE, diagonal), ("shear", VERMILION, ~diagonal)):
        reference, prediction = stress[:, :, which].flatten(1).numpy()
        axes.plot(
            reference, prediction, ".", color=color, markersize=3, alpha=0.7, markeredgewidth=0, label=name
        )
    _parity_axes(axes, "stress", "GPa", labels)
    axes.legend(frameon=False, fontsize=8, loc="lower right", markerscale=3)


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
    tidy(axes)


def _note_errors(axes: Axes, mae: float, rmse: float, unit: str, chemists_unit: str) -> None:
    text = (
        f"MAE {mae * 1e3:.1f} {unit} ({mae / kcal_per_mol:.3f} {chemists_unit})\n"
        f"RMSE {rmse * 1e3:.1f} {unit} ({rmse / kcal_per_mol:.3f} {chemists_unit})"
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=7.5)
