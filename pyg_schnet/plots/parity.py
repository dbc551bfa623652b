"""Parity plot: predictions over labels."""

from __future__ import annotations

import os

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.io.units import GPa, kcal_per_mol
from pyg_schnet.nn.readout import sum_by_molecule
from pyg_schnet.plots.style import BLUE, GRAY, PAGE, SMALL, VERMILION, element_styles, paper, save, tidy
from pyg_schnet.potentials.metrics import Evaluation


def plot_parity(
    evaluation: Evaluation,
    path: str | os.PathLike,
    labels: str = "reference",
    atomref: Tensor | None = None,
) -> None:
    """Draw predictions over labels: energies, forces by element, and stresses; two journal columns wide.

    Energies are relative to the mean of the labels. For molecules of different sizes they differ mainly by
    the energies of their atoms, thousands of times more than by bonding: ``atomref`` removes these.

    Args:
        evaluation: Evaluation of a potential on a data set.
        path: Picture to write.
        labels: Name of the labels on the axis, for example "GFN2-xTB".
        atomref: Energies of isolated atoms in eV by atomic number, ``(100,)``, to be subtracted; see
            :attr:`Potential.atomref <pyg_schnet.Potential>`.
    """
    panels = 1 + (evaluation.forces is not None) + (evaluation.stress is not None)
    side = PAGE / max(panels, 2)
    with paper():
        figure = Figure(figsize=(side * panels, side), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_energy(axes[0], evaluation, labels, atomref)
        if evaluation.forces is not None:
            _draw_forces(axes[1], evaluation, labels)
        if evaluation.stress is not None:
            assert evaluation.stress_mae is not None
            assert evaluation.stress_rmse is not None
            _draw_stress(axes[-1], evaluation.stress / GPa, labels)
            errors = (evaluation.stress_mae / GPa, evaluation.stress_rmse / GPa)
            _note(axes[-1], "MAE {:.3f} GPa\nRMSE {:.3f} GPa".format(*errors))
        save(figure, path)


def _draw_energy(axes: Axes, evaluation: Evaluation, labels: str, atomref: Tensor | None) -> None:
    energy, relative_to = evaluation.energy, "mean"
    if atomref is not None and evaluation.sizes is not None:
        molecule = torch.arange(evaluation.n).repeat_interleave(evaluation.sizes)
        energy = energy - sum_by_molecule(atomref.cpu()[evaluation.z], molecule, evaluation.n)
        relative_to = "references"
    if relative_to == "mean" or evaluation.n == 1:
        energy = energy - energy[0].mean()
    axes.plot(*energy.numpy(), ".", color=BLUE, markersize=3, alpha=0.7, markeredgewidth=0, rasterized=True)
    _parity_axes(axes, f"energy − {relative_to}", "eV", labels)
    _note_errors(axes, evaluation.energy_mae, evaluation.energy_rmse, "meV", _kcal(evaluation, "kcal/mol"))


def _draw_forces(axes: Axes, evaluation: Evaluation, labels: str) -> None:
    assert evaluation.forces is not None
    assert evaluation.forces_mae is not None
    assert evaluation.forces_rmse is not None
    look = {"markersize": 2, "alpha": 0.5, "markeredgewidth": 0, "rasterized": True}
    for z, (name, color) in element_styles(evaluation.z.tolist()).items():
        pair = evaluation.forces[:, evaluation.z == z].flatten(1).numpy()
        axes.plot(*pair, ".", color=color, label=name, **look)
    _parity_axes(axes, "force component", "eV/Å", labels)
    chemists_unit = _kcal(evaluation, "kcal/mol/Å")
    _note_errors(axes, evaluation.forces_mae, evaluation.forces_rmse, "meV/Å", chemists_unit)
    legend = axes.legend(loc="lower right", markerscale=4)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def _draw_stress(axes: Axes, stress: Tensor, labels: str) -> None:
    diagonal = torch.eye(3, dtype=torch.bool)
    for name, color, which in (("normal", BLUE, diagonal), ("shear", VERMILION, ~diagonal)):
        reference, prediction = stress[:, :, which].flatten(1).numpy()
        axes.plot(
            reference, prediction, ".", color=color, markersize=3, alpha=0.7, markeredgewidth=0, label=name
        )
    _parity_axes(axes, "stress", "GPa", labels)
    axes.legend(loc="lower right", markerscale=3)


def _parity_axes(axes: Axes, quantity: str, unit: str, labels: str) -> None:
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color=GRAY, linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{labels} {quantity} ({unit})")
    axes.set_ylabel(f"predicted {quantity} ({unit})")
    tidy(axes)


def _kcal(evaluation: Evaluation, unit: str) -> str | None:
    """Return the unit for chemists, unless there are stresses: it is unusual for crystals."""
    return unit if evaluation.stress is None else None


def _note_errors(axes: Axes, mae: float, rmse: float, unit: str, chemists_unit: str | None) -> None:
    lines = [f"{name} {error * 1e3:.1f} {unit}" for name, error in (("MAE", mae), ("RMSE", rmse))]
    if chemists_unit is not None:
        in_it = (f" ({error / kcal_per_mol:.3f} {chemists_unit})" for error in (mae, rmse))
        lines = [line + other for line, other in zip(lines, in_it, strict=True)]
    _note(axes, "\n".join(lines))


def _note(axes: Axes, text: str) -> None:
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=SMALL)
