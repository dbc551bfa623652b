"""A training run: data, references, model, loop and results.

An option of training takes this path: ``cli/train.py``, ``TrainConfig`` (``config.py``), :func:`train`,
``loop.fit``.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any, cast

import torch
from ase.data import chemical_symbols
from torch import nn
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.references import References
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.streaming import sizes
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.io.yaml_file import read_yaml
from pyg_schnet.nn import SchNet, SchNetConfig
from pyg_schnet.plots import plot_learning_curve
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.checkpoint import provenance as provenance_of
from pyg_schnet.potentials.checkpoint import read as read_checkpoint
from pyg_schnet.potentials.device import use_threads
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target, parse_targets
from pyg_schnet.training.callbacks import Callback
from pyg_schnet.training.config import TrainConfig
from pyg_schnet.training.data import TrainingData, hash_files, read_data
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.domain_statistics import measure_domain
from pyg_schnet.training.initialization import (
    Initialization,
    freeze,
    read_initialization,
    split_hash,
    with_hash,
)
from pyg_schnet.training.loggers import make_loggers
from pyg_schnet.training.loop import fit, stop_on_signal
from pyg_schnet.training.progress import Report
from pyg_schnet.training.properties import LabelScale, describe, fit_readouts
from pyg_schnet.training.readout_transfer import properties_of
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.state import Counters
from pyg_schnet.training.validation import spline_error
from pyg_schnet.transforms.radius_graph import RadiusGraph

_BODY = ["embeddings", "interactions"]
_SPLINE_TEST_STRUCTURES = 100
_MAX_STORED_EDGES = 10_000_000  # of 40 bytes each


def train(
    config: TrainConfig,
    report: Report,
    resume: bool = False,
    overwrite: bool = False,
    model: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunDirectory:
    """Train a potential, from reading the data to plotting the learning curve.

    Args:
        config: Configuration of the run.
        report: Receiver of the progress of rank 0; ``Report()`` discards it.
        resume: Continue the run in ``config.out`` from its last checkpoint, or start it if there is none.
        overwrite: Replace the run in ``config.out``.
        model: Model to train instead of the :class:`~pyg_schnet.SchNet` of ``config.model``; see
            :class:`~pyg_schnet.Potential` for how it is called.
        callbacks: Callbacks of the run, called after the loggers of ``config.trainer.loggers``.

    Returns:
        The run's directory, which documents its files.

    Raises:
        FileExistsError: If the directory is not empty, and neither ``resume`` nor ``overwrite`` is set.
        FileNotFoundError: If a file is missing.
        BrokenPipeError: If the reader of the output closed it; the run ended after its step, with a
            checkpoint.
        ImportError: If the package of a logger is not installed.
        TypeError: If ``callbacks`` is not a sequence of callbacks.
        ValueError: If data or options are wrong; nothing is written then.
    """
    _check_callbacks(callbacks)
    run = RunDirectory(config.out, model)
    processes = Processes.start(config.fabric)
    if not processes.is_rank_zero:
        report = Report()
    try:
        with processes.collective_errors():
            loggers = make_loggers(config, run) if processes.is_rank_zero else []
            can_resume = resume and run.last.is_file()
            initial = None
            if config.init is not None:
                config = replace(config, init=with_hash(config.init))
                initial = None if can_resume else _initialization(config, model)
            data = read_data(config.data, getattr(torch, config.trainer.precision), report, not can_resume)
            if config.data.references == "keep" and config.data.has_energy:
                data = data._replace(references=_kept_references(initial, run, data))
            elif (
                config.data.has_energy
                and data.references.is_given
                and (model is not None or _sums_atoms(config.model))
            ):
                shifted = data.references.with_mean_residual(data.train.compositions())
                data = data._replace(references=shifted)
            train_set, val_set = data.train, data.val
            fresh, scales = None, {}
            if initial is None or config.data.properties or not initial.potential.has_energy:
                fresh, scales = _potential(config, data, model)
            if initial is not None:
                keep = config.data.references == "keep"
                potential = initial.build(data.train, data.references, keep, config.trainer.seed, fresh)
            else:
                potential = cast(Potential, fresh)
            if config.init is not None:
                data = _with_references_of(potential, run if can_resume else None, data)
            potential.domain = measure_domain(data.train)
            frozen = freeze(potential.model, config.trainer.freeze or (), properties_of(potential))
            if model is None and (cutoff := config.model.cutoff) is not None:
                train_set, val_set = (_with_edges(part, cutoff) for part in (train_set, val_set))
            provenance = _provenance(config, data)
            if config.init is not None:
                provenance["init"] = _origin(config, initial, run, data)
            if processes.is_rank_zero:
                run.prepare(resume, overwrite)
            resume = resume and run.last.is_file()
            if processes.is_rank_zero:
                _write_configuration(config, run, data, provenance, resume)
        with processes.collective_errors():
            processes.require_identical(_fingerprint(config, run, data, provenance, resume))
        _describe(config, potential, data, scales, report)
        if config.init is not None:
            _describe_init(config, provenance["init"], report)
        if frozen:
            report.line(f"Not trained: {', '.join(frozen)}.")
        if processes.world_size > 1:
            report.line(f"{processes.world_size} processes share each batch.")
        with stop_on_signal() as stop, use_threads(1):  # until the run chooses its number of threads
            counters = fit(
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
                (*loggers, *callbacks),
                scales,
            )
            if processes.is_rank_zero and not stop.is_set:
                _finish(run, val_set if model is None else None, counters, report)
            processes.barrier()
            if not processes.is_rank_zero or report.is_closed:
                stop.clear()  # only rank 0 ends by the signal, and reports it
        if report.is_closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    finally:
        run.release()
    return run


def _check_callbacks(callbacks: object) -> None:
    """Raise before the work if an argument is not a sequence of callbacks."""
    if isinstance(callbacks, Sequence):
        wrong = [one for one in callbacks if not isinstance(one, Callback)]
    else:
        wrong = [callbacks]
    if wrong:
        raise TypeError(
            "`callbacks` must be a list of instances of pyg_schnet.training.Callback, got "
            f"{type(wrong[0]).__name__}; derive a class from Callback"
        )


def _sums_atoms(model: SchNetConfig) -> bool:
    """Return whether the prediction is a sum over atoms, so that a mean residual per atom can be added."""
    return model.readout == "add" and not model.dipole


def _fingerprint(
    config: TrainConfig, run: RunDirectory, data: TrainingData, provenance: dict[str, Any], resume: bool
) -> str:
    """Return a text of all that the processes of a run must agree on."""
    hashes = [data.split.sha256(), *_hashes(provenance), hash_files(str(run.last)) if resume else ""]
    return repr([*hashes, config.model, config.trainer, split_hash(config.init or "")[1]])


def _write_configuration(
    config: TrainConfig, run: RunDirectory, data: TrainingData, provenance: dict[str, Any], resume: bool
) -> None:
    """Write configuration and split of the run; if it is resumed, compare them with those written before."""
    if resume:
        _check_resumable(config, run, data.split, provenance)
    run.write_config(_with_absolute_paths(asdict(config)))
    if not resume:
        run.write_split(data.split, data.structures, _hashes(provenance))


def _with_absolute_paths(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with absolute paths, valid in any working directory."""
    data = dict(entries["data"])
    for name in ("path", "val_path", "root", *(["split"] if data["split"].endswith(".npz") else [])):
        if isinstance(data[name], list):
            data[name] = [os.path.abspath(part) for part in data[name]]
        elif data[name] is not None:
            data[name] = os.path.abspath(data[name])
    return {**entries, "data": data}


