"""The page that a terminal shows of a card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pyg_schnet.datasets.cards.card import Card, CardFile


def layout(card: Card) -> Group:
    """Lay a card out for 80 columns and more."""
    parts = [
        Text(card.title, style="bold"),
        _facts(card),
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


def _facts(card: Card) -> Padding:
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


def _heading(text: str) -> Padding:
    return Padding(Text(text, style="bold"), (1, 0, 0, 0), expand=False)


def _grid(rows: Iterable[tuple[str, str]]) -> Padding:
    grid = Table.grid(padding=(0, 2))
    for first, second in rows:
        grid.add_row(Text(first, style="dim"), Text(second))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], title: str | None = None) -> Padding:
    """Lay out rows without the columns that are empty in all of them."""
    table = Table(box=None, title=title, title_justify="left", padding=(0, 1))
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    for i in kept:
        justify = "right" if header[i] in ("records", "size") else "left"
        table.add_column(header[i], justify=justify, overflow="fold", header_style="dim")
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))  # Text, for brackets would be markup
    return Padding(table, (0, 0, 0, 1), expand=False)
