"""Steps of molecular dynamics: one molecule and a crystal through ASE, many molecules side by side."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from benchmarks import inputs
from benchmarks.accelerator.implementations import (
    COMPILED,
    EAGER,
    PYG,
    SCHNETPACK,
    Work,
    build,
    save_structures,
)
from benchmarks.accelerator.rows import Rows
from benchmarks.accelerator.timing import Settings, difference, synchronize
from benchmarks.agreement import BOUNDS
from benchmarks.peers.dynamics import BatchedSystem, Dynamics
from benchmarks.peers.peer import Peer

ORDER = (PYG, EAGER, COMPILED, SCHNETPACK)


def measure(rows: Rows, settings: Settings) -> None:
    """Measure steps of ASE's NVE of ethanol and silicon, and of many ethanols in one batch."""
    replicas = settings.size(256, 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        molecule = "one ethanol, 64 × 3, a step of ASE's NVE"
        crystal = f"silicon, {settings.size(216, 8)} atoms, periodic, 128 × 6, a step of ASE's NVE"
        batch = f"{replicas} ethanols, 64 × 3, a step of all, run_md_batched"
        data = save_structures(folder, "molecule", inputs.md17(None, 1)[0], "paper")
        work = Work(molecule, data, "paper", kind="infer")
        weights, expected = folder / "weights.npz", []
        for variant in (v for v in ORDER if settings.variants is None or v in settings.variants):
            with rows.row(molecule, variant) as row:
                given = weights if weights.exists() else None
                peer = build(variant, work, settings.device, given, settings.quick)
                dynamics = Dynamics(peer)
                atoms = Atoms(dynamics.numbers, dynamics.positions, calculator=dynamics.calculator)
                start = time.perf_counter()
                forces = atoms.get_forces()
                row.preparation = time.perf_counter() - start
                if variant == PYG:
                    peer.save(str(weights))
                    expected.append(forces)
                elif expected and variant != SCHNETPACK:
                    row.difference = difference(_tensor(forces), _tensor(expected[0]))
                    row.bound = BOUNDS["float32"]
                row.ms = _milliseconds(dynamics, settings)
        for variant in (v for v in (EAGER, COMPILED) if settings.variants is None or v in settings.variants):
            with rows.row(crystal, variant) as row:
                row.ms = _milliseconds(_crystal(variant, folder, settings), settings)
        with rows.row(batch, COMPILED) as row:  # which it does by itself
            given = weights if weights.exists() else None
            peer = build(EAGER, work, settings.device, given, settings.quick)
            row.ms = _milliseconds(BatchedSystem(peer, replicas), settings)


def _crystal(variant: str, folder: Path, settings: Settings) -> Callable[[int], object]:
    """Return dynamics of silicon."""
    cells = settings.size(3, 1)
    atoms = bulk("Si", cubic=True) * (cells, cells, cells)
    arrays = inputs.unlabelled(atoms.numbers, atoms.positions[None], np.zeros(len(atoms), int), edges=False)
    work = Work("silicon", save_structures(folder, "silicon", arrays, "today"), "today", kind="infer")
    peer = build(variant, work, settings.device, None, settings.quick)
    return CrystalDynamics(peer, atoms)


class CrystalDynamics:
    """Runs at constant energy of a periodic system, with the calculator of an implementation.

    Args:
        peer: Ours.
        atoms: The crystal.
    """

    def __init__(self, peer: Peer, atoms: Atoms):
        self.dynamics, self.atoms = Dynamics(peer), atoms

    def __call__(self, steps: int) -> None:
        """Take steps of 0.5 fs."""
        self.dynamics.run(self.atoms.copy(), steps)


def _milliseconds(run: Callable[[int], object], settings: Settings) -> float:
    """Return the time of a step in ms: that of a long run less that of a short one, over the steps between.

    The host's clock: ASE waits for forces at each step.
    """
    short, steps = settings.size(20, 2), settings.size(200, 2)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        run(count)
        synchronize(settings.device)
        return time.perf_counter() - start

    seconds(short)
    before = seconds(short)
    return 1e3 * max(seconds(short + steps) - before, 0.0) / steps


def _tensor(forces: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(forces))
