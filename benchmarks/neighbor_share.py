"""How much of a step the neighbor search takes: 64 atoms of silicon at 300 K, through ASE.

    python benchmarks/neighbor_share.py [MODEL] [--steps 500] [--threads 1]

Energy, forces and stress at each step of 1 fs; processor time, which other programs do not change. With MODEL
(datasets/silicon has its recipe) the atoms move by its forces; without, the network has 64 features, 3
interactions, a cutoff of 5 Å and random weights, and springs let the atoms move as far as silicon's do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.harmonic import SpringCalculator
from ase.md.verlet import VelocityVerlet

from pyg_schnet import Potential, SchNet, load
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.velocities import draw_momenta

SPRING = 4.5  # eV/Å²: mean square displacements of 0.0058 Å² a coordinate at 300 K, silicon's


def crystal() -> Atoms:
    """Give 64 atoms with the energy of 300 K, of which half becomes potential."""
    atoms = bulk("Si", cubic=True).repeat(2)
    draw_momenta(atoms, 600.0, np.random.default_rng(0), rotation=True)
    return atoms


def main() -> int:
    """Move, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a checkpoint of silicon")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    potential = load(options.model) if options.model else Potential(SchNet(64, 64, 3, 50, 5.0))
    atoms = crystal()
    calculator = SchNetCalculator(potential, compile=True)
    if options.model:
        atoms.calc = calculator
    else:
        atoms.calc = SpringCalculator(atoms.positions.copy(), SPRING)
    neighbors, times = calculator.neighbors, []
    assert neighbors is not None
    search, searching = neighbors.add_to, 0.0

    def timed(data) -> None:
        nonlocal searching
        began = time.process_time()
        search(data)
        searching += time.process_time() - began

    neighbors.add_to = timed  # pyright: ignore[reportAttributeAccessIssue]
    integrator, shares = VelocityVerlet(atoms, units.fs), []
    integrator.run(200)  # to where it does not know of the perfect lattice
    for step in range(options.steps + 10):
        integrator.run(1)
        structure = atoms.copy()
        searching, began = 0.0, time.process_time()
        calculator.calculate(structure, ["energy", "forces", "stress"], ["positions"])
        if step >= 10:  # programs are made before
            times.append(time.process_time() - began)
            shares.append(searching)
    mean, search_mean = 1e3 * statistics.mean(times), 1e3 * statistics.mean(shares)
    print(
        f"{options.steps} steps, {neighbors.searches} searches: {mean:.2f} ms a step, of which neighbors "
        f"take {search_mean:.3f} ms, {100 * search_mean / mean:.1f} %"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
