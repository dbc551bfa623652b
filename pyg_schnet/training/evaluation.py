"""Errors of models on a file of labels, or on a part of the data that they were trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch_geometric.data import InMemoryDataset

from pyg_schnet import plots
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.locks import locked
from pyg_schnet.io.outputs import check_distinct, check_output, check_picture
from pyg_schnet.potentials import metrics
from pyg_schnet.potentials.calibration import MIN_STRUCTURES, Calibration, calibrations, with_factors
from pyg_schnet.potentials.device import use_threads
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.metrics import Evaluation
from pyg_schnet.potentials.model_files import Model, checkpoint_paths, model_files, resolve_models
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.calculator import evaluation_copy
from pyg_schnet.training.trained_data import count_trained, label_options, options_of_runs, read_part


@dataclass(frozen=True, repr=False)
class ModelEvaluation(Evaluation):
    """Errors of a model on a file, with what is to be known of them.

    Attributes:
        trained_on: Number of the structures that the model was trained on, by the split beside it.
        units: Units of the model's training data, if the file was read in them.
        keys: Keys of the labels in the model's training data, if they were read, such as ``forces_key``.
        calibration: Deviations of an ensemble compared with its errors, by quantity.
        is_calibrated: Whether the deviations were calibrated before.
    """

    trained_on: int = 0
    units: str | None = None
    keys: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)
    is_calibrated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return errors as :class:`~pyg_schnet.potentials.Evaluation` does, and the other attributes."""
        calibration = {name: one.as_dict() for name, one in self.calibration.items()}
        optional = {"trained_on": self.trained_on, "units": self.units, "keys": self.keys}
        optional["calibration"] = calibration
        return super().as_dict() | {name: value for name, value in optional.items() if value}

    def __str__(self) -> str:
        note = self.note()
        return super().__str__() + (f"\n{note}" if note else "")

    def note(self) -> str:
        """Return a sentence about structures that were trained on; ``""`` if there are none."""
        if not self.trained_on:
            return ""
        return f"{self.trained_on:,} of these structures were trained on, which makes errors small"


