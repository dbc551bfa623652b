"""Checkpoints: one safetensors file with weights, configuration, units and provenance.

Loading a file executes no code. Its JSON header holds one entry, ``pyg_schnet``::

    {"format": 1, "kind": "potential", "version": "0.1.0",
     "model": {...}, "units": {...}, "domain": {...}, "provenance": {...}}

``domain`` is absent or ``null`` where it is not known, as in files of earlier versions. A second entry,
``sha256``, is the checksum of this text and of all tensors, which files of earlier versions lack.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.nn import SchNet, SchNetConfig
from pyg_schnet.nn.snapshot import ModuleSnapshot
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import TrainingDomain

FORMAT = 1  # raise it when an older pyg_schnet could not read the file
_KEY, _CHECKSUM = "pyg_schnet", "sha256"
_UNITS = {"energy": "eV", "length": "Å"}
# What sizes and numbers of a wrong kind raise, or some that are right by themselves and not together.
_UNFIT = (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def save(potential: Potential, path: str | os.PathLike, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a potential to a file; a file that is there is replaced only when the new one is complete.

    Args:
        potential: A potential; of one around another model than :class:`~pyg_schnet.SchNet`, or one that was
            changed after it was built, the file holds the weights and the name of the model's class, but not
            how to make it.
        path: Where to, usually ``*.safetensors``.
        provenance: How it came about: anything that JSON can hold.

    Raises:
        TypeError: If the model has an ``interaction_graph``, which a file cannot hold.
    """
    model, domain = potential.model, potential.domain
    header: dict[str, Any] = {"units": _UNITS, "domain": domain.to_json() if domain else None}
    header["provenance"] = dict(provenance or {})
    if not isinstance(model, SchNet):
        header |= {"class": type(model).__name__}
        return write(path, "potential", header, dict(potential.state_dict()))
    if model.interaction_graph is not None:
        raise TypeError(
            "`interaction_graph` is a function, which a checkpoint cannot hold; pass edge_index instead"
        )
    changed = _changed(model)
    header |= {"model": asdict(model.config)} if changed is None else {"class": changed}
    return write(path, "potential", header, dict(potential.state_dict()))


def _changed(model: SchNet) -> str | None:
    """Return what of a model its configuration does not build; ``None`` if it builds all of it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = SchNet(**asdict(model.config))
    own, other = (ModuleSnapshot({"": one}).key for one in (model, built))
    if own == other:
        return None
    differs = next((a for a, b in zip_longest(own, other) if a != b and a is not None), own[0])
    where = f"`{differs[0]}` changed" if differs[0] else "methods of its own"
    return f"{type(model).__name__} with {where}"


def load(
    path: str | os.PathLike, device: str | torch.device = "cpu", model: nn.Module | None = None
) -> Potential:
    """Read a potential, ready to be called.

    Args:
        path: A file written by ``pyg-schnet train`` or :func:`save`.
        device: Where the weights go.
        model: Gets the weights, where they are not those of a :class:`~pyg_schnet.SchNet`: files make no
            objects of other classes.

    Returns:
        The potential, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, was not written by pyg_schnet, or by a newer version, or if it
            is of another model than SchNet and ``model`` is not given, or a weight is not finite.
    """
    header, tensors = read(path, "potential", device)
    domain = _domain(path, header)
    if "class" in header or model is not None:
        own = _with_weights(path, header.get("class", "SchNet"), tensors, model)
        _check_finite(path, {**dict(own.named_parameters()), "scale": own.scale, "atomref": own.atomref})
        own.domain = domain
        return own.to(device).eval()
    config = header.get("model", {})
    if not isinstance(config, dict):
        raise _damaged(path)
    unknown = set(config) - {field.name for field in fields(SchNetConfig)}
    if unknown:
        raise ValueError(
            f"{path}: the model's configuration has the unknown entry {sorted(unknown)[0]!r}; the file "
            f"was written by pyg_schnet {header['version']}, upgrade to it"
        )
    try:
        _check_sizes(SchNetConfig(**config), tensors)
        with torch.random.fork_rng(devices=[]):  # weights are drawn, only to be replaced
            potential = Potential(SchNet(**config))
        potential.model.to(tensors["model.embedding.weight"].dtype)
        potential.load_state_dict(tensors)
    except _UNFIT as error:
        raise ValueError(f"{path}: weights do not fit the configuration beside them: {error}") from None
    _check_finite(path, potential.state_dict())
    potential.domain = domain
    return potential.to(device).eval()


def _check_sizes(config: SchNetConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse sizes that are not those of the weights, before any memory is taken for them."""
    first = "model.interactions.{}.cfconv.filter_network.dense1.weight"
    channels, filters = tensors["model.embedding.weight"].size(1), tensors[first.format(0)]
    interactions = sum(first.format(number) in tensors for number in range(len(tensors)))
    found = (channels, *filters.shape, interactions)
    sizes = (config.hidden_channels, config.num_filters, config.num_gaussians, config.num_interactions)
    if found != sizes:
        raise ValueError(
            f"sizes {found} of hidden_channels, filters, Gaussians and interactions, not {sizes}"
        )


