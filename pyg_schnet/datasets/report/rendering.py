"""Terminal pages of cards and of summaries, as rich renderables for 80 columns and more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pyg_schnet.datasets.report.distances import REACH
from pyg_schnet.io.units import GPa, kcal_per_mol

if TYPE_CHECKING:
    from pyg_schnet.datasets.cards.card import Card, CardFile
    from pyg_schnet.datasets.report.summary import Summary

_MOST_NAMES = 20  # values of a file that could be labels

_Row = tuple[str, str, str, str, str]


def render_card(card: Card) -> Group:
    """Return the page of a card."""
    parts = [
        Text(card.title, style="bold"),
        _card_facts(card),
        _heading("Properties"),
        _properties(card),
        _heading("Files"),
        *(_files(card.select(group=group) if group else card.files, group) for group in _groups(card)),
        _heading("Splits"),
        _grid((name, sentence) for name, sentence in card.splits.items()),
        _heading("Known defects"),
        _grid(("*", sentence) for sentence in card.defects),
        _heading("How to cite it"),
        Padding(Text(card.bibtex.strip()), (0, 0, 0, 2), expand=False),
    ]
    return Group(*parts)


def _card_facts(card: Card) -> Padding:
    facts = {
        "name": f"{card.name}, {card.year}",
        "license": card.license,
        "doi": card.doi,
        "more": card.url,
        "level": card.level_of_theory,
        "records": f"{card.records:,}",
        "elements": ", ".join(card.elements),
        "sample": f"{card.sample.file}: {card.sample.description}" if card.sample else "none",
    }
    return _grid(facts.items())


def _properties(card: Card) -> Padding:
    rows = [
        (
            entry.name,
            entry.published,
            entry.published_unit,
            entry.unit,
            entry.description,
            _mark(entry.checked),
        )
        for entry in card.properties
    ]
    return _table(("ours", "published", "unit", "our unit", "what it is", "checked"), rows)


def _files(files: Iterable[CardFile], group: str | None) -> Padding:
    files = tuple(files)
    levels = {file.level_of_theory for file in files}
    rows = [
        (
            f"  …/{file.name.split('/')[-1]}" if file.archive else file.name,
            file.molecule or "",
            file.level_of_theory or "" if len(levels) > 1 else "",
            "" if file.records is None else f"{file.records:,}",
            "" if file.bytes is None else _size(file.bytes),
            _hash(file),
            _mark(file.checked),
        )
        for file in files
    ]
    return _table(("file", "molecule", "level", "records", "size", "hash", "checked"), rows, title=group)


def _groups(card: Card) -> list[str | None]:
    return list(dict.fromkeys(file.group for file in card.files))


def _hash(file: CardFile) -> str:
    if file.sha256:
        return f"SHA-256 {file.sha256[:8]}…"
    return f"MD5 {file.md5[:8]}…" if file.md5 else ""


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} B"


def _mark(checked: bool) -> str:
    return "yes" if checked else "no"


def render_summary(summary: Summary) -> Group:
    """Return the page of a summary."""
    footnote = "* RMS of the energy relative to fitted atomic references"
    parts: list[Padding | Text] = [_grid(summary_facts(summary).items())]
    if summary.energy is not None:
        parts += [Text(""), _numbers(summary), Text(f"  {footnote}", style="dim")]
    if summary.properties:
        parts += [_heading("Properties"), _labels(summary)]
    if summary.warnings:
        parts += [Text("\nWarnings", style="bold"), _grid(("*", sentence) for sentence in summary.warnings)]
    else:
        parts.append(Text("\n  No warnings."))
    return Group(*parts)


def summary_facts(summary: Summary) -> dict[str, str]:
    """Return what a summary states in words, by name."""
    facts = {
        "structures": f"{summary.structures:,}, {_periodic(summary)}",
        "atoms": _atoms(summary),
        "elements": ", ".join((*summary.elements, *map(str, summary.unknown_elements))),
        "compositions": _compositions(summary),
        "distances": _distances(summary),
        "copies": f"{summary.copies.number:,}" if summary.copies.number else "none",
    }
    if summary.energy is not None:
        facts["forces"] = "none" if summary.forces is None else _consistency(summary)
    if summary.read_as is not None:
        facts["energies"] = f"read as {summary.read_as}"
    others = [
        f"{name} (atoms)" if kind == "atom" else name for name, kind in sorted(summary.available.items())
    ]
    if others:
        shown = ", ".join(others[:_MOST_NAMES])
        facts["other values"] = f"{shown}, …" if len(others) > _MOST_NAMES else shown
    return facts


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
        return "none: single atoms only"
    measured = distances.structures
    share = "" if measured == summary.structures else f" (of {measured:,} evenly spaced structures)"
    if distances.shortest is None:
        return f"none below {REACH:g} Å{share}"
    far = f"{distances.solitary:.3f} Å" if math.isfinite(distances.solitary) else f"beyond {REACH:g} Å"
    return (
        f"shortest {distances.shortest:.3f} Å in structure {distances.shortest_in}; nearest neighbors at "
        f"most {far}{share}"
    )


def _consistency(summary: Summary) -> str:
    work = summary.work
    if work is None:
        return "not compared with the energies"
    return (
        f"work and energy change of {work.pairs:,} similar pairs: correlation {work.correlation:.2f}, "
        f"factor {work.factor:.3g}"
    )


def _labels(summary: Summary) -> Padding:
    rows = [
        (name, f"{label.count:,}", *map(_number, (label.mean, label.std, label.min, label.max)))
        for name, label in summary.properties.items()
    ]
    return _table(("label", "known", "mean", "std", "lowest", "highest"), rows)


def _numbers(summary: Summary) -> Padding:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for justify in ("left", "right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for row in summary_numbers(summary):
        table.add_row(*map(Text, row))
    return Padding(table, (0, 0, 0, 1), expand=False)


def summary_numbers(summary: Summary) -> Iterator[_Row]:
    """Yield name, value and unit, and value and unit for chemists, of each quantity of a summary."""
    energy, forces, stress = summary.energy, summary.forces, summary.stress
    if energy is None:
        return
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
    if math.isnan(value):
        return ""
    if size < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:,.4f}" if size < 1 else f"{value:,.3f}" if size < 1e5 else f"{value:,.2f}"


def _heading(text: str) -> Padding:
    return Padding(Text(text, style="bold"), (1, 0, 0, 0), expand=False)


def _grid(rows: Iterable[tuple[str, str]]) -> Padding:
    grid = Table.grid(padding=(0, 2))
    for first, second in rows:
        grid.add_row(Text(first, style="dim"), Text(second))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], title: str | None = None) -> Padding:
    """Return a table without the columns that are empty in all rows."""
    table = Table(box=None, title=title, title_justify="left", padding=(0, 1))
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    for i in kept:
        justify = "right" if header[i] in ("records", "size") else "left"
        table.add_column(header[i], justify=justify, overflow="fold", header_style="dim")
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))  # Text: brackets in strings would be markup
    return Padding(table, (0, 0, 0, 1), expand=False)
