"""Are files whole? Read by the package's own readers, at any time, while others write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase.io.trajectory import TrajectoryReader

from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import RunDirectory, TrainConfig
from tests.faults import inputs


class Half(Exception):
    """A file with a final name is not whole."""


def look_at_data(folder: Path, served: bytes = b"") -> int:
    """Read processed files and what was downloaded and unpacked; an archive is what was served."""
    files = 0
    for path in folder.glob("root/processed/*.safetensors"):
        files += _whole(path, lambda path: storage.read(path))
    for path in folder.glob("root/raw/**/*.npz"):
        files += _whole(path, _read_npz)
    for path in folder.glob("root/raw/*.bz2"):
        if path.read_bytes() != served:
            raise Half(f"{path.name} is not whole")
        files += 1
    return files + _look_at_pictures(folder / "root")


def look_at_run(folder: Path) -> int:
    """Read checkpoints, configuration, split and table of a run."""
    run = RunDirectory(folder / "run")
    files = _whole(run.last, lambda path: checkpoint.read(path, "training state"))
    files += _whole(run.model, checkpoint.load)
    files += _whole(run.config, _read_config)
    files += _whole(run.split, lambda _: run.read_split())
    files += _whole(run.metrics, lambda _: run.read_metrics())
    return files + _look_at_pictures(folder / "run")


def look_at_results(folder: Path) -> int:
    """Read the results, which are all there as soon as they have their name."""
    files = 0
    for path in folder.glob("out.*"):
        if path.suffix in (".extxyz", ".traj", ".db"):
            files += _whole(path, _read_results)
    return files


def look_at_path(folder: Path) -> int:
    """Read the restart file, and the whole frames of a trajectory, which grows in its place."""
    files = sum(
        _whole(path, lambda path: checkpoint.read(path, "dynamics")) for path in folder.glob("*.restart")
    )
    for path in folder.glob("out.traj"):
        files += _whole(path, lambda path: _read_path(path))
    return files


def _whole(path: Path, read: Callable[[Path], object]) -> int:
    """Read a file if it is there; give whether it was."""
    try:
        read(path)
    except FileNotFoundError:  # not yet, or gone while we looked
        return 0
    return 1


def _look_at_pictures(folder: Path) -> int:
    end = b"IEND\xaeB`\x82"
    pictures = [path for path in folder.glob("*.png") if not path.name.startswith(".")]
    for path in pictures:
        if not path.read_bytes().endswith(end):
            raise Half(f"{path.name} is not whole")
    return len(pictures)


def _read_npz(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        _ = {name: file[name] for name in file.files}


def _read_config(path: Path) -> None:
    names = {field.name for field in fields(TrainConfig)}
    if set(yaml.safe_load(path.read_text(encoding="utf-8")) or ()) != names:
        raise Half(f"{path.name} is not whole")


def _read_results(path: Path) -> None:
    found = len(ase.io.read(path, ":"))
    if found != inputs.FRAMES:
        raise Half(f"{path.name} has its name with {found} frames of {inputs.FRAMES}")


def _read_path(path: Path) -> None:
    try:
        with TrajectoryReader(path) as frames:
            _ = [frame.get_potential_energy() for frame in frames]
    except ase.io.ulm.InvalidULMFileError:
        if path.stat().st_size > 0:
            raise
