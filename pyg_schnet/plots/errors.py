"""Picture of the errors of a potential: their distribution and quantiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from torch import Tensor

from pyg_schnet.plots.style import (
    BACKGROUND,
    BLUE,
    GRAY,
    INK,
    PAGE,
    SMALL,
    element_styles,
    finish,
    letter,
    paper,
    tidy,
)
from pyg_schnet.potentials.metrics import Evaluation, PropertyErrors

QUANTILES = (0.5, 0.9, 0.95, 0.99)
_HEIGHT = 2.3  # inches per row
_MOST_ROWS = 4  # with two panels each
_COLUMNS = 3  # of panels for more quantities
_FEWEST_BINS, _MOST_BINS = 8, 61  # odd, with a bin at zero
_SMALLEST = 1e-3  # of the median; lower end of logarithmic axes
_REACH = 2  # times the 99 % quantile; larger errors are counted
_FEW = 200  # errors; so many are counted and marked
_MOST_POINTS = 2000  # per curve


def error_quantiles(evaluation: Evaluation) -> dict[str, dict[float, float]]:
    """Compute the 50, 90, 95 and 99 % quantiles of the absolute errors.

    Args:
        evaluation: Evaluation of a potential on a data set.

    Returns:
        Quantiles ``{0.5: …, 0.9: …, 0.95: …, 0.99: …}`` by quantity: ``"energy"`` (per structure, eV), if all
        structures are periodic ``"energy per atom"`` (eV), ``"forces"`` and ``"forces on H"``, …
        (components, eV/Å), and names of properties (in their units).
    """
    found = {}
    if evaluation.energy_mae is not None:
        found["energy"] = _energy_errors(evaluation)
        energy, unit = evaluation.comparable_energy()
        if unit == "eV/atom":
            found["energy per atom"] = energy[1] - energy[0]
    if evaluation.forces is not None:
        found["forces"] = (evaluation.forces[1] - evaluation.forces[0]).flatten()
        by_element = _force_errors(evaluation)
        if len(by_element) > 1:
            found |= {f"forces on {name}": errors for name, (errors, _) in by_element.items()}
    found |= {name: _property_errors(own) for name, own in evaluation.properties.items()}
    return {name: dict(zip(QUANTILES, _quantiles(errors), strict=True)) for name, errors in found.items()}


def worst_structures(evaluation: Evaluation, count: int = 5) -> dict[str, list[tuple[int, float]]]:
    """Return the structures with the largest errors, the worst first.

    Args:
        evaluation: Evaluation of a potential on a data set.
        count: Number of structures.

    Returns:
        Pairs of index in the data set and absolute error by quantity: ``"energy"`` per molecule in eV;
        ``"forces"``, the longest error vector of an atom of the structure, in eV/Å; names of properties, the
        largest error of the structure, in their units.
    """
    size = {}
    if evaluation.energy_mae is not None:
        size["energy"] = _energy_errors(evaluation).abs()
    if evaluation.forces is not None and evaluation.sizes is not None:
        length = (evaluation.forces[1] - evaluation.forces[0]).norm(dim=1)
        structure = torch.arange(evaluation.n).repeat_interleave(evaluation.sizes)
        size["forces"] = _largest(length, structure, evaluation.n)
    for name, own in evaluation.properties.items():
        if own.structures is not None:
            size[name] = _largest(_property_errors(own).abs(), own.structures, evaluation.n)
    order = {name: value.argsort(descending=True, stable=True)[:count] for name, value in size.items()}
    return {
        name: [(int(i), float(size[name][i])) for i in places if size[name][i] >= 0]
        for name, places in order.items()
    }


def _largest(values: Tensor, structure: Tensor, structures: int) -> Tensor:
    """Return the largest of the values of each structure, −1 where there is none."""
    return torch.full((structures,), -1.0, dtype=values.dtype).scatter_reduce_(0, structure, values, "amax")


def shown_unit(quantity: str, evaluation: Evaluation) -> tuple[str, float]:
    """Return the unit in which errors of a quantity are shown, and the factor from that of the evaluation.

    Args:
        quantity: Key of :func:`error_quantiles` or :func:`worst_structures`.
        evaluation: Evaluation of a potential on a data set.
    """
    if own := evaluation.properties.get(quantity):
        return own.target.shown_unit, 1.0
    return {"energy": "meV", "energy per atom": "meV/atom"}.get(quantity, "meV/Å"), 1e3


class _Quantity(NamedTuple):
    """Errors of a quantity.

    Attributes:
        label: Name on the axes.
        unit: Unit of the errors.
        noun: What has one error each.
        curves: Errors and color by name; names are in the legend.
    """

    label: str
    unit: str
    noun: str
    curves: dict[str, tuple[Tensor, str]]


def plot_errors(evaluation: Evaluation, path: str | os.PathLike | None = None) -> Figure:
    """Draw the distribution of errors of energies, of forces by element, and of properties.

    Left: histogram of the signed errors. Up to 200 errors are counted, and each has a mark below; more are a
    density on a logarithmic axis, where a normal distribution is a parabola. Errors beyond the axis are
    counted. Right: cumulative distribution of the absolute errors, with the 50, 90, 95 and 99 % quantiles
    (for forces: of all elements together). Energies are per atom if all structures are periodic, else per
    structure. Of more than four quantities only the cumulative distributions are drawn. Two journal columns
    wide.

    Args:
        evaluation: Evaluation of a potential on a data set.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If predictions or labels are not finite, or there are none.
    """
    pairs = {"energy": evaluation.energy, "forces": evaluation.forces}
    pairs |= {name: own.values for name, own in evaluation.properties.items()}
    for name, pair in pairs.items():
        if pair is not None and not bool(pair.isfinite().all()):
            broken = int((~pair.isfinite()).sum())
            raise ValueError(
                f"`evaluation.{name}` must be finite, got {broken:,} of {pair.numel():,} that are not; "
                "the training diverged, or labels are broken (see `pyg-schnet data FILE`)"
            )
    quantities = list(_quantities(evaluation))
    both = len(quantities) <= _MOST_ROWS
    columns = 2 if both else _COLUMNS
    rows = len(quantities) if both else -(-len(quantities) // columns)
    with paper():
        figure = Figure(figsize=(PAGE, _HEIGHT * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        panels = list(axes.flat)[: 2 * rows if both else len(quantities)]
        for number, quantity in enumerate(quantities):
            if both:
                _draw_histogram(panels[2 * number], quantity)
            _draw_shares(panels[2 * number + 1 if both else number], quantity)
        for text, one in zip(ascii_lowercase, panels, strict=False):
            letter(one, text)
            tidy(one)
        for unused in list(axes.flat)[len(panels) :]:
            unused.remove()
        return finish(figure, path)


def _quantities(evaluation: Evaluation) -> Iterator[_Quantity]:
    """Yield what is drawn.

    Raises:
        ValueError: If there is nothing.
    """
    if evaluation.energy_mae is None and not evaluation.properties:
        raise ValueError("`evaluation` must have errors of energies or properties, got none")
    if evaluation.energy_mae is not None:
        energy, unit = evaluation.comparable_energy()
        curves = {"": (1e3 * (energy[1] - energy[0]), BLUE)}
        yield _Quantity("energy error", f"m{unit}", "structures", curves)
    if evaluation.forces is not None:
        curves = {name: (1e3 * errors, color) for name, (errors, color) in _force_errors(evaluation).items()}
        yield _Quantity("force error, component", "meV/Å", "components", curves)
    for name, own in evaluation.properties.items():
        noun = "atoms" if own.target.is_atomic else "structures"
        curves = {"": (_property_errors(own), BLUE)}
        yield _Quantity(f"{name} error", own.target.shown_unit, noun, curves)


def _draw_histogram(axes: Axes, quantity: _Quantity) -> None:
    label, unit, noun, curves = quantity
    together = torch.cat([errors for errors, _ in curves.values()])
    few = len(together) <= _FEW
    edges = _edges_of_few(together) if few else _edges_of_many(together)
    reach = float(edges[-1])
    for name, (errors, color) in curves.items():
        counts = np.histogram(errors.numpy(), edges)[0]
        heights = counts if few else counts / (len(errors) * (edges[1] - edges[0]))
        if len(curves) == 1:
            axes.stairs(heights, edges, color=color, fill=True, alpha=0.3)
        axes.stairs(heights, edges, color=color, label=name or None)
        if few:
            bottom = axes.get_xaxis_transform()
            axes.plot(errors.numpy(), [0.03] * len(errors), "|", color=color, markersize=5, transform=bottom)
    axes.axvline(0, color=GRAY, linewidth=0.8, zorder=1)
    if few:
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # space for text
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylabel(noun)
    else:
        axes.set_yscale("log")
        axes.set_ylim(top=4 * axes.get_ylim()[1])
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("density" if " " in unit else f"density ({_inverse(unit)})")
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(f"{label} ({unit})")
    lines = [] if curves.keys() - {""} else [f"mean {_short(float(together.mean()))} {unit}"]
    if beyond := int((together.abs() > max(reach, -float(edges[0]))).sum()):
        lines.append(f"{beyond:,} of {len(together):,} beyond")
    axes.text(0.02, 0.97, "\n".join(lines), transform=axes.transAxes, va="top")
    if len(curves) > 1:
        axes.legend(loc="upper right")


def _edges_of_few(errors: Tensor) -> np.ndarray:
    """Return edges of bins from the smallest to the largest error; zero is an edge or outside."""
    low, high = min(float(errors.min()), 0.0), max(float(errors.max()), 0.0)
    width = max((float(errors.max()) - float(errors.min())) / max(_FEWEST_BINS, 2 * len(errors) ** 0.5), 1e-9)
    if float(errors.min()) > 0 or float(errors.max()) < 0:  # all on one side of zero
        low, high = float(errors.min()) - width / 2, float(errors.max()) + width / 2
        return np.linspace(low, high, round((high - low) / width) + 1)
    return width * np.arange(np.floor(low / width - 1e-6), np.ceil(high / width + 1e-6) + 1)


def _edges_of_many(errors: Tensor) -> np.ndarray:
    """Return edges of bins that are symmetric about zero."""
    reach = max(1.02 * min(float(errors.abs().max()), _REACH * _quantiles(errors)[-1]), 1e-9)
    bins = min(_MOST_BINS, 2 * round(len(errors) ** (1 / 3)) + 1)  # Rice's rule, made odd
    return np.linspace(-reach, reach, bins + 1)


def _draw_shares(axes: Axes, quantity: _Quantity) -> None:
    label, unit, _, curves = quantity
    together = torch.cat([errors for errors, _ in curves.values()])
    marks = _quantiles(together)
    least = max(_SMALLEST * marks[0], 1e-12)
    if len(curves) > 1:  # a band below the lines, which has no element's look
        curves = {"all": (together, GRAY), **curves}
    for name, (errors, color) in curves.items():
        size = torch.cat([torch.tensor([least]), errors.abs().sort().values.clamp(min=least)])
        share = torch.arange(len(size), dtype=torch.float64) / len(errors)
        some = torch.linspace(0, len(errors), min(_MOST_POINTS, len(size))).round().long()
        look = {"linewidth": 4, "alpha": 0.4, "zorder": 1.5} if name == "all" else {}
        axes.step(
            size[some].numpy(), share[some].numpy(), where="post", color=color, label=name or None, **look
        )
    for share, mark in zip(QUANTILES, marks, strict=True):
        look = {"color": INK, "markerfacecolor": BACKGROUND, "markeredgewidth": 0.8}
        axes.plot([max(mark, least)], [share], "o", markersize=3.5, zorder=4, **look)
    lines = [
        f"{100 * share:.0f} % below {_short(mark)} {unit}"
        for share, mark in zip(QUANTILES, marks, strict=True)
    ]
    axes.text(0.03, 0.95, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=SMALL)
    axes.set_xscale("log")
    axes.set_xlim(max(least, marks[0] / 100))
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(lambda x, _: _short(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_xlabel(f"absolute {label} ({unit})")
    axes.set_ylabel("errors below (%)")
    if len(curves) > 1:
        axes.legend(loc="lower right")


def _short(value: float) -> str:
    """Format with three significant digits, or all digits before the decimal point."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def _inverse(unit: str) -> str:
    """Return one over a unit: ``"Å/meV"`` for ``"meV/Å"``."""
    above, *below = unit.split("/")
    return f"{' '.join(below) or 1}/{above}"


def _property_errors(errors: PropertyErrors) -> Tensor:
    return errors.values[1] - errors.values[0]


def _energy_errors(evaluation: Evaluation) -> Tensor:
    return evaluation.energy[1] - evaluation.energy[0]


def _force_errors(evaluation: Evaluation) -> dict[str, tuple[Tensor, str]]:
    """Return errors of force components in eV/Å and colors, by element symbol."""
    assert evaluation.forces is not None
    errors = evaluation.forces[1] - evaluation.forces[0]
    styles = element_styles(evaluation.z.tolist())
    return {name: (errors[evaluation.z == z].flatten(), color) for z, (name, color) in styles.items()}


def _quantiles(errors: Tensor) -> list[float]:
    """Return the quantiles of the absolute errors, interpolated."""
    return np.quantile(errors.abs().numpy(), QUANTILES).tolist()