def _finish(run: RunDirectory, val_set: InMemoryDataset | None, counters: Counters, report: Report) -> None:
    """Report the error of the splines, plot the learning curve, and report the best validation."""
    if val_set is not None and run.model.exists():
        sample = cast(InMemoryDataset, val_set[: min(len(val_set), _SPLINE_TEST_STRUCTURES)])
        error = spline_error(load(run.model), sample)
        if error is not None:
            report.line(error.report())
    plot_learning_curve(run.read_metrics(), run.learning_curve)
    report.line(
        f"Best validation at step {counters.best_step:,} of {counters.step:,}, after "
        f"{counters.seconds / 60:.1f} minutes: {run.model}"
    )


def _with_edges(part: AtomsDataset, cutoff: float) -> InMemoryDataset:
    """Find the edges of periodic structures once, if they fit: the search dominates the time of a step."""
    assert part._data is not None
    pbc = part._data.to_dict().get("pbc")
    if pbc is None or not bool(pbc.any()):
        return part
    sample = cast(AtomsDataset, part[: min(len(part), 10)])
    graph = RadiusGraph(cutoff)
    edges = sum(graph(cast(Data, item)).edge_index.size(1) for item in sample)
    if edges / int(sizes(sample).sum()) * int(sizes(part).sum()) > _MAX_STORED_EDGES:
        return part
    return part.with_edges(cutoff)


