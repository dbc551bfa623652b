"""A training run from its configuration: data, references, model, loop, results."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from ase.data import chemical_symbols
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import collate
from pyg_schnet.nn import SchNet
from pyg_schnet.plots import plot_learning_curve
from pyg_schnet.potential import Potential
from pyg_schnet.training.config import TrainConfig
from pyg_schnet.training.fit import fit
from pyg_schnet.training.progress import Report
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.splits import Split, random_split, without_copies
from pyg_schnet.units import kcal_per_mol


def train(config: TrainConfig, report: Report, resume: bool = False, overwrite: bool = False) -> RunDirectory:
    """Train, from reading the file to drawing the learning curve.

    Args:
        config: The run.
        report: What to show.
        resume: Go on with the run in ``config.out`` from its last checkpoint.
        overwrite: Replace the run in ``config.out``.

    Returns:
        The run's directory; its files are listed there.

    Raises:
        FileExistsError: If the directory holds something and neither resuming nor overwriting is asked for.
        FileNotFoundError: If a file is missing.
        ValueError: If data or options are wrong; nothing is written then.
    """
    run = RunDirectory(config.out)
    fabric = _fabric(config, run)
    train_set, val_set, split = _read(config, report)
    potential = _potential(config, train_set)
    provenance = _provenance(config, len(train_set), len(val_set))
    run.prepare(resume, overwrite)
    if resume:
        _check_same(config, run, split, provenance)
    else:
        run.write_split(split, _hashes(provenance))
    run.write_config(asdict(config))
    _describe(config, potential, train_set, val_set, len(split.test), report)
    with _threads(config.trainer.threads):
        count = fit(fabric, potential, train_set, val_set, config.trainer, run, report, provenance, resume)
    plot_learning_curve(run.read_metrics(), run.learning_curve)
    report.line(
        f"Best validation at step {count.best_step:,} of {count.step:,}, after {count.seconds / 60:.1f} "
        f"minutes: {run.model}"
    )
    return run


def _fabric(config: TrainConfig, run: RunDirectory) -> Fabric:
    accelerator = config.trainer.accelerator
    if accelerator == "auto":  # Fabric's own choice may be one without float64, as Apple's
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("`trainer.accelerator` must be 'auto' or 'cpu' here, got 'cuda': torch sees no GPU")
    logger = TensorBoardLogger(run.tensorboard, "", "")
    return Fabric(accelerator=accelerator, devices=1, loggers=logger)


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(config: TrainConfig, report: Report) -> tuple[AtomsDataset, AtomsDataset, Split]:
    data, dtype = config.data, getattr(torch, config.trainer.precision)
    keys = (data.energy_key, data.forces_key, data.units)
    whole = AtomsDataset(data.path, *keys, dtype=dtype)
    if data.val_path is None:
        split = random_split(len(whole), data.n_train, data.n_val, data.seed)
        if len(split.val) == 0:
            raise ValueError(
                "`data.n_val` must be at least 1, to choose the best weights, got 0; or give `data.val_path`"
            )
        return _subset(whole, split.train), _subset(whole, split.val), split
    split = random_split(len(whole), data.n_train, 0, data.seed)
    train_set = _subset(whole, split.train)
    val_set = AtomsDataset(data.val_path, *keys, dtype=dtype)
    if val_set.has_forces != train_set.has_forces:
        raise ValueError(
            f"{data.val_path}: must have forces exactly if {data.path} has; set `data.forces_key`"
        )
    foreign = sorted(set(val_set.elements()) - set(train_set.elements()))
    if foreign:
        raise ValueError(
            f"{data.val_path}: must hold elements of {data.path} only, got atomic number {foreign[0]}"
        )
    new = without_copies(_structures(val_set), _structures(train_set))
    if len(new) < len(val_set):
        report.line(
            f"{len(val_set) - len(new)} of the {len(val_set):,} validation structures are training "
            "structures too, and are left out."
        )
    if len(new) == 0:
        raise ValueError(f"{data.val_path}: must hold a structure that is not in the training set")
    if data.n_val is not None:
        if not 1 <= data.n_val <= len(new):
            raise ValueError(f"`data.n_val` must be 1 to {len(new)} here, got {data.n_val}")
        new = new[: data.n_val]
    return train_set, _subset(val_set, new), split


def _subset(dataset: AtomsDataset, numbers: Tensor) -> AtomsDataset:
    return cast(AtomsDataset, dataset[numbers])


def _structures(dataset: AtomsDataset) -> Tensor:
    pos = collate(dataset, range(len(dataset))).pos
    assert pos is not None
    return pos.view(len(dataset), -1)


def _potential(config: TrainConfig, train_set: AtomsDataset) -> Potential:
    with torch.random.fork_rng(devices=[]):  # the weights are drawn on the CPU
        torch.default_generator.manual_seed(config.trainer.seed)
        model = SchNet(**asdict(config.model))
    return Potential(model, train_set.scale(), train_set.atomref(), train_set.elements())


def _describe(
    config: TrainConfig,
    potential: Potential,
    train_set: AtomsDataset,
    val_set: AtomsDataset,
    tested: int,
    report: Report,
) -> None:
    batch = collate(train_set, range(len(train_set)))
    labels = "energies and forces" if train_set.has_forces else "energies"
    assumed = "" if config.data.units else " (by the file; give --data.units if not)"
    report.line(
        f"{train_set.path}: {labels} in {train_set.units.energy} and {train_set.units.length}{assumed}"
    )
    report.line(
        f"Training on {len(train_set):,} structures, validating on {len(val_set):,}, leaving {tested:,} to "
        "test; elements "
        f"{', '.join(chemical_symbols[z] for z in potential.elements)}"
    )
    spread = float(batch.energy.std()) if len(train_set) > 1 else 0.0
    text = f"Energies spread by {spread * 1e3:.1f} meV ({spread / kcal_per_mol:.2f} kcal/mol)"
    if train_set.has_forces:
        rms = float(batch.forces.square().mean().sqrt())
        text += f", forces' RMS is {rms * 1e3:.0f} meV/Å ({rms / kcal_per_mol:.1f} kcal/mol/Å)"
    report.line(text)
    weights = sum(p.numel() for p in potential.parameters())
    report.line(f"{potential.model}, {weights:,} weights")


# What a resumed run may change: how long it goes on, and where it computes.
_FREE = ("max_steps", "max_minutes", "val_every", "patience", "threads", "accelerator")
_PATHS = ("path", "val_path")  # compared by their content


def _check_same(config: TrainConfig, run: RunDirectory, split: Split, provenance: dict[str, Any]) -> None:
    before = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    for section in ("data", "model", "trainer"):
        for name, value in asdict(getattr(config, section)).items():
            old = before.get(section, {}).get(name)
            if name not in (*_FREE, *_PATHS) and old != value:
                raise ValueError(
                    f"`{section}.{name}` must be {old!r} as in {run.config} to resume that run, got {value!r}"
                )
    same = all(torch.equal(*parts) for parts in zip(run.read_split(), split, strict=True))
    if run.read_hashes() != _hashes(provenance) or not same:
        raise ValueError(
            f"`data.path` and `data.val_path` must hold what they held when {run.path} began, got other "
            "files; begin a new run with them"
        )


def _hashes(provenance: dict[str, Any]) -> list[str]:
    return [provenance["data"][name] or "" for name in ("sha256", "val_sha256")]


def _provenance(config: TrainConfig, n_train: int, n_val: int) -> dict[str, Any]:
    from pyg_schnet import __version__

    data = asdict(config.data)
    for name, path in (("sha256", config.data.path), ("val_sha256", config.data.val_path)):
        data[name] = None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "pyg_schnet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data": data,
        "trainer": asdict(config.trainer),
        "n_train": n_train,
        "n_val": n_val,
    }
