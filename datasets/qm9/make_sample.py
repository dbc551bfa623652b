"""Make the sample of QM9: some of its molecules in the format of the published archive.

    python datasets/qm9/make_sample.py

The molecules come from the package qm9pack (``pip install 'pyg-schnet[qm9]'``), which holds all of QM9. The
numbers are written as they stand there, small ones as ``6.8*^-6`` and those of atoms with a space for their
sign, which is how the archive has them.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import random
import re
import tarfile
from pathlib import Path

FIRST = 30  # the smallest molecules, by their numbers
CHOSEN = 90  # more: five with exponents, and at random five with charges, five with fluorine and 75 others
TARGETS = (
    *("RotA_GHz", "RotB_GHz", "RotC_GHz", "Dipole_debye", "Polarizability_bohr3", "HOMO_au", "LUMO_au"),
    *("HOMO_LUMO_gap_au", "R2_bohr2", "ZPVE_au", "InternalEnergy_0K_au", "InternalEnergy_298K_au"),
    *("Enthalphy_298K_au", "GibbsFreeEnergy_298K_au", "Heatcapacity_Cv_cal_mol_K"),
)


def package_rows() -> list[dict[str, str]]:
    """Read all molecules of the package, without importing it."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("qm9pack is needed: pip install 'pyg-schnet[qm9]'")
    rows: list[dict[str, str]] = []
    for path in sorted(Path(spec.submodule_search_locations[0]).glob("data/qm9_part*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    return rows


def choose(rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Take the first molecules, some that are written with exponents or charges, and others at random."""
    generator = random.Random(seed)
    with_exponents = [row for row in rows if "E" in row["XYZ_Ang"]][:5]
    charged = [row for row in rows if "+" in row["SMILES"]]
    fluorine = [row for row in rows if "F" in row["SMILES"]]
    chosen = [*rows[:FIRST], *with_exponents, *generator.sample(charged, 5), *generator.sample(fluorine, 5)]
    chosen += generator.sample(rows, CHOSEN - 15)
    return sorted({row["Index"]: row for row in chosen}.values(), key=lambda row: int(row["Index"]))


def as_xyz(row: dict[str, str]) -> str:
    """Write a molecule in the published format, where only the second SMILES and InChI may differ.

    These are of the relaxed geometry in the archive; the package has the first ones alone.
    """
    symbols = row["Elements"].strip("[]").replace("'", "").split(",")
    positions = [point.split(",") for point in row["XYZ_Ang"].strip("[]").split("],[")]
    charges = row["Mulliken_pop"].strip("[]").split(",")
    frequencies = row["Harmonic_Freq_cmi"].strip("[]").split(",")
    atoms = zip(symbols, positions, charges, strict=True)
    lines = [
        row["N_atoms"],
        "\t".join([f"gdb {row['Index']}", *(row[name] for name in TARGETS), ""]),
        *("\t".join([symbol, *map(_signed, [*position, charge])]) for symbol, position, charge in atoms),
        "\t".join(frequencies),
        f"{row['SMILES']}\t{row['SMILES']}\t",
        f"{row['InChi']}\t{row['InChi']}",
    ]
    head, body = lines[:2], [re.sub(r"E(-?\d+)", r"*^\1", line) for line in lines[2:-2]]
    return "\n".join([*head, *body, *lines[-2:], ""])


def _signed(number: str) -> str:
    return number if number.startswith("-") else f" {number}"


def main() -> None:
    """Write the archive, the same bytes each time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("sample.xyz.tar.bz2"))
    options = parser.parse_args()
    chosen = choose(package_rows(), options.seed)
    with tarfile.open(options.out, "w:bz2", format=tarfile.USTAR_FORMAT) as archive:
        for row in chosen:
            text = as_xyz(row).encode()
            member = tarfile.TarInfo(row["XYZ_file"])
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    print(json.dumps({"molecules": len(chosen), "bytes": options.out.stat().st_size}))


if __name__ == "__main__":
    main()
