"""Weights in a file of another program, read without running its code."""

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

# What a torch file may hold weights in: Lightning's .ckpt, SchNetPack 1's checkpoint-N.pth.tar.
_INSIDE = {".ckpt": "state_dict", ".tar": "model"}
# What torch raises of a file that was cut or overwritten: an OSError without a name where the end is missing.
_DAMAGE = (
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, OSError, struct.error),
    *(AssertionError, AttributeError, ArithmeticError, MemoryError),
)


class WeightFile(NamedTuple):
    """What a file holds.

    Attributes:
        weights: Of the model, a ``state_dict``.
        model: The whole model as data, where the file holds it.
    """

    weights: dict[str, Tensor]
    model: PickledObject | None = None


def read_weights(path: str | os.PathLike) -> WeightFile:
    """Read weights from a ``.safetensors`` or a torch file; no code of the file is run.

    A torch file may hold a ``state_dict``, a checkpoint with one inside, or a whole model, whose classes need
    not be installed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give one of weights, as torch.save(state_dict, path)")
    if path.suffix == ".safetensors":
        try:
            return WeightFile(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path}: is not a complete safetensors file ({error}); copy it again") from None
    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how the file was pickled, which the errors below tell
            held = load_as_data(path)
            model = _model_in(held)
            if isinstance(held, PickledObject) and model is not None:
                return WeightFile(model.state_dict(), model)
    except pickle.UnpicklingError as error:
        if "GLOBAL " not in str(error) and path.read_bytes()[:1] not in (b"P", b"\x80"):  # zip's, pickle's
            raise ValueError(
                f"{path}: is no torch file; give weights, as torch.save(state_dict, path) or safetensors "
                "write them"
            ) from None
        raise ValueError(_whole_model(path, str(error))) from None
    except PermissionError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path}: is not a complete torch file ({error}); copy or save it again") from None
    for key in _INSIDE.values():
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not any(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(
            f"{path}: must hold a state_dict, names with tensors, or a model; got "
            f"{name_of(held) or type(held).__name__}"
        )
    return WeightFile({str(name): value for name, value in held.items() if isinstance(value, Tensor)}, model)


def _model_in(held: Any) -> PickledObject | None:
    """Return the whole model in a file: all that it holds, or an argument that Lightning wrote down."""
    if isinstance(held, dict) and isinstance(held.get("hyper_parameters"), dict):
        held = held["hyper_parameters"].get("model")
    return held if isinstance(held, PickledObject) and held.children() else None


def _refuse_packed(path: Path) -> None:
    """Refuse a torch file whose parts are compressed: torch never does that, and would unpack any size."""
    try:
        with zipfile.ZipFile(path) as file:
            packed = [info.filename for info in file.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, struct.error):
        return  # an older torch file, or a damaged one, which torch tells
    if packed:
        raise ValueError(
            f"{path}: must hold its parts as they are, got {packed[0]!r} compressed; save it again"
        )


def _whole_model(path: Path, reason: str) -> str:
    """Tell how to get the weights out of a file that only its own program can read."""
    key = _INSIDE.get(path.suffix)
    weights = "model.state_dict()" if key is None else f'model["{key}"]'
    unknown = reason.split("GLOBAL ")[1].split()[0] if "GLOBAL " in reason else "unknown kinds"
    return (
        f"{path}: must hold tensors only, got Python objects ({unknown}), which would run code of the file. "
        "Where it was written and you trust it, run\n"
        f'  python -c \'import torch; model = torch.load("{path.name}", map_location="cpu"); '
        f'torch.save({weights}, "weights.pt")\'\n'
        "(from torch 2.6 on with weights_only=False in torch.load), and give weights.pt"
    )
