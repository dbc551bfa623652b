"""The page that a terminal shows of a summary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pyg_schnet.datasets.report.distances import REACH
from pyg_schnet.io.units import GPa, kcal_per_mol

if TYPE_CHECKING:
    from pyg_schnet.datasets.report.summary import Summary

_Row = tuple[str, str, str, str, str]


def layout(summary: Summary) -> Group:
    """Lay a summary out for 80 columns and more."""
    footnote = "* RMS of the energy relative to fitted atomic references"
    parts = [_facts(summary), Text(""), _numbers(summary), Text(f"  {footnote}", style="dim")]
    if summary.warnings:
        parts += [Text("\nWarnings", style="bold"), _list(summary.warnings)]
    else:
        parts.append(Text("\n  Nothing looks wrong."))
    return Group(*parts)


def _facts(summary: Summary) -> Padding:
    grid = Table.grid(padding=(0, 2))
    facts = {
        "structures": f"{summary.structures:,}, {_periodic(summary)}",
        "atoms": _atoms(summary),
        "elements": ", ".join((*summary.elements, *map(str, summary.unknown_elements))),
        "compositions": _compositions(summary),
        "distances": _distances(summary),
        "copies": f"{summary.copies.number:,}" if summary.copies.number else "none",
        "forces": "none" if summary.forces is None else _slope(summary),
    }
    if summary.read_as is not None:
        facts["energies"] = f"read as {summary.read_as}"
    for name, text in facts.items():
        grid.add_row(Text(name, style="dim"), Text(text))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _periodic(summary: Summary) -> str:
    if summary.periodic in (0, summary.structures):
        return "periodic" if summary.periodic else "not periodic"
    return f"{summary.periodic:,} of them periodic"


def _atoms(summary: Summary) -> str:
    few, mean, many = summary.atoms
    return f"{few} each" if few == many else f"{few} to {many}, {mean:.1f} on average"


def _compositions(summary: Summary) -> str:
    if summary.compositions == 1:
        return summary.frequent[0][0]
    shown = ", ".join(f"{name} ({count:,})" for name, count in summary.frequent)
    more = "" if summary.compositions == len(summary.frequent) else ", …"
    return f"{summary.compositions:,}: {shown}{more}"


def _distances(summary: Summary) -> str:
    distances = summary.distances
    if distances.solitary is None:
        return "none: there are no two atoms"
    measured = distances.structures
    share = "" if measured == summary.structures else f" (of {measured:,} structures, evenly chosen)"
    if distances.shortest is None:
        return f"none below {REACH:g} Å{share}"
    far = f"{distances.solitary:.3f} Å" if math.isfinite(distances.solitary) else f"beyond {REACH:g} Å"
    return (
        f"shortest {distances.shortest:.3f} Å in structure {distances.shortest_in}; nearest neighbors at "
        f"most {far}{share}"
    )


def _slope(summary: Summary) -> str:
    work = summary.work
    if work is None:
        return "not compared with the energies"
    return (
        f"work and energy change of {work.pairs:,} near pairs: correlation {work.correlation:.2f}, "
        f"factor {work.factor:.3g}"
    )


def _numbers(summary: Summary) -> Padding:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for justify in ("left", "right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for row in _rows(summary):
        table.add_row(*map(Text, row))
    return Padding(table, (0, 0, 0, 1), expand=False)


def _rows(summary: Summary) -> Iterator[_Row]:
    energy, forces, stress = summary.energy, summary.forces, summary.stress
    yield _energy("energy, lowest", energy.min)
    yield _energy("  mean", energy.mean)
    yield _energy("  highest", energy.max)
    yield _energy("  standard deviation", energy.std)
    yield _energy("  spread*", energy.spread_per_atom, "/atom")
    if forces is not None:
        yield _energy("forces, RMS", forces.rms, "/Å")
        yield _energy(f"  largest, structure {forces.largest_in}", forces.largest, "/Å")
        yield _energy("  net force, RMS", forces.net_rms, "/Å")
    if stress is not None:
        yield _stress("stress, RMS", stress.rms)
        yield _stress("  largest", stress.largest)


def _energy(name: str, value: float, per: str = "") -> _Row:
    return name, _number(value), f"eV{per}", _number(value / kcal_per_mol), f"kcal/mol{per}"


def _stress(name: str, value: float) -> _Row:
    return name, _number(value), "eV/Å³", _number(value / GPa), "GPa"


def _number(value: float) -> str:
    size = abs(value)
    if size < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:,.4f}" if size < 1 else f"{value:,.3f}" if size < 1e5 else f"{value:,.2f}"


def _list(sentences: tuple[str, ...]) -> Padding:
    grid = Table.grid(padding=(0, 2))
    for sentence in sentences:
        grid.add_row(Text("*"), Text(sentence))
    return Padding(grid, (0, 0, 0, 2), expand=False)
