"""Picture of a data set: energies, sizes and forces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.references import formula
from pyg_schnet.datasets.report.structure_statistics import StructureStatistics, compute_statistics
from pyg_schnet.datasets.streaming import stream
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.plots.style import (
    BLUE,
    COLUMN,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    element_styles,
    finish,
    letter,
    paper,
    tidy,
)

_HEIGHT = 2.0  # inches per panel
_FEW = 6  # compositions with a line each
_FEWEST_BINS, _MOST_BINS = 12, 60
_FORCE_BINS = 49  # odd, with a bin at zero
_GROUPS = 4  # of sizes
_COMPOSITIONS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def plot_data_set(dataset: MoleculeDataset, path: str | os.PathLike | None = None) -> Figure:
    """Draw energies, sizes and forces of a data set, one journal column wide.

    For up to six compositions: numbers of structures over the energy relative to the mean of each. For more:
    numbers of structures over the number of atoms; and the share of the structures of a size over their
    energy per atom relative to fitted atomic references. Structures of few and of many heavy atoms differ in
    color. With forces: the density of their components by element, on a logarithmic axis; components beyond
    the axis are in the outer bins. Energies of molecules are also in kcal/mol. Without energies: numbers of
    structures over the number of atoms.

    Args:
        dataset: Data set with at least one structure; its ``transform`` is not applied.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If the data set is empty.
    """
    statistics = compute_statistics(dataset)
    few = len(statistics.counts) <= _FEW and statistics.energy is not None
    both = not few and statistics.energy is not None
    panels = 1 + both + (statistics.forces_squares is not None)
    with paper():
        figure = Figure(figsize=(COLUMN, _HEIGHT * panels), layout="constrained")
        axes = figure.subplots(panels, squeeze=False)[:, 0]
        if few:
            _draw_energies(axes[0], statistics)
        else:
            _draw_sizes(axes[0], statistics)
        if both:
            _draw_relative_energies(axes[1], statistics)
        if statistics.forces_squares is not None:
            _draw_forces(axes[-1], dataset, statistics)
        for text, one in zip("abc", axes, strict=False):
            if panels > 1:
                letter(one, text)
        figure.align_ylabels(axes)
        return finish(figure, path)


def _draw_energies(axes: Axes, statistics: StructureStatistics) -> None:
    assert statistics.energy is not None
    frequencies = statistics.frequencies()
    mean = torch.zeros(len(frequencies), dtype=torch.float64).index_add_(
        0, statistics.composition, statistics.energy
    )
    relative = statistics.energy - (mean / frequencies)[statistics.composition]
    edges = _edges(relative)
    order = frequencies.argsort(descending=True, stable=True).tolist()
    for row, color in zip(order, _COMPOSITIONS, strict=False):
        counts = torch.histogram(relative[statistics.composition == row], edges).hist.numpy()
        label = f"{_subscripts(formula(statistics.counts[row]))}: {int(frequencies[row]):,}"
        axes.stairs(counts, edges.numpy(), color=color, alpha=0.3, fill=True)
        axes.stairs(counts, edges.numpy(), color=color, linewidth=1, label=label)
    _describe(axes, "energy − mean (eV)", "structures", "")
    _add_kcal_axis(axes, "energy − mean (kcal/mol)", statistics)


def _draw_sizes(axes: Axes, statistics: StructureStatistics) -> None:
    low, high = int(statistics.atoms.min()), int(statistics.atoms.max())
    step = -(-(high + 1 - low) // _MOST_BINS)
    edges = torch.arange(low, high + 1 + step, step).double() - 0.5
    below = torch.zeros(len(edges) - 1, dtype=torch.float64)
    for label, color, members in _sizes(statistics):
        above = below + torch.histogram(statistics.atoms[members].double(), edges).hist
        axes.stairs(above.numpy(), edges.numpy(), baseline=below.numpy(), fill=True, color=color, label=label)
        below = above
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    text = f"{len(statistics):,} structures, {len(statistics.counts):,} compositions"
    axes.set_title(text, loc="right", fontsize=SMALL)
    _describe(axes, "number of atoms", "structures", _legend(statistics))


def _draw_relative_energies(axes: Axes, statistics: StructureStatistics) -> None:
    relative = statistics.relative_energy()
    low, high = (float(relative.kthvalue(place).values) for place in _ranks(len(relative)))
    edges = _edges(relative, low, high)
    for label, color, members in _sizes(statistics):
        share = 100 * torch.histogram(relative[members], edges).hist / int(members.sum())
        axes.stairs(share.numpy(), edges.numpy(), color=color, label=label)
    _describe(axes, "energy − references (eV/atom)", "share of the size (%)", _legend(statistics))
    _add_kcal_axis(axes, "energy − references (kcal/mol per atom)", statistics)


def _legend(statistics: StructureStatistics) -> str:
    return "heavy atoms" if bool(statistics.counts[:, 1].any()) else "atoms"


def _sizes(statistics: StructureStatistics) -> Iterator[tuple[str, tuple[float, ...], Tensor]]:
    """Yield label, color and members of groups by the number of heavy atoms."""
    heavy = (statistics.counts.sum(1) - statistics.counts[:, 1])[statistics.composition]
    groups = _ranges(heavy)
    colors = colormaps["viridis"](torch.linspace(0.8, 0.2, len(groups)).numpy())
    for (low, high), color in zip(groups, colors, strict=True):
        yield f"{low}" if low == high else f"{low}–{high}", tuple(color), (heavy >= low) & (heavy <= high)


def _draw_forces(axes: Axes, dataset: MoleculeDataset, statistics: StructureStatistics) -> None:
    assert statistics.forces_squares is not None
    assert statistics.forces_largest is not None
    rms = float((statistics.forces_squares.sum() / (3 * statistics.atoms.sum())).sqrt())
    reach = max(min(float(statistics.forces_largest.max()), 8 * rms), 1e-9)
    edges = torch.linspace(-reach, reach, _FORCE_BINS + 1, dtype=torch.float64)
    styles = element_styles(statistics.elements())
    for z, counts in _count_forces(dataset, statistics.elements(), edges).items():
        name, color = styles[z]
        density = counts / (counts.sum() * (edges[1] - edges[0]))
        axes.stairs(density.numpy(), edges.numpy(), color=color, linewidth=1, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    _describe(axes, "force component (eV/Å)", "density (Å/eV)", "")


def _count_forces(dataset: MoleculeDataset, elements: list[int], edges: Tensor) -> dict[int, Tensor]:
    """Return histograms of force components by atomic number; the last bins include all beyond the edges."""
    counts = {z: torch.zeros(len(edges) - 1, dtype=torch.float64) for z in elements}
    for _, batch in stream(dataset, ("forces",)):
        forces = batch.forces.double().clamp(edges[0], edges[-1])
        for z, sums in counts.items():
            sums += torch.histogram(forces[batch.z == z].flatten(), edges).hist
    return counts


def _describe(axes: Axes, quantity: str, number: str, legend: str) -> None:
    axes.set_xlabel(quantity)
    axes.set_ylabel(number)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=number == "structures"))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}" if y < 1e4 else f"{y:,.0f}")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])  # space for the legend
    tidy(axes)
    axes.legend(title=legend, labelspacing=0.3)


def _add_kcal_axis(axes: Axes, quantity: str, statistics: StructureStatistics) -> None:
    """Add an axis in the unit for chemists above, unless structures are periodic."""
    if bool(statistics.periodic.any()):
        return
    top = axes.secondary_xaxis("top", functions=(_to_kcal, _from_kcal))
    top.set_xlabel(quantity)
    top.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["top"].set_visible(True)


def _to_kcal(energy: Any) -> Any:
    return energy / kcal_per_mol


def _from_kcal(energy: Any) -> Any:
    return energy * kcal_per_mol


def _edges(values: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Return the edges of bins; their number follows Rice's rule."""
    bins = max(_FEWEST_BINS, min(_MOST_BINS, round(2 * len(values) ** (1 / 3))))
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    return torch.linspace(low, max(high, low + 1e-6), bins + 1, dtype=torch.float64)


def _ranks(number: int) -> tuple[int, int]:
    """Return the ranks, from 1, of the values that bound all but a thousandth."""
    cut = number // 2000
    return 1 + cut, number - cut


def _ranges(values: Tensor) -> list[tuple[int, int]]:
    """Group integers into a few ranges such that frequent ones are separate."""
    distinct, frequencies = values.unique(return_counts=True)
    ranges = [(int(value), int(value)) for value in distinct]
    weights = frequencies.tolist()
    while len(ranges) > _GROUPS:
        pairs = [weights[i] + weights[i + 1] for i in range(len(weights) - 1)]
        i = pairs.index(min(pairs))
        ranges[i : i + 2] = [(ranges[i][0], ranges[i + 1][1])]
        weights[i : i + 2] = [pairs[i]]
    return ranges


def _subscripts(name: str) -> str:
    return re.sub(r"(\d+)", r"$_{\1}$", name)
