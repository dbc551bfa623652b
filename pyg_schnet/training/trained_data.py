"""Data that models were trained on: how they were read, and the parts of their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_schnet.potentials.checkpoint import provenance
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.data import hash_files
from pyg_schnet.training.run_directory import RunDirectory


def count_trained(models: list[str], file: str, structures: int) -> int:
    """Count the structures of a file that models were trained on, by the splits beside them; 0 if unknown."""
    try:
        return len(read_part(models, "train", file, structures))
    except (FileNotFoundError, ValueError):
        return 0


def options_of_runs(models: list[str], file: str, names: Sequence[str]) -> dict[str, str]:
    """Return how the runs of models read their data, if a file has the format of these data.

    Args:
        models: Checkpoints, which hold the options of their runs.
        file: Data, whose format is taken from the ending.
        names: Options of ``data``, such as ``"units"`` or ``"forces_key"``.

    Returns:
        Those options that were set, labels that were left out aside; none if all runs have another format.

    Raises:
        ValueError: If the runs had different ones.
    """
    sections = [provenance(model).get("data") for model in models]
    options = [data if isinstance(data, dict) else {} for data in sections]
    same = [any(_format(path) == _format(file) for path in _paths(data)) for data in options]
    found = {}
    for name in names:
        values = [data.get(name) if is_same else None for data, is_same in zip(options, same, strict=True)]
        if len(set(values)) > 1:
            listed = ", ".join(f"{value!r} of {model}" for value, model in zip(values, models, strict=True))
            raise ValueError(
                f"`--{name}` must be given, because the runs of the models used different ones: {listed}"
            )
        if values and isinstance(values[0], str) and values[0] != "none":
            found[name] = values[0]
    return found


def label_options(potential: Potential | Ensemble) -> dict[str, Any]:
    """Return options of :class:`~pyg_schnet.datasets.AtomsDataset` that read what a potential predicts.

    Args:
        potential: Potential or ensemble, with energies, properties or both.
    """
    properties: dict[str, Any] = {"properties": [target.name for target in potential.properties]}
    without = {"energy_key": "none", "forces_key": None, "stress_key": None}
    return properties if potential.has_energy else {**properties, **without}


def read_part(models: list[str], part: str, file: str, structures: int) -> Tensor:
    """Read which structures of a file belong to a part of the split beside each checkpoint.

    Args:
        models: Checkpoints.
        part: ``"train"``, ``"val"`` or ``"test"``.
        file: Data that the models were trained on.
        structures: Number of structures in it.

    Raises:
        ValueError: If the models have different splits: one's test set is another's training set.
    """
    parts = [RunDirectory(Path(m).parent).read_part(part, structures, hash_files(file)) for m in models]
    for model, other in zip(models, parts, strict=True):
        if not other.equal(parts[0]):
            raise ValueError(
                "`--part` must be the same structures for all models, got different splits beside "
                f"{models[0]} and {model}; train with one `data.seed`"
            )
    return parts[0]


def _paths(options: Mapping[str, Any]) -> list[str]:
    """Return the files of the data of a run."""
    of_runs = [options.get(name) for name in ("path", "val_path")]
    lists = [paths if isinstance(paths, list) else [paths] for paths in of_runs]
    return [str(path) for paths in lists for path in paths if path is not None]


def _format(path: str) -> str:
    """Return the ending of a file without that of compression; ``""`` for a folder."""
    name = Path(path).name.lower()
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    ending = Path(name).suffix
    return {".extxyz": ".xyz", ".hdf5": ".h5"}.get(ending, ending)
