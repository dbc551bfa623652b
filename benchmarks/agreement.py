"""Comparison of the implementations' outputs: energies and forces with equal weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rounds import Pool, progress, spec_of
from benchmarks.tasks import Task
from benchmarks.workers import Contender, WorkerError

BOUNDS = {"float64": 1e-6, "float32": 1e-4}
TRANSPLANTED = ("pyg", "schnetpack")  # whose weights ours can take over


@dataclass(frozen=True)
class Agreement:
    """How far two implementations are apart, relative to the largest value.

    Attributes:
        data: The structures.
        peer: Whose weights both have.
        ours: Which of our lines.
        dtype: Of both.
        energy: Largest difference of energies over the largest energy.
        forces: The same of forces.
        gradient: The same of the logarithms of the norms of the loss's gradient by weight.
        error: Why there is no comparison; it counts as a disagreement.
    """

    data: str
    peer: str
    ours: str
    dtype: str
    energy: float = float("nan")
    forces: float = float("nan")
    gradient: float = float("nan")
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is below the bound."""
        return all(e < BOUNDS[self.dtype] for e in (self.energy, self.forces, self.gradient))  # not of nan


def compare(
    task: Task, data: str, contenders: list[Contender], threads: int, pool: Pool, folder: Path
) -> list[Agreement]:
    """Compare all our lines with each peer whose weights can be transplanted."""
    found = []
    peers = [c for c in contenders if c.implementation in TRANSPLANTED and not c.variant]
    for peer in peers:
        for dtype in BOUNDS:
            weights = str(folder / f"{peer.implementation}-{dtype}.npz")
            question = {"spec": spec_of(task, peer), "data": data, "dtype": dtype}
            try:
                theirs = pool.get(peer, threads).ask("outputs", save=weights, **question)
            except WorkerError as error:
                found.append(Agreement(task.data, peer.label, "", dtype, error=str(error)))
                continue
            for own in (c for c in contenders if c.ours and c.variant not in ("pyg", "cli")):
                if "compiled" in own.variant and dtype == "float64":
                    continue  # a second compilation, which says nothing new
                progress(f"{task.data}: outputs of {own.label} with the weights of {peer.label}, {dtype}")
                found.append(_compare_one(task, data, own, peer, dtype, weights, theirs, pool, threads))
    progress("")
    return found


def _compare_one(task, data, own, peer, dtype, weights, theirs, pool, threads) -> Agreement:
    names = (task.data, peer.label, own.label, dtype)
    spec = spec_of(task, own)
    try:
        ours = pool.get(own, threads).ask("outputs", spec=spec, data=data, dtype=dtype, weights=weights)
    except WorkerError as error:
        return Agreement(*names, error=str(error))
    return Agreement(
        *names, *(difference(ours[key], theirs[key]) for key in ("energy", "forces", "gradient"))
    )


def difference(ours: list[float], theirs: list[float]) -> float:
    """Give the largest difference over the largest value; infinite for unequal shapes."""
    a, b = np.array(ours), np.array(theirs)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max() / np.abs(b).max())
