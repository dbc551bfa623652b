"""Models that commands and functions take: potentials, and the files that hold them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from pyg_schnet.io.hashes import hash_file
from pyg_schnet.io.units import Units
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.checkpoint import checksum, provenance
from pyg_schnet.potentials.ensemble import Ensemble, is_ensemble_file, member_paths
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.pretrained import find_model
from pyg_schnet.potentials.targets import predicted_units

# A potential, an ensemble, or what names a file: a checkpoint, a run, an ensemble's JSON, or several of them.
Model: TypeAlias = Potential | Ensemble | str | os.PathLike | Sequence[str | os.PathLike]


def resolve_models(model: Model, name: str = "model") -> list[str]:
    """Return the paths of the files that a model names; empty for a potential or an ensemble.

    Args:
        model: Path of a checkpoint, of an ensemble's JSON file, or of the directory of a training run, which
            means its ``model.safetensors``; several of them, in a list or a text joined by commas; or a
            potential or an ensemble. Pretrained models also by name or address, as for
            :func:`~pyg_schnet.potentials.pretrained.find_model`.
        name: Name of the argument in error messages.

    Raises:
        FileNotFoundError: If a name is neither a path nor a pretrained model.
        TypeError: If it is something else.
        ValueError: If a directory holds no model, or a list is empty.
    """
    if isinstance(model, Potential | Ensemble):
        return []
    if isinstance(model, str | os.PathLike):
        text = os.fspath(model)
        return [_resolve(name) for name in ([text] if Path(text).exists() else text.split(","))]
    if isinstance(model, list | tuple) and not model:
        raise ValueError(f"`{name}` must name at least one checkpoint or run, got an empty list")
    if isinstance(model, list | tuple) and all(isinstance(one, str | os.PathLike) for one in model):
        return [_resolve(os.fspath(name)) for name in model]
    kind = type(model).__name__
    raise TypeError(
        f"`{name}` must be a Potential, the path of a checkpoint or of a run, or a list of paths, got "
        f"{kind}; build one from a model by Potential(model)"
    )


def _resolve(name: str) -> str:
    name = find_model(name)
    if not Path(name).is_dir():
        return name
    model = Path(name) / "model.safetensors"
    if not model.is_file():
        raise ValueError(
            f"{name}: must be a checkpoint or the directory of a training run, got a directory without "
            "model.safetensors"
        )
    return str(model)


def checkpoint_paths(models: list[str]) -> list[str]:
    """Return the paths of all checkpoints.

    Args:
        models: Paths of :func:`resolve_models`; a single ensemble's file is replaced by its checkpoints.
    """
    is_ensemble = bool(models) and is_ensemble_file(models[0])
    return [str(path) for path in member_paths(models[0])] if is_ensemble else models


def model_files(model: Model) -> list[str]:
    """Return all files that a model names: checkpoints, and an ensemble's file with its own.

    Args:
        model: As for :func:`resolve_models`.
    """
    models = resolve_models(model)
    return list(dict.fromkeys([*models, *checkpoint_paths(models)]))


def hash_models(model: Model) -> list[str]:
    """Return the first 16 hexadecimal digits of the SHA-256 of each file, or of a potential's weights.

    Args:
        model: As for :func:`resolve_models`.

    Raises:
        FileNotFoundError: If a file does not exist.
    """
    if isinstance(model, Potential | Ensemble):
        return [checksum(repr(model), model.state_dict())[:16]]
    files = model_files(model)
    if missing := next((file for file in files if not Path(file).is_file()), None):
        raise FileNotFoundError(f"{missing}: no such checkpoint; `pyg-schnet train` writes model.safetensors")
    return [hash_file(file)[:16] for file in files]


def units_of(model: Model) -> dict[str, str]:
    """Return what a model predicts, with its unit: ``{"energy": "eV", "forces": "eV/Å", "gap": "eV"}``.

    Args:
        model: As for :func:`resolve_models`.
    """
    if isinstance(model, Potential | Ensemble):
        return predicted_units(model.properties, model.has_energy)
    return checkpoint.units_of(checkpoint_paths(resolve_models(model))[0])


def require_angstrom(model: Model, file: str | os.PathLike) -> None:
    """Raise if a file, whose positions are read in Å, holds training data of a model in another unit.

    Args:
        model: As for :func:`resolve_models`.
        file: File of structures to simulate or predict.

    Raises:
        ValueError: If it does.
    """
    for path in checkpoint_paths(resolve_models(model)):
        data = provenance(path).get("data")
        data = data if isinstance(data, dict) else {}
        text = data.get("units")
        if not isinstance(text, str) or (units := Units.parse(text)).length_in_angstrom == 1:
            continue
        if Path(file).is_file() and hash_file(file) in (data.get("sha256"), data.get("val_sha256")):
            raise ValueError(
                f"{os.fspath(file)}: positions must be in Å, got those of the training data, in "
                f"{units.length}; convert them, and the cell: "
                f"atoms.positions *= {units.length_in_angstrom:.6g}"
            )
