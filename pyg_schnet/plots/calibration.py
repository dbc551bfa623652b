"""Picture of the calibration of an ensemble: errors over deviations, and reliability curves."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from pyg_schnet.plots.style import BACKGROUND, BLUE, GRAY, INK, PAGE, VERMILION, finish, letter, paper, tidy
from pyg_schnet.potentials.calibration import Calibration

_LOOK = {  # name, unit in thousandths of ours, color, marker
    "energy": ("energy", "meV/atom", BLUE, "o"),
    "forces": ("force", "meV/Å", VERMILION, "s"),
}
_WIDTH, _HEIGHT = PAGE / 3, 2.5  # inches per panel
_MOST_POINTS = 3000  # per cloud


def plot_calibration(
    calibrations: Mapping[str, Calibration], path: str | os.PathLike | None = None
) -> Figure:
    """Draw errors over deviations before and after calibration, and reliability curves.

    Dots are single energies or forces after calibration; markers are root mean squares in bins with equal
    numbers, hollow before and filled after calibration, with standard errors. Perfect deviations are on the
    diagonal.

    Args:
        calibrations: Calibrations of :func:`~pyg_schnet.potentials.calibration.calibrations`.
        path: Picture to write, if any.

    Returns:
        The figure.
    """
    panels = len(calibrations) + 1
    with paper():
        figure = Figure(figsize=(_WIDTH * panels, _HEIGHT), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for one, (name, calibration) in zip(axes, calibrations.items(), strict=False):
            _draw_errors(one, name, calibration)
        _draw_reliability(axes[-1], calibrations)
        for text, one in zip("abc", axes, strict=False):
            letter(one, text)
            tidy(one)
        return finish(figure, path)


def _draw_errors(axes: Axes, name: str, calibration: Calibration) -> None:
    quantity, unit, color, marker = _LOOK[name]
    after = calibration.scaled(calibration.factor)
    chosen = torch.linspace(0, len(after.deviation) - 1, min(_MOST_POINTS, len(after.deviation))).long()
    cloud = 1e3 * torch.stack([after.deviation, after.error.norm(dim=1)])[:, chosen]
    axes.plot(*cloud.numpy(), ".", color=color, markersize=2, alpha=0.3, markeredgewidth=0, rasterized=True)
    reach = []
    for one, face, label in (
        (calibration, BACKGROUND, "raw"),
        (after, color, f"scaled by {calibration.factor:.2f}"),
    ):
        deviation, error, spread = (1e3 * values for values in one.bins())
        reach += [deviation, error]
        axes.errorbar(
            deviation.numpy(),
            error.numpy(),
            spread.numpy(),
            fmt=marker,
            color=color,
            markerfacecolor=face,
            markersize=4,
            markeredgewidth=0.8,
            elinewidth=0.8,
            label=label,
        )
    low, high = float(torch.cat(reach).min()) / 2, 2.5 * float(torch.cat(reach).max())
    axes.plot([low, high], [low, high], color=GRAY, linewidth=0.8, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{quantity} deviation ({unit})")
    axes.set_ylabel(f"{quantity} error ({unit})")
    axes.legend(loc="upper left")


def _draw_reliability(axes: Axes, calibrations: Mapping[str, Calibration]) -> None:
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, zorder=1)
    for name, calibration in calibrations.items():
        quantity, _, color, _ = _LOOK[name]
        for one, style, label in (
            (calibration.scaled(calibration.factor), "-", quantity),
            (calibration, "--", None),
        ):
            expected, observed = (values.numpy() for values in one.reliability())
            axes.plot(expected, observed, style, color=color, label=label)
    axes.plot([], [], "--", color=INK, label="raw")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlabel("errors expected inside (%)")
    axes.set_ylabel("errors observed inside (%)")
    axes.legend(loc="lower right", handlelength=1.8)
