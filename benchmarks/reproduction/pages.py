"""The pages made from the ledgers: README's tables between their marks, and the plots."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.reproduction import ledger, plots
from benchmarks.reproduction.cells import MOLECULES, QM9_SIZES, QM9_TARGETS, paper_value
from benchmarks.reproduction.ledger import ROOT, Entry

README = ROOT / "README.md"
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
    """Put the tables between their marks in README, and draw the plots."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    plots.draw(entries())


def with_tables(text: str) -> str:
    """Replace what stands between ``<!-- table2 -->`` and ``<!-- end -->``, for each table."""

    def filled(mark: re.Match) -> str:
        return f"<!-- {mark[1]} -->\n{table(mark[1], entries())}<!-- end -->"

    return re.sub(r"<!-- (table\d[a-z-]*|qm9-targets) -->\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


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
