"""Train the models of revised MD17, one molecule after the other, and add them.

    python models/rmd17.py --md17 DIR [--runs DIR] [--molecules ethanol aspirin]

DIR holds rmd17_<molecule>_<part>_<split>.npz. Each takes 5 to 10 minutes on one quiet core. Interrupted, it
continues where it stopped; models that are there are left alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reproduction.cells import MOLECULES, Sources, cells
from benchmarks.reproduction.running import measure
from models.add import FOLDER, add

FORMULAS = {
    "aspirin": "C9H8O4",
    "benzene": "C6H6",
    "ethanol": "C2H6O",
    "malonaldehyde": "C3H4O2",
    "naphthalene": "C10H8",
    "salicylic": "C7H6O3",
    "toluene": "C7H8",
    "uracil": "C4H4N2O2",
}


def facts(molecule: str) -> dict:
    """Return the fields of a molecule's card that are not measured."""
    words = f"{molecule} acid" if molecule == "salicylic" else molecule
    return {
        "name": f"rmd17-{molecule}",
        "title": f"{words.capitalize()}: energies and forces of dynamics at 500 K",
        "limits": f"{words} ({FORMULAS[molecule]}) alone, as in dynamics at 500 K or less; no reactions",
        "formula": FORMULAS[molecule],
        "level_of_theory": "PBE/def2-SVP",
        "data": (
            "revised MD17 (rMD17): Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 "
            "(2020), doi:10.6084/m9.figshare.12672038"
        ),
        "data_license": "CC0 1.0",
        "split": "training: the 1,000 frames of split 01; validation: test frames of split 02",
        "recipe": "datasets/md17/recipes/md17_n1000.yaml, with energies and forces of the revised set",
        "test_set": "test frames of split 01",
    }


def main(arguments: list[str] | None = None) -> int:
    """Train and add the molecules that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--md17", type=Path, required=True, help="folder of the data")
    parser.add_argument("--runs", type=Path, default=Path("runs/models"), help="folder of the runs")
    parser.add_argument("--molecules", nargs="+", choices=MOLECULES, default=MOLECULES)
    options = parser.parse_args(arguments)
    of_molecule = {next(iter(cell.rows)): cell for cell in cells("table2-revised", Sources(options.md17))}
    for molecule in options.molecules:
        if (FOLDER / f"rmd17-{molecule}.toml").exists():
            continue
        cell = of_molecule[molecule]
        run = options.runs / cell.name
        measure(cell, run, threads=1, options=[])
        keys = {"energy_key": "energies", "forces_key": "forces"}
        card = add(run, facts(molecule), options.md17 / f"rmd17_{molecule}_test_01.npz", **keys)
        print(
            f"{card.name}: " + ", ".join(f"{e.quantity} {e.mae:g} {e.unit}" for e in card.errors), flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
