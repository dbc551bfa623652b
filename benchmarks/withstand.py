"""Hurt the program on purpose, with a seed, and write down what it withstood.

    python benchmarks/withstand.py kills --seed 1            # see --help of each for its size
    python benchmarks/withstand.py fuzz --seed 1             # guided: the same led by atheris
    python benchmarks/withstand.py pages                     # the tables of docs/robustness.md and LOG.md

Each trial is a module of tests/faults; its figures go to benchmarks/results/faults.csv, unless --dry
is given. The exit code is 1 where anything failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults import ledger

TRIALS: dict[str, str] = {
    "fuzz": "fuzzing",
    "guided": "guided",
    "kills": "kills",
    "steadiness": "steadiness",
    "processes": "processes",
}  # name of a trial: its module, with add_arguments(parser) and run(options)


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trials = parser.add_subparsers(dest="trial", required=True)
    trials.add_parser("pages", help="make the tables from the ledger")
    for name, module in TRIALS.items():
        trial = importlib.import_module(f"tests.faults.{module}")
        own = trials.add_parser(name, help=trial.__doc__)
        own.add_argument("--seed", type=int, default=0, help="of the random choices")
        own.add_argument("--dry", action="store_true", help="leave the ledger as it is")
        trial.add_arguments(own)
    options = parser.parse_args(arguments)
    if options.trial == "pages":
        ledger.write_pages()
        return 0
    entries = importlib.import_module(f"tests.faults.{TRIALS[options.trial]}").run(options)
    print(ledger.table(entries))
    if not options.dry:
        ledger.record(entries)
        ledger.write_pages()
    return 1 if any(entry.failed for entry in entries) else 0


if __name__ == "__main__":
    sys.exit(main())
