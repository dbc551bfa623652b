"""The pages made from the ledgers: tables between their markers, and the plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduction import ledger, plots
from benchmarks.reproduction.cells import MOLECULES, QM9_SIZES, QM9_TARGETS, Sources, cells, paper_value
from benchmarks.reproduction.ledger import ROOT, Entry

PAGES = (ROOT / "docs" / "reproduction.md", ROOT / "README.md")
_NAMES = {"salicylic": "salicylic acid"}
_COLUMNS = {
    "table1": {
        "schnet": "SchNet",
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
    "table2-revised": list(MOLECULES),
    "table3": ["known", "unknown"],
    "qm9-targets": list(QM9_TARGETS),
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
    """Lay a table out in Markdown: ours, with the paper's number in brackets."""
    found = {entry.key: entry for entry in measured if entry.table == name}
    columns = _COLUMNS[name]
    head = {"table1": "N", "table3": "molecules of the test set", "qm9-targets": "target"}.get(
        name, "molecule"
    )
    lines = []
    for row in _ROWS[name]:
        label = f"{int(row):,}" if row.isdigit() else _NAMES.get(row, row)
        for quantity, unit in _quantities(name, row):
            first = [label if quantity != "forces" else "", unit]
            cells = [_cell(found, name, row, column, quantity) for column in columns]
            lines.append("| " + " | ".join([*first, *cells]) + " |")
    titles = [head, "unit", *columns.values()]
    return "\n".join(["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles), *lines]) + "\n"


def summary(_: str, measured: Sequence[Entry]) -> str:
    """Lay the best column of table 2 out in Markdown: one row for each molecule."""
    name, column = "table2", "schnet-1k-both"
    found = {entry.key: entry for entry in measured if entry.table == name}
    lines = ["| molecule | energy, kcal/mol | forces, kcal/mol/Å |", "|---|---|---|"]
    for row in MOLECULES:
        cells = [_cell(found, name, row, column, quantity) for quantity in ("energy", "forces")]
        lines.append("| " + " | ".join([_NAMES.get(row, row), *cells]) + " |")
    return "\n".join(lines) + "\n"


def runs(_: str, measured: Sequence[Entry]) -> str:
    """Lay out in Markdown how each column was made: recipe, steps, minutes and commits."""
    lines = ["| table | column | recipe | runs | steps | minutes each | commits |", "|---" * 7 + "|"]
    for name, columns in _COLUMNS.items():
        recipes = {(cell.column, row): cell.recipe for cell in cells(name, Sources()) for row in cell.rows}
        for column, title in columns.items():
            own = {e.row: e for e in measured if (e.table, e.column) == (name, column)}.values()
            if own:
                files = dict.fromkeys(recipes[column, e.row] for e in own)
                links = ", ".join(f"[{Path(file).name}](../{file})" for file in files if file)
                steps, minutes = [e.steps for e in own], [e.minutes for e in own]
                row = [name, title, links or "–", str(len(own)), _range(steps, ","), _range(minutes, ".1f")]
                lines.append(
                    "| " + " | ".join([*row, ", ".join(dict.fromkeys(e.commit for e in own))]) + " |"
                )
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    if high == 0:
        return "–"
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _quantities(table: str, row: str) -> list[tuple[str, str]]:
    """Give what is measured of a row, with its unit."""
    if table == "qm9-targets":
        return [(row, QM9_TARGETS[row])]
    return [("energy", "kcal/mol"), ("forces", "kcal/mol/Å")][: 1 if table == "table1" else 2]


def _cell(found: dict, name: str, row: str, column: str, quantity: str) -> str:
    entry, published = found.get((name, row, column, quantity)), paper_value(name, row, column, quantity)
    if name == "table3":  # a stand-in: no number of the paper's is comparable
        published = None
    if entry is None:
        return "–" if published is None else f"– ({published:.2f})"
    ours = f"{entry.mae:.3f}" if entry.mae < 1 else f"{entry.mae:.2f}"
    if published is None:
        return ours
    return f"**{ours}** ({published:.2f})" if entry.mae <= published else f"{ours} ({published:.2f})"


_TABLES = {"table2-summary": summary, "runs": runs}  # those that are not the paper's
