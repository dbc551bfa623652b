"""Picture of the filters of a SchNet: cuts through them, as in figure 3 of the paper."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.nn import Interaction, SchNet
from pyg_schnet.plots.style import BACKGROUND, DIVERGING, INK, PAGE, SMALL, finish, letter, paper

REACH = 5.0  # Å; the paper's cuts are 10 Å wide
MAX_FILTERS = 64  # filters in a mosaic, as in the paper
_PIXELS = 97  # along a cut; odd, with one at the atom
_POINTS = 600  # along a distance
NO_DATA_COLOR = "#c8c8c8"  # of distances that do not occur in the data
COLORS = colormaps[DIVERGING].with_extremes(bad=NO_DATA_COLOR)


def filter_values(model: SchNet, distance: Tensor) -> Tensor:
    r"""Evaluate all filters with the envelope, the factors in :class:`~pyg_schnet.CFConv`, at distances.

    .. math::
        W_k^{(l)}(d)\, f(d)

    Args:
        model: Any SchNet.
        distance: Distances in Å, ``(distances,)``.

    Returns:
        Values without unit, ``(interactions, distances, filters)``, float64; zero at and beyond the cutoff.
    """
    weight = model.embedding.weight
    distance = distance.to(weight)
    with torch.no_grad():
        expansion = model.radial_basis(distance)
        envelope = torch.ones_like(distance) if model.envelope is None else model.envelope(distance)
        if model.config.cutoff is not None:
            envelope = torch.where(distance < model.config.cutoff, envelope, 0)
        networks = [cast(Interaction, block).cfconv.filter_network for block in model.interactions]
        filters = [network(expansion) * envelope[:, None] for network in networks]
    return torch.stack(filters).double().cpu()


def plot_filters(
    model: SchNet,
    path: str | os.PathLike | None = None,
    distances: Tensor | None = None,
    shortest: float = 0.0,
) -> Figure:
    r"""Draw cuts through the filters of each interaction, as figure 3 of the paper does.

    Each small square is a plane with an atom in its center; the color at a point is the value of one filter
    :math:`W(\mathbf r_i - \mathbf r_j)`, with the envelope, for a neighbor at this point: white is zero, red
    positive, blue negative, on one scale for all filters of an interaction that excludes the largest percent.
    Filters are in the order of their indices, row by row; of more than 64, the 64 that vary most between the
    shortest and the longest distance of the data. Gray are distances below the shortest and above the longest
    one: training determines no values there.

    Args:
        model: Any SchNet.
        path: Picture to write, if any, two journal columns wide (three interactions per row).
        distances: Interatomic distances of the data, ``(pairs,)``, in Å. Squares extend to the longest,
            rounded up, or to the cutoff; without distances to 5 Å or to the cutoff.
        shortest: Shortest distance of the data in Å, if ``distances`` is not given.

    Returns:
        The figure.

    Source:
        Schütt et al., NeurIPS 2017, figure 3 (arXiv:1706.08566): all 64 filters of three interactions, cuts
        of 10 Å by 10 Å, trained on ethanol.
    """
    distance_range = DistanceRange.of(model, distances, shortest)
    chosen = strongest_filters(model, MAX_FILTERS, distance_range).sort(dim=1).values
    cuts, profiles = filter_cuts(model, distance_range.reach), filter_values(model, distance_range.grid())
    side = math.ceil(math.sqrt(chosen.size(1)))
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    with paper():
        figure = Figure(figsize=(PAGE * columns / 3, 3.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for number, filters in enumerate(chosen):
            norm = color_scale(profiles[number, :, filters])
            _draw_mosaic(axes[number], cuts[number, filters], norm, side, distance_range)
            of_all = f"{len(filters)} of " if len(filters) < model.config.num_filters else ""
            title = f"interaction {number + 1}, {of_all}{model.config.num_filters} filters"
            axes[number].set_title(title, fontsize=SMALL + 1)
            letter(axes[number], chr(ord("a") + number))
        for one in axes[len(chosen) :]:
            one.set_visible(False)
        return finish(figure, path)


@dataclass(frozen=True)
class DistanceRange:
    """Range of distances to draw, in Å.

    Attributes:
        shortest: Shortest distance of the data.
        longest: Longest distance of the data, or the cutoff.
        reach: Upper end of axes.
    """

    shortest: float
    longest: float
    reach: float

    @classmethod
    def of(cls, model: SchNet, distances: Tensor | None, shortest: float = 0.0) -> DistanceRange:
        """Return the range for a model and its data; see :func:`plot_filters`."""
        cutoff = math.inf if model.config.cutoff is None else model.config.cutoff
        if distances is None or len(distances) == 0:
            reach = min(REACH, cutoff)
            return cls(min(shortest, reach), reach, reach)
        shortest, longest = (min(float(end), cutoff) for end in (distances.min(), distances.max()))
        return cls(shortest, longest, min(math.ceil(longest), cutoff))

    def mask(self, cuts: Tensor) -> np.ma.MaskedArray:
        """Mask values of :func:`filter_cuts`, ``(…, 97, 97)``, at distances that do not occur in the data."""
        distance = _cut_distances(self.reach).numpy()
        outside = (distance < self.shortest) | (distance > self.longest)
        return np.ma.masked_array(cuts.numpy(), np.broadcast_to(outside, cuts.shape))

    def grid(self) -> Tensor:
        """Return evenly spaced distances between the shortest and the longest."""
        return torch.linspace(self.shortest, self.longest, _POINTS, dtype=torch.float64)


def strongest_filters(model: SchNet, count: int, distance_range: DistanceRange) -> Tensor:
    """Return the filters of each interaction with the largest variance between shortest and longest distance.

    Returns:
        Indices by decreasing variance, ``(interactions, count)``; all filters if there are fewer.
    """
    variance = filter_values(model, distance_range.grid()).var(dim=1)
    return variance.argsort(dim=1, descending=True, stable=True)[:, :count]


def filter_cuts(model: SchNet, reach: float) -> Tensor:
    """Evaluate all filters in a square plane with the atom in its center, from −reach to reach in Å.

    Returns:
        Values, ``(interactions, filters, 97, 97)``.
    """
    distinct, where = _cut_distances(reach).round(decimals=9).unique(return_inverse=True)  # an eighth of them
    return filter_values(model, distinct).transpose(1, 2)[:, :, where]


def _cut_distances(reach: float) -> Tensor:
    place = torch.linspace(-reach, reach, _PIXELS, dtype=torch.float64)
    return torch.hypot(place[:, None], place)


def color_scale(values: Tensor) -> Normalize:
    """Return a color scale symmetric around zero that covers all but the largest percent of values."""
    top = max(float(np.quantile(values.abs().numpy(), 0.99)), 1e-12)
    return Normalize(-top, top)


def _draw_mosaic(axes: Axes, cuts: Tensor, norm: Normalize, side: int, distance_range: DistanceRange) -> None:
    """Draw squares row by row, with a scale bar below."""
    tiles = np.ma.masked_array(np.zeros((side * side, _PIXELS, _PIXELS)), mask=True)
    tiles[: len(cuts)] = distance_range.mask(cuts)
    picture = tiles.reshape(side, side, _PIXELS, _PIXELS).swapaxes(1, 2).reshape(side * _PIXELS, -1)
    edge = 2 * distance_range.reach
    width = edge * side
    axes.imshow(picture, cmap=COLORS, norm=norm, extent=(0, width, width, 0), interpolation="nearest")
    for number in range(len(cuts), side * side):  # squares without a filter
        row, column = divmod(number, side)
        axes.add_patch(Rectangle((column * edge, row * edge), edge, edge, facecolor=BACKGROUND, linewidth=0))
    lines = [edge * number for number in range(side + 1)]
    axes.hlines(lines, 0, width, color=BACKGROUND, linewidth=1.0)
    axes.vlines(lines, 0, width, color=BACKGROUND, linewidth=1.0)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(1.06 * width, 0)
    axes.plot([0, edge], [1.035 * width] * 2, color=INK, linewidth=1.0)
    axes.text(1.1 * edge, 1.035 * width, f"{edge:g} Å; gray: not in the data", va="center", fontsize=SMALL)
    bar = axes.figure.colorbar(
        ScalarMappable(norm, DIVERGING),
        ax=axes,
        orientation="horizontal",
        extend="both",
        shrink=0.8,
        aspect=30,
    )
    bar.outline.set_linewidth(0.4)  # pyright: ignore[reportCallIssue]
    bar.locator = MaxNLocator(5, steps=(1, 2, 5, 10))
    bar.set_label("value of the filter (no unit)")
