"""Checkpoints: one safetensors file with weights, configuration, units and provenance.

Loading a file executes no code. Its JSON header holds one entry, ``pyg_schnet``::

    {"format": 1, "kind": "potential", "version": "0.2.0",
     "model": {...}, "units": {...}, "domain": {...}, "provenance": {...}}

``domain`` is absent or ``null`` if it is unknown, as in files of earlier versions. Files of format 2 have
``properties``, a list of targets beside the energy with the settings of their readouts. A second entry,
``sha256``, is the checksum of this text and of all tensors; files of earlier versions lack it.
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
from pyg_schnet.nn.readout import Readout
from pyg_schnet.nn.snapshot import ModuleSnapshot
from pyg_schnet.potentials.device import check_device
from pyg_schnet.potentials.model_card import ModelCard
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.pretrained import find_model
from pyg_schnet.potentials.targets import Target, predicted_units
from pyg_schnet.potentials.training_domain import TrainingDomain

FORMAT = 2  # to be incremented when older versions of pyg_schnet could not read the file
_WITHOUT_PROPERTIES = 1  # format of files that versions before 0.3 read
_KEY, _CHECKSUM = "pyg_schnet", "sha256"
_READOUT_SETTINGS = ("mean", "std")
_UNITS = {"energy": "eV", "length": "Å"}
# Raised by sizes and values of wrong types, or by valid ones that do not fit together.
_LOADING_ERRORS = (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def save(potential: Potential, path: str | os.PathLike, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a potential to a file, atomically.

    Args:
        potential: A potential. For models other than :class:`~pyg_schnet.SchNet`, and for those that were
            changed after construction, the file holds the weights and the name of the model's class, but not
            its construction.
        path: File to write, usually ``*.safetensors``.
        provenance: Origin of the potential: any JSON-serializable mapping.

    Raises:
        TypeError: If the model has an ``interaction_graph``, which cannot be stored.
    """
    model, domain = potential.model, potential.domain
    header: dict[str, Any] = {"units": _UNITS, "domain": domain.to_json() if domain else None}
    header["provenance"] = dict(provenance or {})
    if potential.properties:
        header |= {
            "format": FORMAT,
            "properties": [*map(_property_entry, potential.properties, potential.heads)],
        }
    if not isinstance(model, SchNet):
        header |= {"class": type(model).__name__}
        return write(path, "potential", header, dict(potential.state_dict()))
    if model.interaction_graph is not None:
        raise TypeError(
            "`interaction_graph` is a function, which a checkpoint cannot store; pass edge_index instead"
        )
    changed = _customized_class(model)
    header |= {"model": asdict(model.config)} if changed is None else {"class": changed}
    return write(path, "potential", header, dict(potential.state_dict()))


def _property_entry(target: Target, head: nn.Module) -> dict[str, Any]:
    return {**target.as_dict(), **{name: getattr(head, name, None) for name in _READOUT_SETTINGS}}


def _properties(config: SchNetConfig, entries: list[dict[str, Any]]) -> dict[Target, Readout]:
    """Build the readouts of properties from their entries in a header."""
    properties = {}
    for entry in entries:
        settings = {name: entry[name] for name in _READOUT_SETTINGS}
        target = Target(**{name: value for name, value in entry.items() if name not in settings})
        activation = config.readout_activation
        properties[target] = target.readout(config.hidden_channels, **settings, activation=activation)
    return properties


def _customized_class(model: SchNet) -> str | None:
    """Return class and first difference of a model that its configuration does not rebuild, or ``None``."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = SchNet(**asdict(model.config))
    own, other = (ModuleSnapshot({"": one}).key for one in (model, built))
    if own == other:
        return None
    difference = next((a for a, b in zip_longest(own, other) if a != b and a is not None), own[0])
    change = f"`{difference[0]}` changed" if difference[0] else "methods of its own"
    return f"{type(model).__name__} with {change}"


def load(
    path: str | os.PathLike, device: str | torch.device = "cpu", model: nn.Module | None = None
) -> Potential:
    """Load a potential from a file, or a pretrained one by its name.

    Args:
        path: A file written by ``pyg-schnet train`` or :func:`save`; the directory of a training run, which
            means its ``model.safetensors``; or the name or address of a pretrained model, as for
            :func:`~pyg_schnet.potentials.pretrained.find_model`. An existing path precedes a name.
        device: Device of the weights: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ….
        model: Model to load the weights into if they are not those of a :class:`~pyg_schnet.SchNet`, the only
            class that files construct.

    Returns:
        The potential, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file and no such model.
        ValueError: If the file is truncated or was not written by pyg_schnet, or was written by a newer
            version, if it holds another model than SchNet and ``model`` is not given, if a weight is not
            finite, or if there is no such device.
    """
    device, path = check_device(device), find_model(path)
    if Path(path).is_dir():
        path = Path(path) / "model.safetensors"
    header, tensors = read(path, "potential", device)
    domain, card = _domain(path, header), _card(path, header)
    if "class" in header or model is not None:
        own = _load_into(path, header, tensors, model)
        _check_finite(path, {**dict(own.named_parameters()), "scale": own.scale, "atomref": own.atomref})
        own.domain, own.card = domain, card
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
        with torch.random.fork_rng(devices=[]):  # keep the state: initial weights are discarded
            properties = _properties(SchNetConfig(**config), header.get("properties", []))
            potential = Potential(SchNet(**config), properties=properties)
        potential.to(tensors["model.embedding.weight"].dtype)
        potential.load_state_dict(tensors)
    except _LOADING_ERRORS as error:
        raise ValueError(f"{path}: weights do not fit the configuration beside them: {error}") from None
    _check_finite(path, potential.state_dict())
    potential.domain, potential.card = domain, card
    return potential.to(device).eval()


def _check_sizes(config: SchNetConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise if sizes differ from those of the weights, before memory is allocated for them."""
    first = "model.interactions.{}.cfconv.filter_network.dense1.weight"
    channels, filters = tensors["model.embedding.weight"].size(1), tensors[first.format(0)]
    interactions = sum(first.format(number) in tensors for number in range(len(tensors)))
    sizes = (channels, *filters.shape, interactions)
    configured = (config.hidden_channels, config.num_filters, config.num_gaussians, config.num_interactions)
    if sizes != configured:
        raise ValueError(
            f"sizes {sizes} of hidden_channels, filters, Gaussians and interactions, not {configured}"
        )


