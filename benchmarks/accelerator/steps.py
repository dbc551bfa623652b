"""Steps of training, and calls on a large system: ours in its ways of execution, PyG's and SchNetPack's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import inputs
from benchmarks.accelerator import capture
from benchmarks.accelerator.implementations import (
    CAPTURED,
    COMPILED,
    EAGER,
    OURS,
    PYG,
    PYG_COMPILED,
    SCHNETPACK,
    Work,
    build,
    results,
    save_structures,
    weights_after,
)
from benchmarks.accelerator.rows import FAILED, Row, Rows, Skipped
from benchmarks.accelerator.timing import (
    Settings,
    difference,
    milliseconds,
    peak_megabytes,
    prepare,
    same_bits,
)
from benchmarks.agreement import BOUNDS
from benchmarks.peers.command import Command
from benchmarks.peers.peer import Peer
from benchmarks.peers.worker import training_step

# PyG's last: it compiles for each batch anew, and is not to take the time of the others.
ORDER = (PYG, EAGER, COMPILED, CAPTURED, SCHNETPACK, PYG_COMPILED)
NAMES = {"paper": "64 × 3", "today": "128 × 6"}
BOUND = BOUNDS["float32"]
REPEATED_STEPS = 4
CAPTURED_STEPS = 5  # two are computed, the third is recorded, the others are repetitions
LOSS_BOUND = 1e-3  # in float32; the first steps of Adam depend on signs of small gradients
TRAIN = "ours, pyg-schnet train"


def paper_forces(rows: Rows, settings: Settings) -> None:
    """Measure training on energies and forces with the paper's network."""
    with _folder() as folder:
        structures = {
            "ethanol, 32": lambda: inputs.md17(None, settings.size(32, 2))[0],
            "aspirin, 32": lambda: inputs.shaken_aspirin()[0],
            "QM9, 32": lambda: inputs.qm9(32, sample=True)[0],
            "QM9, 512": lambda: inputs.qm9(512, sample=True)[0],
        }
        measure(rows, settings, folder, _first(structures, settings), "paper", "train", forces=True)


def large_energies(rows: Rows, settings: Settings) -> None:
    """Measure training on energies with 128 channels and six interactions."""
    with _folder() as folder:
        sizes = (3,) if settings.quick else (32, 512)
        structures = {f"QM9, {size}": lambda size=size: inputs.qm9(size, sample=True)[0] for size in sizes}
        measure(rows, settings, folder, structures, "today", "train", forces=False)


def box(rows: Rows, settings: Settings) -> None:
    """Measure energy and forces of 50,000 atoms."""
    atoms = settings.size(50_000, 60)
    with _folder() as folder:
        structures = {f"{atoms:,} atoms": lambda: inputs.box(atoms, edges=False)}
        measure(rows, settings, folder, structures, "today", "infer", forces=True)


def command(rows: Rows, settings: Settings) -> None:
    """Measure what a step takes in ``pyg-schnet train``, with all that a run does between the steps."""
    short, steps = settings.size(40, 2), settings.size(2000, 3)
    options = {"fabric.accelerator": str(settings.device), "trainer.optimizer": "adam"}
    options |= {"trainer.compile": "false" if settings.quick else "true"}
    with rows.row("ethanol, 32, energy + forces, 64 × 3, pyg-schnet train, a step", TRAIN) as row:
        run = Command(1, **options)
        row.preparation = run(short)
        row.ms = 1e3 * (run(short + steps) - run(short)) / steps


