"""Time, memory and exchanged bytes of `pair_style schnet` by number of atoms and of processes.

    python benchmarks/lammps_scaling.py [--atoms 1000 10000 100000] [--ranks 1 2] [--json FILE]

Shaken silicon at constant energy, random weights: 64 features and 3 interactions within 5 Å. Time is that of
a step after the first ones; memory is what the peak grows by between the box with its atoms and the end.
Bytes are those of features that ghosts receive and return in a step, counted from the number of ghosts. With
two ranks, each size is measured with the same number of atoms in all, and with the same for each rank.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from pyg_schnet import Potential, SchNet
from pyg_schnet.simulation import build_lammps_plugin, set_lammps_pair_style, start_lammps

FEATURES, INTERACTIONS, CUTOFF = 64, 3, 5.0  # Å
LATTICE = 5.43  # Å, of a cubic cell with eight atoms


def measure(atoms: int, steps: int) -> dict[str, float] | None:
    """Measure in the processes of `mpirun`; return the numbers in the first of them."""
    torch.manual_seed(0)
    network = SchNet(FEATURES, FEATURES, INTERACTIONS, 50, CUTOFF, envelope="polynomial")
    side = max(1, round((atoms / 8) ** (1 / 3)))
    length = max(1, round(atoms / 8 / side**2))
    lmp = start_lammps("-log", "none", "-screen", "none")
    lmp.commands_string(
        f"units metal\nlattice diamond {LATTICE}\nregion box block 0 {length} 0 {side} 0 {side}\n"
        "create_box 1 box\ncreate_atoms 1 box\nmass 1 28.085\ndisplace_atoms all random 0.1 0.1 0.1 1\n"
        "velocity all create 300 1\nfix move all nve\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    set_lammps_pair_style(lmp, Potential(network).eval(), ["Si"])
    lmp.command("run 2")
    start = time.perf_counter()
    lmp.command(f"run {steps}")
    seconds = (time.perf_counter() - start) / steps
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    own, ghosts = lmp.extract_setting("nlocal"), lmp.extract_setting("nghost")
    if lmp.extract_setting("world_rank"):
        return None
    return {
        "atoms": int(lmp.get_natoms()),
        "ranks": lmp.extract_setting("world_size"),
        "seconds": seconds,
        "bytes_per_atom": 1024 * grown / own,
        "ghosts_per_atom": ghosts / own,
        "exchanged_per_atom": 4 * INTERACTIONS * 4 * FEATURES * ghosts / own,
    }


def run(atoms: int, ranks: int, steps: int) -> dict[str, float]:
    """Measure in fresh processes."""
    command = [str(Path(sys.prefix) / "bin" / "mpirun"), "-np", str(ranks), sys.executable, __file__]
    done = subprocess.run(
        [*command, "--measure", str(atoms), str(steps)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure all sizes, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        if (row := measure(*options.measure)) is not None:
            print(json.dumps(row), flush=True)
        return
    build_lammps_plugin()  # before it is measured
    rows = [
        run(atoms * (ranks if weak else 1), ranks, max(5, 200_000 // atoms))
        for atoms in options.atoms
        for ranks, weak in [(n, False) for n in options.ranks] + [(n, True) for n in options.ranks if n > 1]
    ]
    table = Table(title=f"pair_style schnet, {platform.machine()}")
    for name in (
        "atoms",
        "ranks",
        "ms/step",
        "µs/atom/step",
        "kB/atom",
        "ghosts/atom",
        "kB exchanged/atom/step",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['atoms']:,}",
            str(row["ranks"]),
            f"{1e3 * row['seconds']:.1f}",
            f"{1e6 * row['seconds'] / row['atoms']:.2f}",
            f"{row['bytes_per_atom'] / 1e3:.1f}",
            f"{row['ghosts_per_atom']:.2f}",
            f"{row['exchanged_per_atom'] / 1e3:.1f}",
        )
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
