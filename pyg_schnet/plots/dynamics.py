"""Picture of a run of molecular dynamics: energies and temperature over time."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_schnet.plots.style import BLUE, COLUMN, GRAY, GREEN, SMALL, VERMILION, finish, paper, tidy

_HEIGHT = 1.3  # inches per panel


def plot_dynamics(rows: Sequence[dict[str, float]], path: str | os.PathLike | None = None) -> Figure:
    """Draw energies and temperature over time, one journal column wide.

    From top to bottom: potential and total energy; the total energy alone where it should be conserved, on
    its own scale; temperature with its mean. Energies are relative to those of the first row.

    Args:
        rows: Rows of the log of a run, see :func:`~pyg_schnet.simulation.recorder.read_log`.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if len(rows) < 2:
        raise ValueError(f"`rows` must hold at least two frames, got {len(rows)}")
    time, potential, total, temperature = (
        np.array([row[name] for row in rows])
        for name in ("time_ps", "potential_eV", "total_eV", "temperature_K")
    )
    conserved = bool(np.isfinite([row.get("drift_meV_per_atom_ps", np.nan) for row in rows]).any())
    with paper():
        figure = Figure(figsize=(COLUMN, (2 + conserved) * _HEIGHT), layout="constrained")
        axes = figure.subplots(2 + conserved, sharex=True)
        _draw_energies(axes[0], time, potential - potential[0], total - total[0])
        if conserved:
            _draw(axes[1], time, 1e3 * (total - total[0]), GREEN, "total energy\nchange (meV)")
        _draw(axes[-1], time, temperature, VERMILION, "temperature\n(K)")
        mean = float(temperature.mean())
        axes[-1].axhline(mean, color=GRAY, linewidth=0.8)
        axes[-1].set_title(f"mean {mean:.0f} K", loc="right", fontsize=SMALL, pad=2)
        axes[-1].set_xlabel("time (ps)")
        axes[-1].set_xlim(time[0], time[-1])
        for one in axes:
            tidy(one)
            one.yaxis.set_major_locator(MaxNLocator(4))
        figure.align_ylabels(axes)
        return finish(figure, path)


def _draw_energies(axes: Axes, time: np.ndarray, potential: np.ndarray, total: np.ndarray) -> None:
    axes.plot(time, potential, color=BLUE, linewidth=0.8, label="potential")
    axes.plot(time, total, color=GREEN, linewidth=0.8, label="total")
    axes.set_ylabel("energy\nchange (eV)")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, columnspacing=1.2)


def _draw(axes: Axes, time: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    axes.plot(time, values, color=color, linewidth=0.8)
    axes.set_ylabel(label)