def measure(
    rows: Rows,
    settings: Settings,
    folder: Path,
    structures: dict[str, Callable[[], inputs.Arrays]],
    model: str,
    kind: str,
    forces: bool,
) -> None:
    """Compare and time all implementations on all structures.

    Args:
        rows: Where results go.
        settings: Device and times.
        folder: For structures and weights.
        structures: Functions that make structures, by name.
        model: Key of ``MODELS``.
        kind: "train" or "infer".
        forces: Whether forces are computed.
    """
    what = "energy + forces" if forces else "energy"
    kept: list[Peer] = []  # programs live as long as a potential that uses them
    works, expected, failures = {}, {}, {}
    for name, make in structures.items():
        task = f"{name}, {what}, {NAMES[model]}, {'a training step' if kind == 'train' else 'a call'}"
        with rows.row(task, "structures", only_failure=True):
            works[task] = Work(task, save_structures(folder, name, make(), model), model, kind, forces)
    for variants in (ORDER[:-1], ORDER[-1:]):
        for task, work in works.items():
            for variant in variants:
                if settings.variants is not None and variant not in settings.variants:
                    continue
                with rows.row(task, variant) as row:
                    if variant in failures and variant not in OURS:
                        raise Skipped(f"as above: {failures[variant]}")
                    _measure(row, settings, folder, work, variant, expected, kept)
                if row.status == FAILED:
                    failures[variant] = row.note


def _measure(
    row: Row,
    settings: Settings,
    folder: Path,
    work: Work,
    variant: str,
    expected: dict[str, list[Tensor]],
    kept: list[Peer],
) -> None:
    if variant == CAPTURED and work.kind != "train":
        raise Skipped("only steps of training are captured")
    if variant == PYG_COMPILED and work.kind == "train" and work.forces:
        raise Skipped("torch.compile differentiates once, and training on forces twice")
    device, weights = settings.device, folder / f"weights-{work.model}-{work.forces}.npz"
    given = weights if weights.exists() else None
    peer = build(variant, work, device, given, settings.quick)
    if variant == PYG and not weights.exists():
        peer.save(str(weights))
    if variant == COMPILED:
        kept.append(peer)
    if variant == CAPTURED:
        step = capture.training_step(peer)
        row.preparation = prepare(lambda: [step() for _ in range(CAPTURED_STEPS)], device)  # each frame once
        row.difference = _difference_of_losses(work, settings, given)
        row.bound = LOSS_BOUND
    elif work.kind == "train":
        row.preparation = prepare(lambda: results(peer), device)
        step = training_step(peer)
    else:
        row.preparation = prepare(lambda: peer.frame(0), device)
        step = _calls(peer)
    found = [] if variant == CAPTURED else results(peer)
    if variant == PYG:
        expected[work.name] = found
    elif variant == SCHNETPACK:
        own = folder / "weights-schnetpack.npz"
        peer.save(str(own))
        row.difference = difference(results(build(EAGER, work, device, own, settings.quick)), found)
        row.bound = BOUND
    elif work.name in expected and variant != CAPTURED:
        row.difference, row.bound = difference(found, expected[work.name]), BOUND
    if variant == COMPILED:
        row.note = peer.model.why_eager() or getattr(peer.model.compiled, "failure", None) or ""
        if row.note:
            raise Skipped(f"runs eagerly: {row.note}")
    if variant in OURS and work.kind == "train":
        row.repeats = _repeats(variant, work, settings, weights)
    row.ms = milliseconds(step, settings)
    if variant != CAPTURED:  # a recording holds its memory all the time
        row.megabytes = peak_megabytes(step, device)


def _difference_of_losses(work: Work, settings: Settings, weights: Path | None) -> float:
    """Return how far the losses of captured steps are from those of steps operation by operation."""
    losses = []
    for captured in (True, False):
        peer = build(CAPTURED if captured else EAGER, work, settings.device, weights, settings.quick)
        step = capture.training_step(peer, captured)
        losses.append(torch.stack([step() for _ in range(CAPTURED_STEPS)]))
    return difference(*losses)


def _repeats(variant: str, work: Work, settings: Settings, weights: Path) -> bool:
    """Return whether a few steps end with the same bits when they are done again."""
    ends = []
    for _ in range(2):
        peer = build(variant, work, settings.device, weights, settings.quick)
        step = capture.training_step(peer) if variant == CAPTURED else training_step(peer)
        ends.append(weights_after(step, peer, REPEATED_STEPS))
    return same_bits(*ends)


def _calls(peer: Peer) -> Callable[[], object]:
    return lambda: peer.frame(0)


def _first(structures: dict, settings: Settings) -> dict:
    return dict(list(structures.items())[:1]) if settings.quick else structures


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
