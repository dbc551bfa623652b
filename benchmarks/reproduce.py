"""Re-run the paper's tables, cell by cell, and make the pages of results from what came out.

    python benchmarks/reproduce.py table2 --md17 DIR                    # all cells of the table
    python benchmarks/reproduce.py table2 --md17 DIR --rows ethanol     # some
    python benchmarks/reproduce.py pages                                # tables and plots of docs and README

Each cell is a recipe in datasets/<name>/recipes, run by `pyg-schnet train` and measured by `pyg-schnet
evaluate`; the numbers go to datasets/<name>/results.csv, from which tables and plots are made. A cell that
was interrupted goes on from its last checkpoint; one that is in the ledger is left alone unless --again is
given. --keep copies unfinished runs to datasets/<name>/unfinished, from where another checkout goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reproduction import ledger, pages
from benchmarks.reproduction.cells import Sources, cells
from benchmarks.reproduction.running import keep, run


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=["table1", "table2", "table2-revised", "table3", "qm9-targets", "pages"]
    )
    parser.add_argument("--rows", nargs="+", help="of the table, as ethanol or 50000")
    parser.add_argument("--columns", nargs="+", help="of the table, as schnet-1k-both")
    parser.add_argument("--md17", type=Path, help="folder of rmd17_<molecule>_<part>_<split>.npz")
    parser.add_argument("--md17-full", type=Path, help="folder of md17_<molecule>.npz")
    parser.add_argument("--qm9", type=Path, help="processed QM9, as made by pyg-schnet data qm9 --root DIR")
    parser.add_argument("--iso17", type=Path, help="folder of ISO17's processed folds")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="where the runs go")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    parser.add_argument("--threads", type=int, help="of each cell; as many as are fastest by default")
    parser.add_argument("--keep", action="store_true", help="only copy unfinished runs into the repository")
    parser.add_argument("--again", action="store_true", help="train cells that are in the ledger, too")
    options, more = parser.parse_known_args(arguments)
    if options.what == "pages":
        pages.write()
        return 0
    sources = Sources(options.md17, options.md17_full, options.qm9, options.iso17)
    chosen = [
        cell
        for cell in cells(options.what, sources)
        if (not options.rows or set(options.rows) & set(cell.rows))
        and (not options.columns or cell.column in options.columns)
    ]
    if not chosen:
        parser.error("no such rows and columns; docs/reproduction.md has the tables")
    for cell in (cell for cell in chosen if cell.missing):
        print(f"{cell.name}: {cell.missing}")
    done = {entry.key[:3] for cell in chosen for entry in ledger.read(ledger.path_of(cell.dataset))}
    ready = [
        cell
        for cell in chosen
        if not cell.missing
        and (options.again or not {(cell.table, row, cell.column) for row in cell.rows} <= done)
    ]
    if options.keep:
        keep(ready, options.runs)
        return 0
    finished = run(ready, options.runs, options.jobs, options.threads, more)
    if not more:
        pages.write()
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
