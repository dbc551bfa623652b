"""The pages made from the ledgers: tables between their markers, and the plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduction import ledger, plots
from benchmarks.reproduction.cells import (
    MOLECULES,
    QM9_SIZES,
    QM9_TARGETS,
    Sources,
    cells,
    other_value,
    paper_value,
)
from benchmarks.reproduction.ledger import ROOT, Entry

PAGES = (ROOT / "docs" / "reproduction.md", ROOT / "README.md")
_NAMES = {"salicylic": "salicylic acid"}
_HEADS = {"table1": "N: U0", "table3": "test set: %s"}  # of the first column; elsewhere the quantity
_UNITS = (("energy", "kcal/mol"), ("forces", "kcal/mol/Å"))
_COLUMNS = {
    "table1": {
        "schnet": "SchNet",
        "schnet-wide": "SchNet, wide",
        "schnet-wide-ens3": "three of them",
        "dtnn": "DTNN",
        "enn-s2s": "enn-s2s",
        "enn-s2s-ens5": "enn-s2s-ens5",
    },
    "table2": {
        "gdml-1k": "GDML, 1k",
        "schnet-1k-energy": "SchNet, 1k, energies",
        "schnet-1k-both": "SchNet, 1k, both",
        "dtnn-50k-energy": "DTNN, 50k, energies",
        "schnet-50k-energy": "SchNet, 50k, energies",
        "schnet-50k-both": "SchNet, 50k, both",
    },
    "table2-revised": {"schnet-1k-both": "SchNet, 1k, both"},
    "qm9-targets": {"schnet": "SchNet"},
    "table3": {"mean": "mean predictor", "schnet-energy": "SchNet, energies", "schnet-both": "SchNet, both"},
}
_ROWS = {
    "table1": [str(size) for size in QM9_SIZES],
    "table2": list(MOLECULES),
    "table3": ["known", "unknown"],
}


def write() -> None:
    """Write the tables between their markers, and draw the plots."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    plots.draw(entries())


def with_tables(text: str) -> str:
    """Replace what stands between ``<!-- table2 -->`` and ``<!-- end -->``, for each table."""

    def filled(mark: re.Match) -> str:
        return f"<!-- {mark[1]} -->\n{_TABLES.get(mark[1], table)(mark[1], entries())}<!-- end -->"

    names = "|".join((*_COLUMNS, *_TABLES))
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


def entries() -> list[Entry]:
    """Read all ledgers."""
    return [e for name in ("md17", "qm9", "iso17") for e in ledger.read(ledger.path_of(name))]


def table(name: str, measured: Sequence[Entry]) -> str:
    """Lay a table out in Markdown, energies and forces apart: ours, with the paper's number in brackets."""
    found = {entry.key: entry for entry in measured if entry.table == name}
    columns = _COLUMNS[name]
    if name == "qm9-targets":
        rows = [[t, unit, *(_cell(found, name, t, c, t) for c in columns)] for t, unit in QM9_TARGETS.items()]
        return _markdown(["target", "unit", *columns.values()], rows)
    parts = []
    for quantity, unit in _UNITS[: 1 if name == "table1" else 2]:
        rows = []
        for row in _ROWS[name]:
            label = f"{int(row):,}" if row.isdigit() else _NAMES.get(row, row)
            rows.append([label, *(_cell(found, name, row, column, quantity) for column in columns)])
        title = f"{_HEADS.get(name, quantity)}, {unit}".replace("%s", quantity)
        parts.append(_markdown([title, *columns.values()], rows))
    return "\n".join(parts)


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(titles), *lines[1:]]) + "\n"


def summary(name: str, measured: Sequence[Entry]) -> str:
    """Lay the best column of table 2 out in Markdown, with its energies and forces."""
    name, column = name.removesuffix("-summary"), "schnet-1k-both"
    found = {entry.key: entry for entry in measured if entry.table == name}
    rows = []
    for row in MOLECULES:
        cells = [_cell(found, name, row, column, quantity) for quantity, _ in _UNITS]
        rows.append([_NAMES.get(row, row), *cells])
    return _markdown(["molecule", *(f"{quantity}, {unit}" for quantity, unit in _UNITS)], rows)


def runs(_: str, measured: Sequence[Entry]) -> str:
    """Lay out in Markdown how each column was made: recipe, steps, minutes and commits."""
    rows = []
    for name, columns in _COLUMNS.items():
        recipes = {(cell.column, row): cell.recipe for cell in cells(name, Sources()) for row in cell.rows}
        for column, title in columns.items():
            own = {e.row: e for e in measured if (e.table, e.column) == (name, column)}.values()
            if own:
                files = dict.fromkeys(recipes[column, e.row] for e in own)
                links = ", ".join(f"[{Path(file).name}](../{file})" for file in files if file)
                steps, minutes = [e.steps for e in own], [e.minutes for e in own]
                row = [name, title, links or "–", str(len(own)), _range(steps, ","), _range(minutes, ".1f")]
                rows.append([*row, ", ".join(dict.fromkeys(e.commit for e in own))])
    return _markdown(["table", "column", "recipe", "runs", "steps", "minutes each", "commits"], rows)


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    if high == 0:
        return "–"
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _cell(found: dict, name: str, row: str, column: str, quantity: str) -> str:
    entry, published = found.get((name, row, column, quantity)), paper_value(name, row, column, quantity)
    if name == "table3":  # a stand-in: no number of the paper's is comparable
        published = None
    digits, other = 2, other_value(name, row, quantity)
    if other is not None:
        digits, published = (3 if other > 0.005 else 4), other
    brackets = "" if published is None else f"({published:.{digits}f})"
    if entry is None:
        return f"– {brackets}".rstrip()
    ours = f"{entry.mae:.2f}" if entry.mae >= 1 else f"{entry.mae:.{max(digits, 3)}f}"
    better = published is not None and entry.mae <= published
    return f"{f'**{ours}**' if better else ours} {brackets}".rstrip()


_TABLES = {
    "table2-summary": summary,
    "table2-revised": summary,
    "runs": runs,
}  # those that are not the paper's
