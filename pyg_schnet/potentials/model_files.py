"""Files of models as commands name them: checkpoints, runs, ensembles."""

from __future__ import annotations

from pathlib import Path

from pyg_schnet.io.hashes import hash_file
from pyg_schnet.potentials.ensemble import is_ensemble_file, members


def resolve_models(text: str) -> list[str]:
    """Return the paths that an argument MODEL names.

    Args:
        text: Path of a checkpoint, of an ensemble's JSON file, or of the directory of a training run, which
            stands for its ``model.safetensors``; or several, joined by commas.

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
    """Return the paths of all checkpoints: the members of an ensemble's file, otherwise ``models``."""
    return [str(path) for path in members(models[0])] if is_ensemble_file(models[0]) else models


def model_files(text: str) -> list[str]:
    """Return all files that MODEL names: checkpoints, and an ensemble's file with its members."""
    models = resolve_models(text)
    return list(dict.fromkeys([*models, *checkpoint_paths(models)]))


def hash_models(models: list[str]) -> list[str]:
    """Return the first 16 digits of the SHA-256 of each file.

    Raises:
        FileNotFoundError: If a file does not exist.
    """
    found = []
    for model in models:
        if not Path(model).is_file():
            raise FileNotFoundError(
                f"{model}: no such checkpoint; `pyg-schnet train` writes model.safetensors"
            )
        found.append(hash_file(model)[:16])
    return found