def _check_finite(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """Raise if a weight, the scale or a reference energy is not a finite number."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            value = tensor[~tensor.isfinite()].tolist()[0]
            raise ValueError(
                f"{path}: `{name}` must hold finite numbers, got {value}; the training diverged or the file "
                "is damaged, train again or use another checkpoint"
            )


def _domain(path: str | os.PathLike, header: Mapping[str, Any]) -> TrainingDomain | None:
    entry = header.get("domain")
    try:
        return None if entry is None else TrainingDomain.from_json(entry)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path) from None


def _card(path: str | os.PathLike, header: Mapping[str, Any]) -> ModelCard | None:
    entry = header.get("provenance", {}).get("card")
    try:
        return None if entry is None else ModelCard.from_json(entry)
    except (ValueError, AttributeError):
        raise _damaged(path) from None


def _load_into(
    path: str | os.PathLike, header: Mapping[str, Any], tensors: dict[str, Tensor], model: nn.Module | None
) -> Potential:
    """Load weights into a model of the caller."""
    name = header.get("class", "SchNet")
    if model is None:
        raise ValueError(
            f"{path}: holds the weights of {name}, which a file cannot construct; call "
            f"load(path, model={name.split()[0]}(...)) with the model built as for training"
        )
    try:
        properties = None
        if isinstance(model, SchNet):
            properties = _properties(model.config, header.get("properties", []))
        potential = Potential(model, properties=properties)
        potential.to(next(t.dtype for key, t in tensors.items() if key.startswith("model.")))
        potential.load_state_dict(tensors)
    except (RuntimeError, StopIteration) as error:
        raise ValueError(
            f"{path}: holds the weights of {name}, which do not fit the given {type(model).__name__}: {error}"
        ) from None
    return potential


def provenance(path: str | os.PathLike) -> dict[str, Any]:
    """Read the provenance of a checkpoint, without its weights."""
    with _open(path) as file:
        entry = _header(path, file).get("provenance")
    if not isinstance(entry, dict):
        raise _damaged(path)
    return entry


def units_of(path: str | os.PathLike) -> dict[str, str]:
    """Read what the potential of a checkpoint predicts, without its weights: units by name.

    Args:
        path: A checkpoint.
    """
    with _open(path) as file:
        header = _header(path, file)
    try:
        properties = [
            Target(entry["name"], entry["kind"], entry["unit"]) for entry in header.get("properties", [])
        ]
        has_energy = "class" in header or header["model"].get("readout", "add") is not None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    return predicted_units(properties, has_energy)


def write(
    path: str | os.PathLike, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and a header to a file, atomically."""
    from pyg_schnet import __version__  # pyg_schnet imports this module

    entry = {"format": _WITHOUT_PROPERTIES, "kind": kind, "version": __version__, **header}
    with atomic_write(path) as temporary:
        # Not save_file: it writes to a temporary file of its own, which a kill would leave behind.
        unshared, text = _without_shared_memory(tensors), json.dumps(entry)
        metadata = {_KEY: text, _CHECKSUM: checksum(text, unshared)}
        temporary.write_bytes(serialize(unshared, metadata=metadata))


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of a text and of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"\n{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory: a model may have a weight under two names, as PyG's SchNet does."""
    unshared: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()  # of all views of it
        unshared[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return unshared


def read(
    path: str | os.PathLike, kind: str, device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify the header and tensors of a file.

    Args:
        path: File to read.
        kind: Expected kind of file, such as ``"potential"`` or ``"training state"``.
        device: Device of the tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another kind, or written by a newer version.
    """
    with _open(path) as file:  # opened once: the file may be replaced at any time
        header = _header(path, file)
        if header["kind"] != kind:
            raise ValueError(f"{path}: must hold a {kind}, got a {header['kind']}")
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, AttributeError, TypeError) as error:  # dtypes that this PyTorch lacks
            raise ValueError(f"{path}: holds tensors that cannot be read ({error}); update PyTorch") from None
        metadata = file.metadata()
    stored = metadata.get(_CHECKSUM)  # none in files of earlier versions
    if stored is not None and stored != checksum(metadata[_KEY], tensors):
        raise ValueError(
            f"{path}: has another checksum than when it was written; the file is damaged, copy it again "
            "or train again"
        )
    return header, {name: tensor.to(device) for name, tensor in tensors.items()}


def _open(path: str | os.PathLike) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `pyg-schnet train` writes model.safetensors")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); it is truncated or of another kind, "
            "copy or train it again"
        ) from None


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
