"""Picture of the filters that vary most: their values over the distance, and cuts through them."""

from __future__ import annotations

import os

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.nn import SchNet
from pyg_schnet.plots.filters import (
    COLORS,
    NO_DATA_COLOR,
    DistanceRange,
    color_scale,
    filter_cuts,
    filter_values,
    strongest_filters,
)
from pyg_schnet.plots.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PAGE,
    SMALL,
    VERMILION,
    compact,
    finish,
    paper,
    tidy,
)

FILTERS_SHOWN = 4  # per interaction
_COLORS = (BLUE, VERMILION, GREEN, ORANGE)
_DASHES = ("-", "--", "-.", (0, (1, 1)))  # lines differ by more than color
_POINTS = 600
_HEIGHT = 1.3  # inches per row
_BINS = 80


def plot_filter_profiles(
    model: SchNet,
    path: str | os.PathLike | None = None,
    distances: Tensor | None = None,
    shortest: float = 0.0,
) -> Figure:
    r"""Draw the four filters of each interaction that vary most, one row for each interaction.

    Left: their values over the distance, :math:`W(d)\, f(d)` with the envelope :math:`f`, from the shortest
    to the longest distance of the data; the cutoff is dotted, the gray area is the distribution of distances.
    They have the largest variance between these distances. Right: the same filters in a plane through the
    atom, as in figure 3 of the paper, in frames with the color and the dashes of their lines; colors as in
    :func:`~pyg_schnet.plots.plot_filters`.

    Args:
        model: Any SchNet.
        path: Picture to write, if any, two journal columns wide.
        distances: Interatomic distances of the data, ``(pairs,)``, in Å. Axes end at the longest, rounded up,
            or at the cutoff; without distances at 5 Å or the cutoff.
        shortest: Shortest distance of the data in Å, if ``distances`` is not given.

    Returns:
        The figure.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1 and figure 3 (arXiv:1706.08566).
    """
    distance_range = DistanceRange.of(model, distances, shortest)
    chosen = strongest_filters(model, FILTERS_SHOWN, distance_range)
    cuts, profiles = filter_cuts(model, distance_range.reach), filter_values(model, distance_range.grid())
    rows, columns = chosen.shape
    with paper():
        figure = Figure(figsize=(PAGE, _HEIGHT * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[2.2, *columns * [1]])
        for number, (row, filters) in enumerate(zip(axes, chosen, strict=True)):
            _draw_profiles(row[0], model, number, filters, distances, distance_range)
            norm = color_scale(profiles[number, :, filters])
            _draw_cuts(row[1:], cuts[number, filters], norm, filters, distance_range)
        axes[-1, 0].set_xlabel("distance (Å)")
        for one in axes[-1, 1:]:
            one.set_xlabel("x (Å)")
        for one in axes[:-1].flat:
            one.tick_params(labelbottom=False)
        figure.align_ylabels(axes[:, 0])
        compact(figure)
        return finish(figure, path)


def _draw_profiles(
    axes: Axes,
    model: SchNet,
    interaction: int,
    filters: Tensor,
    distances: Tensor | None,
    distance_range: DistanceRange,
) -> None:
    reach = distance_range.reach
    distance = torch.linspace(distance_range.shortest, distance_range.longest, _POINTS, dtype=torch.float64)
    values = filter_values(model, distance)[interaction][:, filters]
    for number, line, color, dashes in zip(filters.tolist(), values.T, _COLORS, _DASHES, strict=False):
        axes.plot(distance.numpy(), line.numpy(), color=color, linestyle=dashes, label=f"filter {number}")
    low, high = axes.get_ylim()
    if distances is not None and len(distances):
        frequency, edges = np.histogram(distances.numpy(), _BINS, (0.0, reach))
        top = low + 0.25 * (high - low)
        density = low + (top - low) * frequency / max(frequency.max(), 1)
        axes.stairs(density, edges, baseline=low, fill=True, color=GRAY, alpha=0.35, zorder=0.5)
    axes.axhline(0, color=GRAY, linewidth=0.6, zorder=1)
    axes.set_ylim(low, high)
    axes.set_xlim(0, reach)
    cutoff = model.config.cutoff
    if cutoff is not None and cutoff <= reach:
        axes.axvline(cutoff, color=INK, linestyle=":", linewidth=1.2, clip_on=False)
        axes.annotate("cutoff", (cutoff, high), (-2, -1), textcoords="offset points", ha="right", va="top")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel(f"interaction {interaction + 1}\nfilter (no unit)")
    tidy(axes)


def _draw_cuts(
    row: np.ndarray, cuts: Tensor, norm: Normalize, filters: Tensor, distance_range: DistanceRange
) -> None:
    reach, image = distance_range.reach, None
    looks = zip(_COLORS, _DASHES, strict=True)
    for axes, cut, number, (color, dashes) in zip(row, cuts, filters.tolist(), looks, strict=False):
        extent = (-reach, reach, -reach, reach)
        values = distance_range.mask(cut)
        image = axes.imshow(values, cmap=COLORS, norm=norm, extent=extent, origin="lower")
        for radius in (distance_range.shortest, distance_range.longest):  # smooths the edges of the mask
            axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=NO_DATA_COLOR, linewidth=1.5))
        axes.set_title(f"filter {number}", fontsize=SMALL, pad=3)
        axes.spines[:].set_color(color)
        axes.spines[:].set_linestyle(dashes)
        axes.spines[:].set_linewidth(1.2)
        axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        axes.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        axes.tick_params(labelleft=axes is row[0])
    row[0].set_ylabel("y (Å)", labelpad=0)
    assert image is not None
    bar = row[0].figure.colorbar(image, ax=list(row), extend="both", aspect=14, pad=0.02)
    bar.outline.set_linewidth(0.4)
    bar.locator = MaxNLocator(4, steps=(1, 2, 5, 10))
    bar.set_label("filter (no unit)")