def _check_finite(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """Raise if a weight, the scale or a reference energy is not a finite number."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            value = tensor[~tensor.isfinite()].tolist()[0]
            raise ValueError(
                f"{path}: `{name}` must hold finite numbers, got {value}; its training diverged or the file "
                "is damaged, train again or take another checkpoint"
            )


def _domain(path: str | os.PathLike, header: Mapping[str, Any]) -> TrainingDomain | None:
    entry = header.get("domain")
    try:
        return None if entry is None else TrainingDomain.from_json(entry)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path) from None


def _with_weights(
    path: str | os.PathLike, name: str, tensors: dict[str, Tensor], model: nn.Module | None
) -> Potential:
    """Put weights into a model of the caller's."""
    if model is None:
        raise ValueError(
            f"{path}: holds the weights of {name}, which the file cannot build; give "
            f"load(path, model={name.split()[0]}(...)), made as it was for training"
        )
    potential = Potential(model)
    try:
        potential.model.to(next(t.dtype for key, t in tensors.items() if key.startswith("model.")))
        potential.load_state_dict(tensors)
    except (RuntimeError, StopIteration) as error:
        raise ValueError(
            f"{path}: holds the weights of {name}, which do not fit the given {type(model).__name__}: {error}"
        ) from None
    return potential


def provenance(path: str | os.PathLike) -> dict[str, Any]:
    """Read how a checkpoint came about, without its weights."""
    found = _read_header(path).get("provenance")
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def write(
    path: str | os.PathLike, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and a header to a file at once or not at all."""
    from pyg_schnet import __version__  # pyg_schnet imports this module

    entry = {"format": FORMAT, "kind": kind, "version": __version__, **header}
    with atomic_write(path) as temporary:
        # Not save_file: it writes to a file of a third name, which a kill would leave for ever.
        apart, text = _apart(tensors), json.dumps(entry)
        metadata = {_KEY: text, _CHECKSUM: checksum(text, apart)}
        temporary.write_bytes(serialize(apart, metadata=metadata))


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of a text and of tensors with their names, types and shapes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"\n{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each name memory of its own: a model may have a weight under two, as PyG's SchNet has."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()  # of all views of it
        apart[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return apart


def read(
    path: str | os.PathLike, kind: str, device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify header and tensors of a file of a kind (``"potential"``, ``"training state"``)."""
    with _opened(path) as file:  # once: another file may take its place at any time
        header = _header(path, file)
        if header["kind"] != kind:
            raise ValueError(f"{path}: must hold a {kind}, got a {header['kind']}")
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, AttributeError, TypeError) as error:  # of types that this PyTorch lacks
            raise ValueError(f"{path}: holds tensors that cannot be read ({error}); update PyTorch") from None
        metadata = file.metadata()
    stored = metadata.get(_CHECKSUM)  # none in files of earlier versions
    if stored is not None and stored != checksum(metadata[_KEY], tensors):
        raise ValueError(
            f"{path}: must be as it was written, got another checksum; the file is damaged, copy it again or "
            "train again"
        )
    return header, {name: tensor.to(device) for name, tensor in tensors.items()}


def _opened(path: str | os.PathLike) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `pyg-schnet train` writes model.safetensors")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); it is truncated or of another kind, "
            "copy or train it again"
        ) from None


def _read_header(path: str | os.PathLike) -> dict[str, Any]:
    with _opened(path) as file:
        return _header(path, file)


def _header(path: str | os.PathLike, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ValueError(f"{path}: a safetensors file, but not one of pyg_schnet's checkpoints")
    try:
        header = json.loads(text)
        form, version = int(header["format"]), str(header["version"])
        header["kind"]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise _damaged(path) from None
    if form > FORMAT:
        raise ValueError(
            f"{path}: written by pyg_schnet {version} in format {form}, this version reads up to "
            f"{FORMAT}; upgrade with pip install -U pyg-schnet"
        )
    return header


def _damaged(path: str | os.PathLike) -> ValueError:
    return ValueError(f"{path}: the header of this checkpoint is damaged; copy or train it again")
