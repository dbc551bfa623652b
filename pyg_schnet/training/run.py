"""A training run from its configuration: data, references, model, loop, results."""

from __future__ import annotations

import errno
import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, cast

import torch
from ase.data import chemical_symbols
from torch import nn
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.streaming import sizes
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.io.yaml_file import read_yaml
from pyg_schnet.nn import SchNet, SchNetConfig
from pyg_schnet.plots import plot_learning_curve
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.config import TrainConfig
from pyg_schnet.training.data import TrainingData, hash_files, read_data
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.domain_statistics import measure_domain
from pyg_schnet.training.interruption import interruption
from pyg_schnet.training.loop import fit
from pyg_schnet.training.progress import Report
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.spline_error import spline_error
from pyg_schnet.training.state import Counters
from pyg_schnet.training.threads import one_thread
from pyg_schnet.transforms.radius_graph import RadiusGraph

_STRUCTURES_FOR_SPLINES = 100
_EDGES_TO_KEEP = 10_000_000  # of 40 bytes


def train(
    config: TrainConfig,
    report: Report,
    resume: bool = False,
    overwrite: bool = False,
    model: nn.Module | None = None,
) -> RunDirectory:
    """Train, from reading the file to drawing the learning curve.

    Args:
        config: The run.
        report: What to show.
        resume: Go on with the run in ``config.out`` from its last checkpoint; begin where there is none yet.
        overwrite: Replace the run in ``config.out``.
        model: Trained instead of the :class:`~pyg_schnet.SchNet` of ``config.model``; see
            :class:`~pyg_schnet.Potential` for how it is called.

    Returns:
        The run's directory; its files are listed there.

    Raises:
        FileExistsError: If the directory holds something and neither resuming nor overwriting is asked for.
        FileNotFoundError: If a file is missing.
        BrokenPipeError: If the reader of what is shown has ended: the run ended after its step, with a
            checkpoint.
        ValueError: If data or options are wrong; nothing is written then.
    """
    run = RunDirectory(config.out)
    processes = Processes.start(config.fabric, run)
    if not processes.is_first:
        report = Report(report.console, quiet=True)
    try:
        with processes.together():
            goes_on = resume and run.last.is_file()
            data = read_data(config.data, getattr(torch, config.trainer.precision), report, not goes_on)
            if data.references.is_given and (model is not None or _is_sum(config.model)):
                shifted = data.references.with_mean_residual(data.train.compositions())
                data = data._replace(references=shifted)
            train_set, val_set = data.train, data.val
            potential = _potential(config, data, model)
            if model is None and (cutoff := config.model.cutoff) is not None:
                train_set, val_set = (_with_edges(part, cutoff) for part in (train_set, val_set))
            provenance = _provenance(config, data)
            if processes.is_first:
                run.prepare(resume, overwrite)
            resume = resume and run.last.is_file()
            if processes.is_first:
                _write_down(config, run, data, provenance, resume)
        with processes.together():
            processes.require_same(_view(config, run, data, provenance, resume))
        _describe(config, potential, data, report)
        if processes.count > 1:
            report.line(f"{processes.count} processes share each batch.")
        with interruption() as stop, one_thread():  # until the run chooses its own number
            count = fit(
                processes,
                potential,
                train_set,
                val_set,
                config.trainer,
                run,
                report,
                provenance,
                resume,
                stop,
            )
            if processes.is_first and not stop.is_asked:
                _conclude(run, val_set if model is None else None, count, report)
            processes.wait()
            stop.settle(processes.is_first and not report.is_unread)
        if report.is_unread:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    finally:
        run.release()
    return run


def _is_sum(model: SchNetConfig) -> bool:
    """Whether what a network predicts is a sum over atoms, of which each has a part of the mean."""
    return model.readout == "add" and not model.dipole


def _view(
    config: TrainConfig, run: RunDirectory, data: TrainingData, provenance: dict[str, Any], resume: bool
) -> str:
    """Tell all that the processes of a run must agree on."""
    same = [data.split.sha256(), *_hashes(provenance), hash_files(str(run.last)) if resume else ""]
    return repr([*same, config.model, config.trainer])


def _write_down(
    config: TrainConfig, run: RunDirectory, data: TrainingData, provenance: dict[str, Any], resume: bool
) -> None:
    """Write what the run is, or compare it with what it was."""
    if resume:
        _check_same(config, run, data.split, provenance)
    run.write_config(_from_anywhere(asdict(config)))
    if not resume:
        run.write_split(data.split, data.structures, _hashes(provenance))


def _from_anywhere(entries: dict[str, Any]) -> dict[str, Any]:
    """Give the same configuration with absolute paths, for commands in other folders."""
    data = dict(entries["data"])
    for name in ("path", "val_path", "root", *(["split"] if data["split"].endswith(".npz") else [])):
        if isinstance(data[name], list):
            data[name] = [os.path.abspath(part) for part in data[name]]
        elif data[name] is not None:
            data[name] = os.path.abspath(data[name])
    return {**entries, "data": data}