def _potential(
    config: TrainConfig, data: TrainingData, model: nn.Module | None
) -> tuple[Potential, dict[Target, LabelScale]]:
    """Build the potential to train, and measure the labels of its properties."""
    own, has_energy = config.model, config.data.has_energy
    if not has_energy:
        own = replace(own, readout=None, dipole=False)
    if model is not None and config.data.properties:
        raise ValueError(
            "`targets` must be ['energy'] for a model of your own, whose features are unknown; name a label "
            "by `energy_key`"
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.default_generator.manual_seed(config.trainer.seed)
        if model is None:
            model = SchNet(**asdict(own))
        properties, scales = fit_readouts(config.data.properties, data.train, own)
    references = data.references
    scale = data.train.scale(references) if has_energy else 1.0
    return Potential(model, scale, references.energy, references.elements, properties), scales


def _initialization(config: TrainConfig, model: nn.Module | None) -> Initialization:
    if model is not None:
        raise ValueError("`init` must not be given with a `model` of your own; load its weights yourself")
    assert config.init is not None
    initial = read_initialization(config.init)
    initial.check(config.model, config.data.has_energy)
    cast(SchNet, initial.potential.model).filters = config.model.filters
    return initial


def _kept_references(initial: Initialization | None, run: RunDirectory, data: TrainingData) -> References:
    if initial is not None:
        return initial.kept_references(data.train)
    return replace(data.references, span=None, shift=0.0, is_given=True)  # stored in the run's state


def _with_references_of(potential: Potential, run: RunDirectory | None, data: TrainingData) -> TrainingData:
    """Return the data with the references that a potential has; a resumed run has stored its own."""
    if run is not None:
        tensors = read_checkpoint(run.last, "training state")[1]
        potential.scale.copy_(tensors["potential.scale"])
        potential.atomref.copy_(tensors["potential.atomref"])
    references = replace(data.references, energy=potential.atomref.clone(), shift=0.0)
    return data._replace(references=references)


def _origin(
    config: TrainConfig, initial: Initialization | None, run: RunDirectory, data: TrainingData
) -> dict[str, Any]:
    """Return the provenance of the model to start from; a resumed run has stored it."""
    if initial is None:
        stored = provenance_of(run.model).get("init") if run.model.is_file() else None
        path, sha256 = split_hash(config.init or "")
        return stored or {"path": path, "sha256": sha256}
    new = [chemical_symbols[z] for z in initial.new_elements(data.train)]
    origin = {"path": initial.path, "sha256": initial.sha256, "new_elements": new}
    origin["readouts"] = initial.readouts(parse_targets(config.data.targets))
    return {**origin, "references": config.data.references, "provenance": dict(initial.provenance)}


def _describe_init(config: TrainConfig, origin: dict[str, Any], report: Report) -> None:
    """Report what is taken over from the model to start from, and what is new."""
    energy_alone = {"taken": ["energy"], "new": [], "left_out": []}
    readouts = origin.get("readouts", energy_alone)
    of = [f"the readout of {name}" for name in readouts["taken"]]
    what = ["architecture", *(["weights", "scale"] if readouts == energy_alone else _BODY + of)]
    report.line(
        f"Starting from {origin['path']} (SHA-256 {origin['sha256'][:12]}…): {', '.join(what[:-1])} and "
        f"{what[-1]} are taken over; learning rate {config.trainer.lr:g}"
    )
    if readouts["new"]:
        report.line(f"Readouts with new weights: {', '.join(readouts['new'])}")
    if readouts["left_out"]:
        report.line(f"Readouts that are left out: {', '.join(readouts['left_out'])}")
    if "energy" in readouts["taken"]:
        kept = config.data.references == "keep"
        text = "kept" if kept else "fitted to the differences between the labels and its energies"
        report.line(f"Its atomic references are {text}; the training domain is that of the new data.")
    if origin.get("new_elements"):
        report.line(
            f"Elements that it has not seen, with new embeddings: {', '.join(origin['new_elements'])}"
        )


def _describe(
    config: TrainConfig,
    potential: Potential,
    data: TrainingData,
    scales: Mapping[Target, LabelScale],
    report: Report,
) -> None:
    """Report units, numbers of structures, spread of the labels, references and size of the model."""
    train_set = data.train
    has = {"forces": train_set.has_forces, "stresses": train_set.has_stress}
    has_energy = config.data.has_energy
    names = ["energies"] * has_energy + [target.name for target in potential.properties]
    *first, last = [*names[:has_energy], *(name for name, there in has.items() if there), *names[has_energy:]]
    labels = f"{', '.join(first)} and {last}" if first else last
    assumed = "" if config.data.units else " (assumed from the file; set --data.units otherwise)"
    units = f" in {train_set.units.sentence()}{assumed}" if has_energy else ""
    report.line(f"{train_set.path}: {labels}{units}")
    report.line(
        f"Training on {len(train_set):,} structures, validating on {len(data.val):,}, leaving "
        f"{len(data.split.test):,} to test; elements "
        f"{', '.join(chemical_symbols[z] for z in potential.elements)}"
    )
    if has_energy:
        _describe_energies(potential, data, report)
    for line in describe(potential.properties, scales):
        report.line(line)
    weights = sum(p.numel() for p in potential.parameters())
    report.line(f"{potential.model}, {weights:,} weights")


def _describe_energies(potential: Potential, data: TrainingData, report: Report) -> None:
    train_set = data.train
    spread = train_set.energy_std()
    text = f"Energies spread by {spread * 1e3:.1f} meV ({spread / kcal_per_mol:.2f} kcal/mol)"
    if train_set.has_forces:
        rms = float(potential.scale)
        text += f", forces' RMS is {rms * 1e3:.0f} meV/Å ({rms / kcal_per_mol:.1f} kcal/mol/Å)"
    else:
        text += f", by {float(potential.scale) * 1e3:.1f} meV an atom relative to the references"
    report.line(text)
    report.line(data.references.report())


# Options that a resumed run may change: its length, its logs, and where it computes.
_CHANGEABLE = ("max_steps", "max_minutes", "val_every", "patience", "threads", "compile", "save_minutes")
_CHANGEABLE += ("root", "memory_map", "data_device", "loggers")
_OLD_DEFAULTS = {"optimizer": "adam", "targets": ["energy"]}  # of versions without this option
_MAX_CONFIG_BYTES = 2**26  # it may name every file of a large data set
_PATHS = ("path", "val_path", "split")  # compared by their content


def _check_resumable(
    config: TrainConfig, run: RunDirectory, split: Split, provenance: dict[str, Any]
) -> None:
    """Raise if options or files differ from those with which the run was started."""
    before, sections = read_yaml(run.config, _MAX_CONFIG_BYTES), ("data", "model", "trainer")
    if not isinstance(before, dict) or not all(isinstance(before.get(name, {}), dict) for name in sections):
        raise ValueError(
            f"{run.config}: must hold the options of the run, in sections, to resume it; restore it or "
            "start a new run"
        )
    for section in sections:
        for name, value in asdict(getattr(config, section)).items():
            old = before.get(section, {}).get(name, _OLD_DEFAULTS.get(name, value))
            if name not in (*_CHANGEABLE, *_PATHS) and old != value:
                raise ValueError(
                    f"`{section}.{name}` must be {old!r} as in {run.config} to resume that run, got {value!r}"
                )
    started, now = (split_hash(init or "")[1] for init in (before.get("init"), config.init))
    if started != now:
        raise ValueError(
            f"`init` must be {before.get('init')!r} as in {run.config} to resume that run, got "
            f"{config.init!r}"
        )
    same = all(torch.equal(*parts) for parts in zip(run.read_split(), split, strict=True))
    if run.read_hashes() != _hashes(provenance) or not same:
        raise ValueError(
            f"`data.path` and `data.val_path` must hold the same data as when {run.path} was started, "
            "got others; start a new run with them"
        )


def _hashes(provenance: dict[str, Any]) -> list[str]:
    """Return the SHA-256 of the data files."""
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
