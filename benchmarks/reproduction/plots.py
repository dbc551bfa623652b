"""The pictures of the results: ours against the paper, and learning curves over the number of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.reproduction.cells import MOLECULES, QM9_SIZES, paper_value
from benchmarks.reproduction.ledger import ROOT, Entry
from pyg_schnet.plots.style import BLUE, GRAY, GREEN, ORANGE, PAGE, VERMILION, finish, paper, tidy

FOLDER = ROOT / "benchmarks" / "results"
_OURS, _PAPER = {"marker": "o", "color": BLUE}, {"marker": "o", "color": VERMILION, "facecolors": "none"}
_SYSTEMS = {
    "schnet": ("SchNet", BLUE),
    "dtnn": ("DTNN", GREEN),
    "enn-s2s": ("enn-s2s", ORANGE),
}


def draw(measured: Sequence[Entry], folder: Path = FOLDER) -> list[Path]:
    """Draw what there is; give the pictures."""
    made = []
    with paper():
        for name, figure in (("table2", _molecules(measured)), ("table1", _learning_curves(measured))):
            if figure is not None:
                folder.mkdir(exist_ok=True)
                made.append(folder / f"{name}.png")
                finish(figure, made[-1])
    return made


def _molecules(measured: Sequence[Entry]) -> Figure | None:
    """Energies and forces of table 2, N = 1,000, trained on both: ours and the paper's, a row a molecule."""
    column = "schnet-1k-both"
    found = {e.key[1::2]: e for e in measured if e.table == "table2" and e.column == column}
    if not found:
        return None
    figure = Figure(figsize=(PAGE, 2.4), layout="constrained")
    for axes, quantity, unit in zip(
        figure.subplots(1, 2, sharey=True), ("energy", "forces"), ("kcal/mol", "kcal/mol/Å"), strict=True
    ):
        for place, molecule in enumerate(MOLECULES):
            published = paper_value("table2", molecule, column, quantity)
            entry = found.get((molecule, quantity))
            if entry is not None:
                axes.plot(
                    [entry.mae, published], [place, place], color=GRAY, linewidth=1, alpha=0.5, zorder=1
                )
                axes.scatter(entry.mae, place, s=22, zorder=2, label="this package", **_OURS)
            axes.scatter(published, place, s=22, zorder=3, label="Schütt et al. 2017", **_PAPER)
        axes.set_yticks(range(len(MOLECULES)), [_label(molecule) for molecule in MOLECULES])
        axes.invert_yaxis() if quantity == "energy" else None
        axes.set_xlabel(f"mean absolute error, {quantity} ({unit})")
        axes.set_xlim(left=0)
        tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    one = dict(zip(labels, handles, strict=True))
    figure.legend(one.values(), one.keys(), loc="outside upper center", ncols=2)
    return figure


def _learning_curves(measured: Sequence[Entry]) -> Figure | None:
    """Errors of U0 over the number of molecules of QM9 in training."""
    found = [e for e in measured if e.table == "table1"]
    if not found:
        return None
    figure = Figure(figsize=(4.6, 2.5), layout="constrained")
    axes = figure.subplots()
    for column, (label, color) in _SYSTEMS.items():
        ours = sorted((e.n_train, e.mae) for e in found if e.column == column)
        if ours:
            axes.plot(*zip(*ours, strict=True), color=color, marker="o", markersize=4, label=f"{label}, here")
        published = [(n, paper_value("table1", str(n), column, "energy")) for n in QM9_SIZES]
        published = [(n, value) for n, value in published if value is not None]
        axes.plot(
            *zip(*published, strict=True),
            **{"color": color, "marker": "o", "markersize": 4, "markerfacecolor": "none", "linestyle": ":"},
            label=f"{label}, published",
        )
    _log(axes)
    axes.set_xticks(QM9_SIZES, ["50,000", "100,000 ", " 110,462"])
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.get_xticklabels()[2].set_horizontalalignment("left")
    axes.set_xlim(45_000, 125_000)
    axes.set_xlabel("molecules in training")
    axes.set_ylabel("mean absolute error of U0 (kcal/mol)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(axes)
    return figure


def _log(axes: Axes) -> None:
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 5, 6, 8)))
    axes.yaxis.set_major_formatter("{x:g}")


def _label(molecule: str) -> str:
    return {"salicylic": "salicylic acid"}.get(molecule, molecule)
