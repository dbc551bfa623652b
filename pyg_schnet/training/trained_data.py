"""Data that models were trained on: their units, and the parts of their splits."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pyg_schnet.potentials.checkpoint import provenance
from pyg_schnet.training.data import hash_files
from pyg_schnet.training.run_directory import RunDirectory


def count_trained(models: list[str], file: str, structures: int) -> int:
    """Count the structures of a file that models were trained on, by the splits beside them; 0 if unknown."""
    try:
        return len(read_part(models, "train", file, structures))
    except (FileNotFoundError, ValueError):
        return 0


def units_of_runs(models: list[str], file: str) -> str | None:
    """Return the units that the runs of models read their data in, if a file has the format of these data.

    Args:
        models: Checkpoints, which hold the options of their runs.
        file: Data, whose format is taken from the ending.

    Returns:
        The value of ``data.units``; ``None`` if no run was given units, or all have another format.

    Raises:
        ValueError: If the runs had different units.
    """
    units_of = {}
    for model in models:
        data = provenance(model).get("data")
        data = data if isinstance(data, dict) else {}
        paths = [path for name in ("path", "val_path") for path in _as_list(data.get(name))]
        units = data.get("units")
        if isinstance(units, str) and any(_format(path) == _format(file) for path in paths):
            units_of[model] = units
    if len(set(units_of.values())) > 1 or 0 < len(units_of) < len(models):
        listed = ", ".join(f"'{units_of.get(model)}' of {model}" for model in models)
        raise ValueError(
            f"`--units` must be given, because the runs of the models used different ones: {listed}"
        )
    return next(iter(units_of.values()), None)


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


def _as_list(paths: object) -> list[str]:
    return [str(path) for path in (paths if isinstance(paths, list) else [paths]) if path is not None]


def _format(path: str) -> str:
    """Return the ending of a file without that of compression; ``""`` for a folder."""
    name = Path(path).name.lower()
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    ending = Path(name).suffix
    return {".extxyz": ".xyz", ".hdf5": ".h5"}.get(ending, ending)
