"""Files that the argument MODEL of a command refers to: checkpoints, runs, ensembles."""

from __future__ import annotations

from pathlib import Path

from pyg_schnet.io.hashes import hash_file
from pyg_schnet.potentials.ensemble import is_ensemble_file, member_paths


def resolve_models(text: str) -> list[str]:
    """Return the paths of the files that an argument MODEL refers to.

    Args:
        text: Path of a checkpoint, of an ensemble's JSON file, or of the directory of a training run, which
            means its ``model.safetensors``; or several, joined by commas.

    Raises:
        ValueError: If a directory holds no model.
    """
    return [_resolve(name) for name in ([text] if Path(text).exists() else text.split(","))]


def _resolve(name: str) -> str:
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
    return [str(path) for path in member_paths(models[0])] if is_ensemble_file(models[0]) else models


def model_files(text: str) -> list[str]:
    """Return all files that an argument MODEL refers to: checkpoints, and an ensemble's file with its own.

    Args:
        text: Argument MODEL, as for :func:`resolve_models`.
    """
    models = resolve_models(text)
    return list(dict.fromkeys([*models, *checkpoint_paths(models)]))


def hash_models(models: list[str]) -> list[str]:
    """Return the first 16 hexadecimal digits of the SHA-256 of each file.

    Args:
        models: Paths of the files.

    Raises:
        FileNotFoundError: If a file does not exist.
    """
    if missing := next((model for model in models if not Path(model).is_file()), None):
        raise FileNotFoundError(f"{missing}: no such checkpoint; `pyg-schnet train` writes model.safetensors")
    return [hash_file(model)[:16] for model in models]
