"""Weight files of other programs, read without running code."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pyg_schnet.migration.pickled_module import PickledObject, load_as_data, name_of

# Keys of the weights in checkpoints: Lightning's .ckpt, SchNetPack 1's checkpoint-N.pth.tar.
_WEIGHT_KEYS = {".ckpt": "state_dict", ".tar": "model"}
# Raised by torch for truncated or overwritten files: OSError without a file name if the end is missing.
_DAMAGE_ERRORS = (
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, OSError, struct.error),
    *(AssertionError, AttributeError, ArithmeticError, MemoryError),
)


class WeightFile(NamedTuple):
    """Content of a weight file.

    Attributes:
        weights: ``state_dict`` of the model.
        model: The whole model as data, if the file holds it.
    """

    weights: dict[str, Tensor]
    model: PickledObject | None = None


def read_weights(path: str | os.PathLike) -> WeightFile:
    """Read weights from a ``.safetensors`` or a torch file, without running code.

    A torch file may hold a ``state_dict``, a checkpoint that contains one, or a whole model, whose classes
    need not be installed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; pass weights, as torch.save(state_dict, path) writes them"
        )
    if path.suffix == ".safetensors":
        try:
            return WeightFile(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path}: is not a complete safetensors file ({error}); copy it again") from None
    _reject_compressed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle; the errors below cover it
            content = load_as_data(path)
            model = _find_model(content)
            if isinstance(content, PickledObject) and model is not None:
                return WeightFile(model.state_dict(), model)
    except pickle.UnpicklingError as error:
        if "GLOBAL " not in str(error) and path.read_bytes()[:1] not in (b"P", b"\x80"):  # of zip, of pickle
            raise ValueError(
                f"{path}: is no torch file; pass weights written by torch.save(state_dict, path) or "
                "safetensors"
            ) from None
        raise ValueError(_conversion_advice(path, str(error))) from None
    except PermissionError:
        raise
    except _DAMAGE_ERRORS as error:
        raise ValueError(f"{path}: is not a complete torch file ({error}); copy or save it again") from None
    for key in _WEIGHT_KEYS.values():
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path}: must hold a state_dict, names with tensors, or a model; got "
            f"{name_of(content) or type(content).__name__}"
        )
    return WeightFile({str(k): value for k, value in content.items() if isinstance(value, Tensor)}, model)


def _find_model(content: Any) -> PickledObject | None:
    """Return the whole model in a file: its content, or a hyperparameter stored by Lightning."""
    if isinstance(content, dict) and isinstance(content.get("hyper_parameters"), dict):
        content = content["hyper_parameters"].get("model")
    return content if isinstance(content, PickledObject) and content.children() else None


def _reject_compressed(path: Path) -> None:
    """Raise if parts of a torch file are compressed: torch writes none, and would unpack any size."""
    try:
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
        compressed = [info.filename for info in parts if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, struct.error):
        return  # an older torch file, or a damaged one, which torch reports
    if compressed:
        raise ValueError(
            f"{path}: must hold uncompressed parts, got {compressed[0]!r} compressed; save it again"
        )


def _conversion_advice(path: Path, reason: str) -> str:
    """Return how to extract the weights from a file that only its own program can read."""
    key = _WEIGHT_KEYS.get(path.suffix)
    weights = "model.state_dict()" if key is None else f'model["{key}"]'
    unknown = reason.split("GLOBAL ")[1].split()[0] if "GLOBAL " in reason else "unknown kinds"
    return (
        f"{path}: must hold tensors only, got Python objects ({unknown}), which would run code of the file. "
        "Where it was written and you trust it, run\n"
        f'  python -c \'import torch; model = torch.load("{path.name}", map_location="cpu"); '
        f'torch.save({weights}, "weights.pt")\'\n'
        "(from torch 2.6 on with weights_only=False in torch.load), and pass weights.pt"
    )
