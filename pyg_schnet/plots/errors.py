"""Picture of the errors of a potential: their distribution and quantiles."""

from __future__ import annotations

import os
from collections.abc import Mapping

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
from pyg_schnet.potentials.metrics import Evaluation

QUANTILES = (0.5, 0.9, 0.95, 0.99)
_HEIGHT = 2.3  # inches per row
_FEWEST_BINS, _MOST_BINS = 8, 61  # odd, with a bin at zero
_PER = {"meV": "1/meV", "meV/atom": "atom/meV", "meV/Å": "Å/meV"}
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
        (components, eV/Å).
    """
    found = {"energy": _energy_errors(evaluation)}
    energy, unit = evaluation.comparable_energy()
    if unit == "eV/atom":
        found["energy per atom"] = energy[1] - energy[0]
    if evaluation.forces is not None:
        found["forces"] = (evaluation.forces[1] - evaluation.forces[0]).flatten()
        by_element = _force_errors(evaluation)
        if len(by_element) > 1:
            found |= {f"forces on {name}": errors for name, (errors, _) in by_element.items()}
    return {name: dict(zip(QUANTILES, _quantiles(errors), strict=True)) for name, errors in found.items()}


def worst_structures(evaluation: Evaluation, count: int = 5) -> dict[str, list[tuple[int, float]]]:
    """Return the structures with the largest errors, the worst first.

    Args:
        evaluation: Evaluation of a potential on a data set.
        count: Number of structures.

    Returns:
        Pairs of index in the data set and absolute error by quantity: ``"energy"`` per molecule in eV;
        ``"forces"``, the longest error vector of an atom of the structure, in eV/Å.
    """
    size = {"energy": _energy_errors(evaluation).abs()}
    if evaluation.forces is not None and evaluation.sizes is not None:
        length = (evaluation.forces[1] - evaluation.forces[0]).norm(dim=1)
        structure = torch.arange(evaluation.n).repeat_interleave(evaluation.sizes)
        longest = torch.zeros(evaluation.n, dtype=length.dtype)
        size["forces"] = longest.scatter_reduce_(0, structure, length, "amax")
    order = {name: value.argsort(descending=True, stable=True)[:count] for name, value in size.items()}
    return {name: [(int(i), float(size[name][i])) for i in places] for name, places in order.items()}


def plot_errors(evaluation: Evaluation, path: str | os.PathLike | None = None) -> Figure:
    """Draw the distribution of errors of energies and, by element, of forces; two journal columns wide.

    Left: histogram of the signed errors. Up to 200 errors are counted, and each has a mark below; more are a
    density on a logarithmic axis, where a normal distribution is a parabola. Errors beyond the axis are
    counted. Right: cumulative distribution of the absolute errors, with the 50, 90, 95 and 99 % quantiles
    (for forces: of all elements together). Energies are per atom if all structures are periodic, else per
    structure.

    Args:
        evaluation: Evaluation of a potential on a data set.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If predictions or labels are not finite.
    """
    if evaluation.energy_mae is None:
        raise ValueError(
            "`evaluation` must have errors of energies, got none; `plot_parity` draws properties"
        )
    for name, pair in (("energy", evaluation.energy), ("forces", evaluation.forces)):
        if pair is not None and not bool(pair.isfinite().all()):
            broken = int((~pair.isfinite()).sum())
            raise ValueError(
                f"`evaluation.{name}` must be finite, got {broken:,} of {pair.numel():,} that are not; "
                "the training diverged, or labels are broken (see `pyg-schnet data FILE`)"
            )
    energy, unit = evaluation.comparable_energy()
    rows = [("energy error", f"m{unit}", {"": (energy[1] - energy[0], BLUE)})]
    if evaluation.forces is not None:
        rows.append(("force error", "meV/Å", _force_errors(evaluation)))
    with paper():
        figure = Figure(figsize=(PAGE, _HEIGHT * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 2, squeeze=False)
        for (left, right), (name, unit, curves) in zip(axes, rows, strict=True):
            in_small = {key: (1e3 * errors, color) for key, (errors, color) in curves.items()}
            what = f"{name}, component" if unit == "meV/Å" else name
            _draw_histogram(left, in_small, what, unit)
            _draw_shares(right, in_small, f"absolute {what}", unit)
        for text, one in zip("abcd", axes.flat, strict=False):
            letter(one, text)
            tidy(one)
        return finish(figure, path)


def _draw_histogram(axes: Axes, curves: Mapping[str, tuple[Tensor, str]], label: str, unit: str) -> None:
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
        axes.set_ylabel("structures" if curves.keys() == {""} else "components")
    else:
        axes.set_yscale("log")
        axes.set_ylim(top=4 * axes.get_ylim()[1])
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel(f"density ({_PER[unit]})")
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


def _draw_shares(axes: Axes, curves: Mapping[str, tuple[Tensor, str]], label: str, unit: str) -> None:
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
    axes.set_xlabel(f"{label} ({unit})")
    axes.set_ylabel("errors below (%)")
    if len(curves) > 1:
        axes.legend(loc="lower right")


def _short(value: float) -> str:
    """Format with three significant digits, or all digits before the decimal point."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


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
