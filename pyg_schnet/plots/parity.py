"""Parity plot: predictions over labels, and their errors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.io.units import GPa, kcal_per_mol
from pyg_schnet.nn.readout import sum_by_molecule
from pyg_schnet.plots.style import (
    BLUE,
    COLUMN,
    GRAY,
    PAGE,
    SMALL,
    VERMILION,
    element_styles,
    finish,
    letter,
    paper,
    tidy,
)
from pyg_schnet.potentials.metrics import Evaluation

_ERRORS_ASPECT = 0.45  # height over width of the panels of errors
_MOST_COLUMNS = 3
_FAR = 10  # times the spread, beyond which values are relative to their mean
_OUTLIERS = 4  # times the 99 % quantile; points beyond are drawn at the edge


@dataclass(frozen=True)
class _Panel:
    """Labels and predictions of a quantity.

    Attributes:
        quantity: Name on the axes.
        unit: Unit of labels and predictions.
        error_unit: Unit of errors.
        scale: Unit over unit of errors.
        points: Labels and predictions, ``(2, points)``, and color by name; names are in the legend.
    """

    quantity: str
    unit: str
    error_unit: str
    scale: float
    points: dict[str, tuple[Tensor, str]]


def plot_parity(
    evaluation: Evaluation,
    path: str | os.PathLike | None = None,
    labels: str = "reference",
    atomref: Tensor | None = None,
) -> Figure:
    """Draw predictions over labels, and below the errors over labels: energies, forces, stresses, properties.

    Energies are relative to the mean of the labels, and per atom if all structures are periodic. For mixtures
    of molecules they differ mainly by the energies of their atoms, thousands of times more than by
    bonding: ``atomref`` removes these. Errors are predictions minus labels; those beyond four times the 99 %
    quantile are triangles at the edge. Two journal columns wide, one for one of them.

    Args:
        evaluation: Evaluation of a potential on a data set.
        path: Picture to write, if any.
        labels: Name of the labels on the axis, for example "GFN2-xTB".
        atomref: Energies of isolated atoms in eV by atomic number, ``(100,)``, to be subtracted; see
            :attr:`Potential.atomref <pyg_schnet.Potential>`.

    Returns:
        The figure.
    """
    panels, notes = [], []
    if evaluation.energy_mae is not None:
        panels.append(_energy_panel(evaluation, atomref))
        notes.append(_energy_note(evaluation))
    if evaluation.forces is not None:
        assert evaluation.forces_mae is not None
        assert evaluation.forces_rmse is not None
        panels.append(_force_panel(evaluation))
        in_kcal = _kcal(evaluation, "kcal/mol/Å")
        notes.append(_describe(evaluation.forces_mae, evaluation.forces_rmse, "meV/Å", in_kcal))
    if evaluation.stress is not None:
        assert evaluation.stress_mae is not None
        assert evaluation.stress_rmse is not None
        panels.append(_stress_panel(evaluation))
        mae, rmse = evaluation.stress_mae / GPa, evaluation.stress_rmse / GPa
        notes.append(f"MAE {mae:.3f} GPa\nRMSE {rmse:.3f} GPa")
    for name, own in evaluation.properties.items():
        unit = own.target.shown_unit
        panels.append(_property_panel(name, unit, own.values))
        notes.append(f"MAE {_short(own.mae)} {unit}\nRMSE {_short(own.rmse)} {unit}")
    width = COLUMN if len(panels) == 1 else PAGE
    columns = min(len(panels), _MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    height = rows * ((1 + _ERRORS_ASPECT) * (width / columns - 0.55) + 0.65)
    with paper():
        figure = Figure(figsize=(width, height), layout="compressed")
        ratios = [1, _ERRORS_ASPECT] * rows
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=ratios)
        for unused in range(len(panels), rows * columns):
            for one in axes[2 * (unused // columns) :, unused % columns]:
                one.remove()
        for number, (panel, note) in enumerate(zip(panels, notes, strict=True)):
            row, column = divmod(number, columns)
            above, below = axes[2 * row : 2 * row + 2, column]
            above.sharex(below)
            above.tick_params(labelbottom=False)
            _draw_predictions(above, panel)
            _draw_errors(below, panel)
            below.set_xlabel(f"{labels} {panel.quantity} ({panel.unit})")
            above.text(0.04, 0.97, note, transform=above.transAxes, va="top", fontsize=SMALL)
            if len(panels) > 1:
                letter(above, ascii_lowercase[number % 26])
        if rows == 1:
            figure.align_ylabels(axes)
        return finish(figure, path)


def _energy_panel(evaluation: Evaluation, atomref: Tensor | None) -> _Panel:
    (energy, unit), relative_to = evaluation.comparable_energy(), "mean"
    if atomref is not None and evaluation.sizes is not None:
        molecule = torch.arange(evaluation.n).repeat_interleave(evaluation.sizes)
        references = sum_by_molecule(atomref.cpu()[evaluation.z], molecule, evaluation.n)
        energy = energy - (references / evaluation.sizes if evaluation.periodic else references)
        relative_to = "references"
    if relative_to == "mean" or evaluation.n == 1:
        energy = energy - energy[0].mean()
    return _Panel(f"energy − {relative_to}", unit, "m" + unit, 1e3, {"": (energy, BLUE)})


def _force_panel(evaluation: Evaluation) -> _Panel:
    forces, z = cast(Tensor, evaluation.forces), evaluation.z
    points = {
        name: (forces[:, z == number].flatten(1), color)
        for number, (name, color) in element_styles(z.tolist()).items()
    }
    return _Panel("force component", "eV/Å", "meV/Å", 1e3, points)


def _stress_panel(evaluation: Evaluation) -> _Panel:
    stress, diagonal = cast(Tensor, evaluation.stress) / GPa, torch.eye(3, dtype=torch.bool)
    points = {
        "normal": (stress[:, :, diagonal].flatten(1), BLUE),
        "shear": (stress[:, :, ~diagonal].flatten(1), VERMILION),
    }
    return _Panel("stress", "GPa", "GPa", 1.0, points)


def _property_panel(name: str, unit: str, values: Tensor) -> _Panel:
    mean = values[0].mean()
    if float(mean.abs()) > _FAR * float((values[0] - mean).abs().mean()):  # as total energies
        name, values = f"{name} − mean", values - mean
    return _Panel(name, unit, unit, 1.0, {"": (values, BLUE)})


def _draw_predictions(axes: Axes, panel: _Panel) -> None:
    for name, (pair, color) in panel.points.items():
        axes.plot(*pair.numpy(), color=color, label=name, **_dots(panel))
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color=GRAY, linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(f"prediction ({panel.unit})")
    tidy(axes)
    if panel.points.keys() - {""}:
        legend = axes.legend(loc="lower right", borderpad=0.1)
        for handle in legend.legend_handles:
            cast(Line2D, handle).set(alpha=1, markersize=4)


def _draw_errors(axes: Axes, panel: _Panel) -> None:
    errors = {
        name: (pair[0], panel.scale * (pair[1] - pair[0]), color)
        for name, (pair, color) in panel.points.items()
    }
    size = torch.cat([error for _, error, _ in errors.values()]).abs().numpy()
    reach = 1.08 * max(min(float(size.max()), _OUTLIERS * float(np.quantile(size, 0.99))), 1e-9)
    for label, error, color in errors.values():
        inside = error.abs() <= reach
        axes.plot(label[inside].numpy(), error[inside].numpy(), color=color, **_dots(panel))
        for side, marker in ((1, "^"), (-1, "v")):
            beyond = label[error * side > reach].numpy()
            edge = [0.95 * side * reach] * len(beyond)
            axes.plot(beyond, edge, marker, color=color, markersize=3.5, markeredgewidth=0)
    axes.axhline(0, color=GRAY, linewidth=0.8, zorder=0)
    axes.set_ylim(-reach, reach)
    axes.set_box_aspect(_ERRORS_ASPECT)
    axes.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axes.set_ylabel(f"error ({panel.error_unit})")
    tidy(axes)


def _dots(panel: _Panel) -> dict[str, Any]:
    """Return the look of points: smaller and paler for more of them."""
    number = sum(pair.size(1) for pair, _ in panel.points.values())
    size, alpha = (3.5, 0.8) if number <= 100 else (2.2, 0.7) if number <= 2000 else (1.5, 0.5)
    look = {"linestyle": "none", "marker": "o", "markersize": size, "alpha": alpha, "markeredgewidth": 0}
    return {**look, "rasterized": number > 500}


def _energy_note(evaluation: Evaluation) -> str:
    energy, unit = evaluation.comparable_energy()
    if unit == "eV":
        in_kcal = _kcal(evaluation, "kcal/mol")
        mae, rmse = cast(float, evaluation.energy_mae), cast(float, evaluation.energy_rmse)
        return _describe(mae, rmse, "meV", in_kcal)
    error = energy[1] - energy[0]
    return _describe(float(error.abs().mean()), float(error.square().mean().sqrt()), "meV/atom", None)


def _kcal(evaluation: Evaluation, unit: str) -> str | None:
    """Return the unit for chemists, unless structures are periodic: it is unusual for crystals."""
    return None if evaluation.periodic or evaluation.stress is not None else unit


def _describe(mae: float, rmse: float, unit: str, chemists_unit: str | None) -> str:
    lines = [f"{name} {_short(error * 1e3)} {unit}" for name, error in (("MAE", mae), ("RMSE", rmse))]
    if chemists_unit is not None:
        in_it = (f" ({error / kcal_per_mol:.3f} {chemists_unit})" for error in (mae, rmse))
        lines = [line + other for line, other in zip(lines, in_it, strict=True)]
    return "\n".join(lines)


def _short(value: float) -> str:
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
