"""Does a folder hold what an undisturbed run left in another one?"""

from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import torch

from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import RunDirectory


class Lost(Exception):
    """Something was lost, doubled or changed; the message says what."""


def compare_data(folder: Path, reference: Path) -> float:
    """Compare names and bytes of all files."""
    _compare_names(folder, reference)
    for path in sorted(reference.glob("root/**/*")):
        if path.is_file() and not path.name.endswith(".lock"):
            _same((folder / path.relative_to(reference)).read_bytes(), path.read_bytes(), path.name)
    return 0.0


def compare_runs(folder: Path, reference: Path) -> float:
    """Compare weights, the state and the table but for its minutes, to the bit."""
    _compare_names(folder, reference)
    run, other = RunDirectory(folder / "run"), RunDirectory(reference / "run")
    for name, kind in (("model", "potential"), ("last", "training state")):
        (header, tensors), (expected, others) = (
            checkpoint.read(getattr(each, name), kind) for each in (run, other)
        )
        _same_tensors(tensors, others, name)
        for counters in (header.get("counters", {}), expected.get("counters", {})):
            counters.pop("seconds", None)
        _same(header.get("counters"), expected.get("counters"), f"counters of {name}")
        _same(header.get("domain"), expected.get("domain"), f"domain of {name}")
    _same(_rows(run), _rows(other), "metrics.csv")
    _same(run.config.read_bytes(), other.config.read_bytes(), "config.yaml")
    return 0.0


def compare_results(folder: Path, reference: Path) -> float:
    """Compare each frame: once, in order, to the bit."""
    _compare_names(folder, reference)
    (path,) = (path for path in reference.glob("out.*") if not path.name.endswith(".lock"))
    return _compare_frames(
        ase.io.read(folder / path.name, ":"), ase.io.read(path, ":"), "input_frame", within=0.0
    )


def compare_paths(folder: Path, reference: Path) -> float:
    """Compare each frame and each row of the log: once, in order, to the bit."""
    _compare_names(folder, reference)
    (path,) = (*reference.glob("out.extxyz"), *reference.glob("out.traj"))
    _compare_frames(ase.io.read(folder / path.name, ":"), ase.io.read(path, ":"), "step", within=0.0)
    _same((folder / "out.csv").read_text(), (reference / "out.csv").read_text(), "out.csv")
    restarts = [checkpoint.read(each / f"{path.name}.restart", "dynamics") for each in (folder, reference)]
    _same_tensors(restarts[0][1], restarts[1][1], "the restart file")
    _same(restarts[0][0]["statistics"], restarts[1][0]["statistics"], "statistics")
    return 0.0


def _compare_names(folder: Path, reference: Path) -> None:
    names, expected = (
        {
            str(path.relative_to(each))
            for path in each.glob("**/*")
            if path.is_file() and not path.name.endswith(".lock") and "tensorboard" not in path.parts
        }
        for each in (folder, reference)
    )
    if names != expected:
        raise Lost(f"left over: {sorted(names - expected)}; missing: {sorted(expected - names)}")


def _compare_frames(frames: list, expected: list, number: str, within: float) -> float:
    """Compare numbers, energies (eV), forces (eV/Å) and positions (Å); give the largest difference."""

    def numbers(some: list) -> list:
        return [frame.info.get(number, frame.info.get("key_value_pairs", {}).get(number)) for frame in some]

    _same(numbers(frames), numbers(expected), f"numbers of the frames ({number})")
    largest = 0.0
    for frame, other in zip(frames, expected, strict=True):
        for what in ("get_potential_energy", "get_forces", "get_positions"):
            difference = float(np.abs(getattr(frame, what)() - getattr(other, what)()).max())
            if not difference <= within:
                raise Lost(f"{what} of frame {frame.info.get(number)} differs by {difference:.3g}")
            largest = max(largest, difference)
    return largest


def _rows(run: RunDirectory) -> list[dict[str, str]]:
    with run.metrics.open(newline="", encoding="utf-8") as file:
        return [
            {name: text for name, text in row.items() if name != "minutes"} for row in csv.DictReader(file)
        ]


def _same_tensors(tensors: dict, others: dict, what: str) -> None:
    _same(sorted(tensors), sorted(others), f"names in {what}")
    for name, tensor in tensors.items():
        if not torch.equal(tensor, others[name]):
            raise Lost(f"{name} of {what} differs by {(tensor - others[name]).abs().max():.3g}")


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        short = f"{str(found)[:300]} for {str(expected)[:300]}" if not isinstance(found, bytes) else "bytes"
        raise Lost(f"{what}: got {short}")
