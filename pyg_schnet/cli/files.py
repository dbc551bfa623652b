"""Files that verbs read and write: refused before the work, not after it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pyg_schnet.io.atomic import check_replaceable, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

_HOLD_RESULTS = ("extxyz", "traj", "json", "db")  # names of ASE


def check_picture(path: str) -> None:
    """Refuse before the work a picture that could not be written after it."""
    from matplotlib.figure import Figure

    check_output(path, overwrite=True, structures=False)
    known = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(f"{path}: must be a picture, ending in {', '.join(f'.{name}' for name in known)}")


def check_output(path: str, overwrite: bool, structures: bool = True) -> None:
    """Refuse before the work what could not be written after it."""
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    check_replaceable(path)
    if Path(path).exists() and not overwrite:
        raise FileExistsError(f"{path}: exists; give another name, or --overwrite to replace it")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; make it first")
    if structures:
        try:
            kind = get_ioformat(filetype(path, read=False))
        except UnknownFileTypeError:
            raise ValueError(f"{path}: ASE knows no format of this ending; .extxyz is a good one") from None
        if not kind.can_write:
            raise ValueError(f"{path}: ASE reads {kind.name} and does not write it; .extxyz is a good one")


def what_loses_results(path: str) -> str | None:
    """Give the name of a file's format if it holds no energies and forces."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        kind = filetype(path, read=False)
    except UnknownFileTypeError:
        return None
    return None if kind in _HOLD_RESULTS else kind


def check_holds_results(path: str) -> None:
    """Refuse a format that would lose energies and forces without a word."""
    if kind := what_loses_results(path):
        raise ValueError(
            f"{path}: {kind} holds no energies and forces, which would be lost; .extxyz, .traj, .json and "
            ".db hold them"
        )


def check_holds_many(path: str) -> None:
    """Refuse a file whose format is of one structure."""
    from ase.io.formats import filetype, get_ioformat

    kind = get_ioformat(filetype(path, read=False))
    if kind.single:
        raise ValueError(
            f"{path}: {kind.name} holds one structure, and there are several; .extxyz holds many, --index "
            "chooses one"
        )


def fingerprint(path: str) -> str:
    """Compute the SHA-256 of a file, or of the files in a folder; ``""`` of what does not exist.

    The whole content counts: a change of a digit may leave the size and the first frames as they were.
    """
    if not Path(path).is_dir():
        return sha256_of(path) if Path(path).is_file() else ""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file())
    parts = [f"{file.relative_to(path)} {sha256_of(file)}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def hash_models(models: list[str]) -> list[str]:
    """Give the SHA-256 of checkpoints, in short."""
    found = []
    for model in models:
        if not Path(model).is_file():
            raise FileNotFoundError(
                f"{model}: no such checkpoint; `pyg-schnet train` writes model.safetensors"
            )
        found.append(sha256_of(model)[:16])
    return found


def split_models(text: str) -> list[str]:
    """Return the paths of one or several checkpoints, joined by commas; an ensemble's file is one path.

    The directory of a training run stands for its ``model.safetensors``.

    Raises:
        ValueError: If a directory holds none.
    """
    return [_checkpoint(name) for name in ([text] if Path(text).exists() else text.split(","))]


def _checkpoint(name: str) -> str:
    if not Path(name).is_dir():
        return name
    model = Path(name) / "model.safetensors"
    if not model.is_file():
        raise ValueError(
            f"{name}: must be a checkpoint or the directory of a training run, got a directory without "
            "model.safetensors"
        )
    return str(model)


def model_files(text: str) -> list[str]:
    """Return all files that MODEL names: checkpoints, and an ensemble's file with those that it names."""
    models = split_models(text)
    return list(dict.fromkeys([*models, *checkpoints(models)]))


def checkpoints(models: list[str]) -> list[str]:
    """Give the paths of all checkpoints: those that an ensemble's file names, if it is one."""
    from pyg_schnet.potentials.ensemble import is_ensemble_file, members

    return [str(path) for path in members(models[0])] if is_ensemble_file(models[0]) else models


def count_trained(models: list[str], file: str, structures: int) -> int:
    """Count the structures of a file that models were trained on, by the splits beside them; 0 if unknown."""
    try:
        return len(read_part(models, "train", file, structures))
    except (FileNotFoundError, ValueError):
        return 0


def units_of_runs(models: list[str], file: str) -> str | None:
    """Return the units that were given to the runs of checkpoints, where a file has the format of their data.

    Args:
        models: Checkpoints.
        file: Data in the format that it is by its ending.

    Raises:
        ValueError: If the runs had different units.
    """
    from pyg_schnet.potentials.checkpoint import provenance

    found = {}
    for model in models:
        data = provenance(model).get("data")
        data = data if isinstance(data, dict) else {}
        paths = [path for name in ("path", "val_path") for path in _listed(data.get(name))]
        units = data.get("units")
        if isinstance(units, str) and any(_format(path) == _format(file) for path in paths):
            found[model] = units
    if len(set(found.values())) > 1 or 0 < len(found) < len(models):
        told = ", ".join(f"'{found.get(model)}' of {model}" for model in models)
        raise ValueError(f"`--units` must be given, for the runs of the models had different ones: {told}")
    return next(iter(found.values()), None)


def _listed(paths: object) -> list[str]:
    return [str(path) for path in (paths if isinstance(paths, list) else [paths]) if path is not None]


def _format(path: str) -> str:
    """Return the ending of a file, without those of compression; nothing of a folder."""
    name = Path(path).name.lower()
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    ending = Path(name).suffix
    return {".extxyz": ".xyz", ".hdf5": ".h5"}.get(ending, ending)


def read_part(models: list[str], part: str, file: str, structures: int) -> Tensor:
    """Read which structures of a file are a part of the split beside each checkpoint.

    Raises:
        ValueError: If they were trained on different splits: one's test set is another's training set.
    """
    from pyg_schnet.training import RunDirectory
    from pyg_schnet.training.data import hash_files

    parts = [RunDirectory(Path(m).parent).read_part(part, structures, hash_files(file)) for m in models]
    for model, other in zip(models, parts, strict=True):
        if not other.equal(parts[0]):
            raise ValueError(
                "`--part` must be the same structures for all models, got different splits beside "
                f"{models[0]} and {model}; train with one `data.seed`"
            )
    return parts[0]
