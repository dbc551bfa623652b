"""Compare a general potential of organic molecules with its teacher, on molecules that it never saw.

    python -m benchmarks.organic RUN --cache data/organic-test            # all parts
    python -m benchmarks.organic RUN --parts frames torsion --molecules 20
    python -m benchmarks.organic RUN --record      # numbers to datasets/organic/results.csv

What the teacher computes is kept in the cache, a file a molecule, and so are the dynamics of the potential: a
run that was interrupted goes on. The molecules are those of datasets/organic/test_molecules.csv, of which no
conformer was trained on; some parts take the first ones only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import yaml
from rdkit import RDLogger
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.organic.measures import MEASURES, Measured, Subject
from benchmarks.organic.references import Teacher, read_tested
from benchmarks.reproduction import ledger
from benchmarks.reproduction.running import commit
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.potentials.model_files import resolve_models
from pyg_schnet.training import RunDirectory

# Molecules of each of the two sets: two times 50 molecules of dynamics are 100.
COUNTS = {"frames": 100, "torsion": 50, "conformers": 40, "vibrations": 20, "speed": 20, "dynamics": 50}


def main(arguments: list[str] | None = None) -> int:
    """Measure what the arguments ask for, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="checkpoint or run")
    parser.add_argument("--parts", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--molecules", type=int, help="at most, of each set")
    parser.add_argument("--cache", type=Path, default=Path("data/organic-test"))
    parser.add_argument("--record", action="store_true", help="write the numbers into the ledger")
    options = parser.parse_args(arguments)
    RDLogger.DisableLog("rdApp.*")
    (model,) = resolve_models(options.model)
    tested = read_tested()
    results = []
    for part in options.parts:
        count = min(COUNTS[part], options.molecules or COUNTS[part])
        molecules = {row: smiles[:count] for row, smiles in tested.items()}
        subject = Subject(model, molecules, options.cache, hash_file(model)[:16])
        results += MEASURES[part](subject)
    Console(width=110).print(table(results))
    if options.record:
        ledger.record(ledger.path_of("organic"), entries(results, RunDirectory(Path(model).parent)))
    return 0 if all(result.holds is not False for result in results) else 1


def table(results: list[Measured]) -> Table:
    """Lay the numbers out with units and bounds."""
    out = Table(title=f"Against {Teacher.name}, mean absolute errors", title_justify="left")
    for column, justify in (("molecules", "left"), ("quantity", "left"), ("value", "right"), ("unit", "left"),
                            ("bound", "left"), ("", "left"), ("number", "right")):  # fmt: skip
        out.add_column(column, justify=justify)
    for result in results:
        verdict = {None: "", True: "holds", False: "fails"}[result.holds]
        cells = (result.row, result.quantity, f"{result.value:#.3g}".rstrip("."), result.unit, result.bound)
        out.add_row(*cells, verdict, str(result.count))
    return out


def entries(results: list[Measured], run: RunDirectory) -> list[ledger.Entry]:
    """Return the rows of the ledger."""
    last, config = run.read_metrics()[-1], yaml.safe_load(run.config.read_text(encoding="utf-8"))
    about = {
        "n_train": len(run.read_split().train),
        "labels": Teacher.name,
        "split": "unseen molecules",
        "seed": config["trainer"]["seed"],
        "steps": int(last["step"]),
        "minutes": last["minutes"],
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": config["trainer"]["threads"] or 0,
        "commit": commit(),
        "paper": None,
    }
    return [
        ledger.Entry("organic", result.row, "schnet", result.quantity, result.unit, mae=result.value, **about)
        for result in results
    ]


if __name__ == "__main__":
    sys.exit(main())
