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

from pyg_schnet.plots.style import BLUE, GRAY, PAGE, SMALL, element_styles, letter, paper, save, tidy
from pyg_schnet.potentials.metrics import Evaluation

QUANTILES = (0.5, 0.9, 0.95, 0.99)
_HEIGHT = 2.3  # inches per row
_BINS = 61  # odd, with a bin at zero
_SMALLEST = 1e-3  # of the median; lower end of logarithmic axes
_REACH = 2  # times the 99 % quantile; larger errors are counted
_FEW = 200  # errors; for fewer the axis is linear
_MOST_POINTS = 2000  # per curve


def error_quantiles(evaluation: Evaluation) -> dict[str, dict[float, float]]:
    """Compute the 50, 90, 95 and 99 % quantiles of the absolute errors.

    Args:
        evaluation: Evaluation of a potential on a data set.

    Returns:
        Quantiles ``{0.5: …, 0.9: …, 0.95: …, 0.99: …}`` by quantity: ``"energy"`` (per molecule, eV),
        ``"forces"`` and ``"forces on H"``, … (components, eV/Å).
    """
    found = {"energy": _energy_errors(evaluation)}
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


def plot_errors(evaluation: Evaluation, path: str | os.PathLike) -> None:
    """Draw the distribution of errors of energies and, by element, of forces; two journal columns wide.

    Left: density of the signed errors; for many errors on a logarithmic axis, where a normal distribution is
    a parabola. Errors beyond the axis are counted. Right: cumulative distribution of the absolute errors,
    with the 50, 90, 95 and 99 % quantiles (for forces: of all elements together).

    Args:
        evaluation: Evaluation of a potential on a data set; energies are per molecule.
        path: Picture to write.

    Raises:
        ValueError: If predictions or labels are not finite.
    """
    for name, pair in (("energy", evaluation.energy), ("forces", evaluation.forces)):
        if pair is not None and not bool(pair.isfinite().all()):
            broken = int((~pair.isfinite()).sum())
            raise ValueError(
                f"`evaluation.{name}` must be finite, got {broken:,} of {pair.numel():,} that are not; "
                "the training diverged, or labels are broken (see `pyg-schnet data FILE`)"
            )
    rows = [("energy error", "meV", {"": (_energy_errors(evaluation), BLUE)})]
    if evaluation.forces is not None:
        rows.append(("force error", "meV/Å", _force_errors(evaluation)))
    with paper():
        figure = Figure(figsize=(PAGE, _HEIGHT * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 2, squeeze=False)
        for (left, right), (name, unit, curves) in zip(axes, rows, strict=True):
            in_small = {key: (1e3 * errors, color) for key, (errors, color) in curves.items()}
            _draw_density(
                left, in_small, f"{name}, component ({unit})" if len(unit) > 3 else f"{name} ({unit})"
            )
            _draw_shares(right, in_small, f"absolute {name} ({unit})", unit)
        for text, one in zip("abcd", axes.flat, strict=False):
            letter(one, text)
            tidy(one)
        save(figure, path)


def _draw_density(axes: Axes, curves: Mapping[str, tuple[Tensor, str]], label: str) -> None:
    together = torch.cat([errors for errors, _ in curves.values()])
    reach = max(1.02 * min(float(together.abs().max()), _REACH * _quantiles(together)[-1]), 1e-9)
    bins = min(_BINS, 2 * round(len(together) ** (1 / 3)) + 1)  # Rice's rule, made odd
    edges = np.linspace(-reach, reach, bins + 1)
    for name, (errors, color) in curves.items():
        density = np.histogram(errors.numpy(), edges)[0] / (len(errors) * (edges[1] - edges[0]))
        if len(curves) == 1:
            axes.stairs(density, edges, color=color, fill=True, alpha=0.3)
        axes.stairs(density, edges, color=color, label=name or None)
    axes.axvline(0, color=GRAY, linewidth=0.6, zorder=1)
    if len(together) > _FEW:
        axes.set_yscale("log")
        axes.set_ylim(top=4 * axes.get_ylim()[1])  # space for text
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(label)
    unit = label[label.rindex("(") + 1 : -1]
    axes.set_ylabel("density (1/meV)" if unit == "meV" else "density (Å/meV)")
    lines = [] if curves.keys() - {""} else [f"mean {_short(float(together.mean()))} {unit}"]
    if beyond := int((together.abs() > reach).sum()):
        lines.append(f"{beyond:,} of {len(together):,} beyond")
    axes.text(0.02, 0.97, "\n".join(lines), transform=axes.transAxes, va="top")
    if curves.keys() - {""}:
        axes.legend(loc="upper right")


def _draw_shares(axes: Axes, curves: Mapping[str, tuple[Tensor, str]], label: str, unit: str) -> None:
    together = torch.cat([errors for errors, _ in curves.values()])
    marks = _quantiles(together)
    least = max(_SMALLEST * marks[0], 1e-12)
    if len(curves) > 1:
        curves = {**curves, "all": (together, BLUE)}
    for name, (errors, color) in curves.items():
        size = errors.abs().sort().values.clamp(min=least)
        share = torch.arange(1, len(size) + 1, dtype=torch.float64) / len(size)
        some = torch.linspace(0, len(size) - 1, min(_MOST_POINTS, len(size))).long()
        style = "--" if name == "all" else "-"
        axes.step(
            size[some].numpy(), share[some].numpy(), style, where="post", color=color, label=name or None
        )
    for share, mark in zip(QUANTILES, marks, strict=True):
        axes.plot([max(mark, least)], [share], "o", markersize=3.5, color="black", markerfacecolor="white")
    lines = [
        f"{100 * share:.0f} % below {_short(mark)}" for share, mark in zip(QUANTILES, marks, strict=True)
    ]
    lines[-1] += f" {unit}"
    axes.text(0.03, 0.95, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=SMALL)
    axes.set_xscale("log")
    axes.set_xlim(max(least, marks[0] / 100))
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(lambda x, _: _short(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_xlabel(label)
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