def evaluate(
    model: Model,
    data: str | os.PathLike | InMemoryDataset,
    part: str | None = None,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    units: str | None = None,
    batch_size: int = 32,
    plot: str | os.PathLike | None = None,
    plot_calibration: str | os.PathLike | None = None,
    calibrate: str | os.PathLike | None = None,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    threads: int = 1,
) -> ModelEvaluation:
    """Compare predictions with labels: ``pyg-schnet evaluate`` from Python.

    Args:
        model: A potential or an ensemble, or the path of a checkpoint, a run or an ``ensemble.json``; a list
            of paths is an ensemble, whose errors are those of its mean.
        data: File of structures with labels, or a data set with ``energy`` in eV, ``forces`` in eV/Å and
            ``stress`` in eV/Å³.
        part: ``"train"``, ``"val"`` or ``"test"``: part of the file by the split beside the model; all by
            default.
        energy_key: Key of the energies in the file. Without any key, those of the model's training data are
            used for a file of the same format; else keys are detected.
        forces_key: Key of the forces, or ``"none"``.
        stress_key: Key of the stresses, or ``"none"``.
        units: Units of the file, such as ``"kcal/mol"``; by default those of the model's training data, for a
            file of the same format.
        batch_size: Structures evaluated at once.
        plot: Picture of predictions over labels to draw.
        plot_calibration: Picture of errors over deviations of an ensemble to draw.
        calibrate: ``ensemble.json`` to write, with deviations scaled to the errors; use ``part="val"``.
        overwrite: Whether ``calibrate`` may replace an existing file.
        device: Device of the computation; by default that of a potential, the CPU for a path.
        threads: CPU threads of PyTorch.

    Returns:
        Errors per structure (energies, eV) and over all components (forces, eV/Å; stresses, eV/Å³), with
        labels and predictions.

    Raises:
        FileExistsError: If ``calibrate`` exists.
        FileNotFoundError: If a file is missing.
        TypeError: If ``model`` or ``data`` is of another type.
        ValueError: If an option is wrong, a file cannot be read, or a prediction is not finite.

    Example:
        >>> errors = evaluate("RUN", "frames.extxyz", part="test")  # doctest: +SKIP
        >>> print(errors)  # doctest: +SKIP
    """
    paths = checkpoint_paths(resolve_models(model))
    outputs = {"plot": plot, "plot_calibration": plot_calibration, "calibrate": calibrate}
    texts = {name: None if path is None else os.fspath(path) for name, path in outputs.items()}
    file = os.fspath(data) if isinstance(data, str | os.PathLike) else None

    def check() -> None:
        inputs = {"MODEL": model_files(model), "FILE": [] if file is None else [file]}
        check_distinct(inputs, {f"--{name}": path for name, path in texts.items()})
        if batch_size < 1:
            raise ValueError(f"`--batch_size` must be at least 1, got {batch_size}")
        _check(texts, part, overwrite, _size(model, paths), bool(paths))

    check()
    with locked(*texts.values()) if any(texts.values()) else nullcontext(), use_threads(threads):
        check()  # again: another process may just have written them
        potential = evaluation_copy(model, device, needs_energy=False)
        of_runs: dict[str, str] = {}
        if file is None:
            dataset = _check_dataset(data, part)
        else:
            given = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
            unset = [] if any(given.values()) else list(given)  # keys belong together
            of_runs = options_of_runs(paths, file, unset + ["units"] * (units is None))
            reading = {**given, "units": units, **of_runs, **label_options(potential)}
            dataset = AtomsDataset(path=file, **reading, memory_map=file.endswith(".safetensors"))
        if part is not None and file is not None:
            if not paths:
                raise ValueError(
                    "`part` needs the path of a run or of its checkpoint, whose split is beside it, got a "
                    f"{type(model).__name__}"
                )
            dataset = cast(AtomsDataset, dataset[read_part(paths, part, file, len(dataset))])
        trained = 0
        if part is None and file is not None and paths:
            trained = count_trained(paths, file, len(dataset))
        errors = metrics.evaluate(potential, dataset, batch_size)
        errors.require_finite(dataset.indices())  # pyright: ignore[reportArgumentType] - numbers
        by_quantity = _calibrations(errors, bool(calibrate or plot_calibration))
        if texts["plot"] is not None:
            has_sizes = errors.sizes is not None and len(errors.sizes.unique()) > 1
            plots.plot_parity(errors, texts["plot"], atomref=potential.atomref if has_sizes else None)
        if texts["plot_calibration"] is not None:
            plots.plot_calibration(by_quantity, texts["plot_calibration"])
        if texts["calibrate"] is not None:
            with_factors(potential, by_quantity).save(texts["calibrate"], paths)
    return ModelEvaluation(
        **vars(errors),
        trained_on=trained,
        units=of_runs.pop("units", None),
        keys=of_runs,
        calibration=by_quantity,
        is_calibrated=getattr(potential, "is_calibrated", False),
    )


def _size(model: Model, paths: Sequence[str]) -> int:
    """Return the number of potentials."""
    if isinstance(model, Potential | Ensemble):
        return len(model.potentials) if isinstance(model, Ensemble) else 1
    return len(paths)


def _check_dataset(data: object, part: str | None) -> InMemoryDataset:
    if not isinstance(data, InMemoryDataset):
        raise TypeError(f"`data` must be a file or a data set of PyG, got {type(data).__name__}")
    if part is not None:
        raise ValueError(
            f"`part` needs the file that the model was trained on, got a {type(data).__name__}; pass its path"
        )
    return data


def _calibrations(errors: Evaluation, needed: bool) -> dict[str, Calibration]:
    """Compare deviations with errors if there are enough, or raise if that is needed."""
    deviation = errors.energy_deviation
    can_calibrate = deviation is not None and errors.n >= MIN_STRUCTURES and bool((deviation > 0).any())
    return calibrations(errors) if can_calibrate or needed else {}


def _check(
    outputs: dict[str, str | None], part: str | None, overwrite: bool, potentials: int, has_files: bool
) -> None:
    """Raise before the evaluation for options and outputs that would fail after it."""
    for name in ("plot", "plot_calibration"):
        if (picture := outputs[name]) is not None:
            check_picture(picture)
    calibrate = outputs["calibrate"]
    if (calibrate or outputs["plot_calibration"]) and potentials < 2:
        raise ValueError(
            "`--calibrate` and `--plot_calibration` need two checkpoints or more, joined by commas, got one"
        )
    if calibrate is None:
        return
    if not has_files:
        raise ValueError(
            "`calibrate` needs the paths of the models, which it stores, got an ensemble in memory; pass a "
            "list of checkpoints or runs"
        )
    check_output(calibrate, overwrite, structures=False)
    if not calibrate.endswith(".json"):
        raise ValueError(f"`--calibrate` must end in .json, got {calibrate}")
    if part == "train":
        raise ValueError(
            "`--calibrate` must be on structures that were not trained on, got --part train; use --part val"
        )