def _conclude(run: RunDirectory, val_set: InMemoryDataset | None, count: Counters, report: Report) -> None:
    if val_set is not None:
        _report_splines(run, val_set, report)
    plot_learning_curve(run.read_metrics(), run.learning_curve)
    report.line(
        f"Best validation at step {count.best_step:,} of {count.step:,}, after {count.seconds / 60:.1f} "
        f"minutes: {run.model}"
    )


def _with_edges(part: AtomsDataset, cutoff: float) -> InMemoryDataset:
    """Search the neighbors of periodic systems once, not in each step: that takes longer than all else."""
    assert part._data is not None
    pbc = part._data.to_dict().get("pbc")
    if pbc is None or not bool(pbc.any()):
        return part
    some = cast(AtomsDataset, part[: min(len(part), _STRUCTURES_FOR_SPLINES // 10)])
    graph = RadiusGraph(cutoff)
    edges = sum(graph(cast(Data, item)).edge_index.size(1) for item in some) / int(sizes(some).sum())
    if edges * int(sizes(part).sum()) > _EDGES_TO_KEEP:
        return part
    return part.with_edges(cutoff)


def _report_splines(run: RunDirectory, val_set: InMemoryDataset, report: Report) -> None:
    """Tell how exact the splines of the filters are, which trained and will run this model."""
    if not run.model.exists():
        return
    some = cast(InMemoryDataset, val_set[: min(len(val_set), _STRUCTURES_FOR_SPLINES)])
    error = spline_error(load(run.model), some)
    if error is not None:
        report.line(error.report())


def _potential(config: TrainConfig, data: TrainingData, model: nn.Module | None) -> Potential:
    if model is None:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn on the CPU
            torch.default_generator.manual_seed(config.trainer.seed)
            model = SchNet(**asdict(config.model))
    references = data.references
    potential = Potential(model, data.train.scale(references), references.energy, references.elements)
    potential.domain = measure_domain(data.train)
    return potential


def _describe(config: TrainConfig, potential: Potential, data: TrainingData, report: Report) -> None:
    train_set = data.train
    has = {"forces": train_set.has_forces, "stresses": train_set.has_stress}
    *first, last = ["energies", *(name for name, there in has.items() if there)]
    labels = f"{', '.join(first)} and {last}" if first else last
    assumed = "" if config.data.units else " (by the file; give --data.units if not)"
    report.line(f"{train_set.path}: {labels} in {train_set.units.sentence()}{assumed}")
    report.line(
        f"Training on {len(train_set):,} structures, validating on {len(data.val):,}, leaving "
        f"{len(data.split.test):,} to test; elements "
        f"{', '.join(chemical_symbols[z] for z in potential.elements)}"
    )
    spread = train_set.energy_std()
    text = f"Energies spread by {spread * 1e3:.1f} meV ({spread / kcal_per_mol:.2f} kcal/mol)"
    if train_set.has_forces:
        rms = float(potential.scale)
        text += f", forces' RMS is {rms * 1e3:.0f} meV/Å ({rms / kcal_per_mol:.1f} kcal/mol/Å)"
    else:
        text += f", by {float(potential.scale) * 1e3:.1f} meV an atom relative to the references"
    report.line(text)
    report.line(data.references.report())
    weights = sum(p.numel() for p in potential.parameters())
    report.line(f"{potential.model}, {weights:,} weights")


# What a resumed run may change: how long it goes on, and where it computes.
_FREE = ("max_steps", "max_minutes", "val_every", "patience", "threads", "compile", "save_minutes")
_FREE += ("root", "memory_map")
_BEFORE = {"optimizer": "adam"}  # of versions that had no choice; other options did not exist
_MAX_CONFIG_BYTES = 2**26  # it may name every file of a large data set
_PATHS = ("path", "val_path", "split")  # compared by their content


def _check_same(config: TrainConfig, run: RunDirectory, split: Split, provenance: dict[str, Any]) -> None:
    before, sections = read_yaml(run.config, _MAX_CONFIG_BYTES), ("data", "model", "trainer")
    if not isinstance(before, dict) or not all(isinstance(before.get(name, {}), dict) for name in sections):
        raise ValueError(
            f"{run.config}: must hold the options of the run, in sections, to resume it; restore it or "
            "begin a new run"
        )
    for section in sections:
        for name, value in asdict(getattr(config, section)).items():
            old = before.get(section, {}).get(name, _BEFORE.get(name, value))
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


def _provenance(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    from pyg_schnet import __version__

    files = asdict(config.data)
    files["sha256"] = hash_files(config.data.path)
    files["val_sha256"] = hash_files(config.data.val_path) or None
    files["split_sha256"] = data.split.sha256()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "pyg_schnet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data": files,
        "trainer": asdict(config.trainer),
        "n_train": len(data.train),
        "n_val": len(data.val),
        "mean_residual": data.references.shift,
    }
