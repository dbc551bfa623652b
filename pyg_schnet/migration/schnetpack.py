"""Conversion of SchNetPack's weights, of its versions 0.3, 1 and 2."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.migration.schnetpack_examples import select_agreeing
from pyg_schnet.migration.schnetpack_settings import Settings, find_config, read_config, read_model
from pyg_schnet.migration.weight_file import WeightFile, read_weights
from pyg_schnet.nn.config import READOUT_ACTIVATIONS
from pyg_schnet.nn.schnet import SchNet

# Earlier versions use the names `distance_expansion`, `cfconv`, `dense` and `out_net`; version 2 the others.
# The outputs of 0.3 are in `output_dict`, or are one module instead of a list.
_NAMES = {
    r"^representation\.": "",
    r"^(radial_basis|distance_expansion)\.": "",
    r"^width$": "widths",
    r"^(cutoff_fn|interactions\.0\.cutoff_network)\.": "",
    r"\.cfconv\.(filter_network|cutoff_network)\.": r".\1.",  # version 1 lists them twice
    r"\.(cfconv\.)?in2f\.": ".atomwise1.",
    r"\.(f2out\.0|cfconv\.f2out)\.": ".atomwise2.",
    r"\.(f2out\.1|dense)\.": ".atomwise3.",
    r"\.filter_network\.0\.": ".cfconv.filter_network.dense1.",
    r"\.filter_network\.1\.": ".cfconv.filter_network.dense2.",
    r"^output_modules\.(output_dict\.)?(?=\w+\.(out_?net|standardize|atomref)\.)": "output.",
    r"^output_modules\.(?=(out_?net|standardize|atomref)\.)": "output.0.",
    r"^(output\.\w+)\.(outnet|out_net\.1\.out_net)\.0\.": r"\1.dense1.",
    r"^(output\.\w+)\.(outnet|out_net\.1\.out_net)\.1\.": r"\1.dense2.",
    r"^(output\.\w+)\.standardize\.": r"\1.",
    r"^(output\.\w+)\.atomref\.weight$": r"\1.atomref",
}
_NETWORK = ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")
_DUPLICATE = r"^(output_modules|interactions\.\d+)\.cutoff_network\.cutoff$"
_READOUTS = {"sum": "add", "avg": "mean"}
_ENVELOPES = {"CosineCutoff": "cosine", "HardCutoff": None}


def from_schnetpack(
    cls: type[SchNet],
    weights: Mapping[str, Tensor] | str | os.PathLike,
    readout: str | None = None,
    dipole: bool = False,
    envelope: str | None = "auto",
    *,
    activation: str | None = None,
    is_extensive: bool | None = None,
    config: Mapping[str, Any] | str | os.PathLike | None = None,
    examples: Iterable[Data] | None = None,
) -> SchNet:
    """Build a model with the weights of SchNetPack 2, 1 or 0.3, which need not be installed.

    Mean, standard deviation and atomic references are included, from the output module of earlier versions or
    from the postprocessors of version 2. Settings that weights do not contain are read from the whole model,
    if the file holds it, or from the ``config.yaml`` of the run, beside the file or given. Others must be
    given as arguments.

    Args:
        cls: SchNet, or a class derived from it.
        weights: The model's ``state_dict()``, or a file: SchNetPack's ``best_model``, a checkpoint, or a
            ``state_dict`` written by ``torch.save`` or in ``.safetensors``. No code of a file is run.
        readout: ``"mean"`` if the model's ``aggregation_mode`` is "avg"; ``"add"`` by default.
        dipole: Whether the output is version 1's ``DipoleMoment`` with ``predict_magnitude``.
        envelope: ``None`` if the cutoff function is "hard"; ``"cosine"`` by default.
        activation: Activation of the output module: ``"silu"``, the default of version 2,
            ``"shifted_softplus"``, that of earlier versions, or ``"tanh"``. Required for version 2 if it is
            not in the file or configuration.
        is_extensive: Setting of version 2's ``AddOffsets``. If it is not in the file or configuration,
            ``True`` is assumed for sums, as in SchNetPack, and it is required for averages.
        config: The ``config.yaml`` of the run, or its content.
        examples: Structures with ``z``, ``pos``, ``cell`` and ``pbc`` if they are periodic, and ``energy``
            computed by SchNetPack with these weights, in its unit. The model must agree with them; an unknown
            activation is determined by them.

    Returns:
        A model of the same dtype, on the same device, that predicts in SchNetPack's unit.
        ``Potential(model, scale=kcal_per_mol)`` turns kcal/mol into eV.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an entry is missing or SchNet cannot represent the model, if an argument is missing or
            contradicts the file, or if the examples disagree.
    """
    file = WeightFile(dict(weights)) if isinstance(weights, Mapping) else read_weights(weights)
    entries, theirs, output = _rename(file.weights)
    version = 2 if any(".outnet." in name for name in theirs.values()) else 1
    examples = None if examples is None else list(examples)
    settings = _settings(weights, file, config, output)
    settings.check()
    settings = _with_arguments(settings, readout, envelope, activation, dipole, is_extensive)
    settings = _with_defaults(settings, version, "output_dict" in output, examples is not None)
    options: dict[str, Any] = {
        "readout": _READOUTS[settings.aggregation or "sum"],
        "envelope": _ENVELOPES[settings.cutoff or "CosineCutoff"],
        "dipole": settings.output == "DipoleMoment",
    }
    mean, std, atomref = _standardization(entries, settings, version, examples is not None)
    if not options["dipole"]:
        options |= {"mean": mean, "std": std, "atomref": atomref}
    options |= _sizes(entries, settings)
    state = _state(cls(**options), entries, theirs)

    def build(activation: str) -> SchNet:
        own = cls(**options, readout_activation=activation).to(state["embedding.weight"])
        own.load_state_dict(state)
        return own

    if examples is not None:
        return select_agreeing(
            map(build, [settings.activation] if settings.activation else READOUT_ACTIVATIONS), examples
        )
    assert settings.activation is not None
    return build(settings.activation)


def _rename(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Return the entries by our names, their original names, and the module of the output with a network."""
    entries, theirs, output = {}, {}, "output_modules.0"
    for original, tensor in weights.items():
        name = re.sub(r"^(module\.|model\.)*", "", original)  # of DataParallel, Lightning
        if not name.startswith(("representation.", "output_modules.", "postprocessors.")):
            continue  # Lightning checkpoints also hold losses and metrics
        output = found[1] if (found := re.match(r"(output_modules(\.\w+)*?)\.out_?net\.", name)) else output
        for pattern, ours in _NAMES.items():
            name = re.sub(pattern, ours, name)
        entries[name], theirs[name] = tensor, original
    outputs = sorted({name.split(".")[1] for name in entries if re.match(r"output\.\w+\.dense", name)})
    if len(outputs) > 1:
        named = " and ".join(f"output_modules.{name}" for name in outputs)
        raise ValueError(f"`weights` must have one output, got {named}; remove the entries of all but one")
    for name in list(entries):
        if outputs and name.startswith(f"output.{outputs[0]}."):
            kind = name.split(".", 2)[2]
            ours = f"readout.network.{kind}" if kind in _NETWORK else kind
            entries[ours], theirs[ours] = entries.pop(name), theirs.pop(name)
    return entries, theirs, output


def _settings(
    weights: Mapping[str, Tensor] | str | os.PathLike,
    file: WeightFile,
    config: Mapping[str, Any] | str | os.PathLike | None,
    output: str,
) -> Settings:
    """Read the settings from the first available source: model, configuration, or none."""
    if file.model is not None and not isinstance(weights, Mapping):
        return read_model(file.model, os.fspath(weights), output)
    if config is None and not isinstance(weights, Mapping):
        config = find_config(weights)
    if config is None:
        return Settings("the caller")
    number = output.rsplit(".", 1)[-1]
    return read_config(config, int(number) if number.isdecimal() else 0)


def _with_arguments(
    settings: Settings,
    readout: str | None,
    envelope: str | None,
    activation: str | None,
    dipole: bool,
    is_extensive: bool | None,
) -> Settings:
    """Add the caller's arguments, which must not contradict the settings that were read."""
    given: dict[str, tuple[str, Any, Any]] = {}
    if readout is not None:
        by_name = {ours: name for name, ours in _READOUTS.items()} | {"sum": "sum"}
        given["aggregation"] = ("readout", readout, by_name.get(readout))
    if envelope != "auto":
        by_envelope = {ours: name for name, ours in _ENVELOPES.items()}
        given["cutoff"] = ("envelope", envelope, by_envelope.get(envelope))
    if activation is not None:
        given["activation"] = ("activation", activation, activation)
    if is_extensive is not None:
        given["is_extensive"] = ("is_extensive", is_extensive, is_extensive)
    if dipole:
        given["output"] = ("dipole", dipole, "DipoleMoment")
    for field, (name, value, theirs) in given.items():
        known = getattr(settings, field)
        if known is not None and known != theirs:
            raise ValueError(
                f"`{name}` must be left out or equal that of the model, {known} by {settings.source}; "
                f"got {value!r}"
            )
    if "aggregation" in given and given["aggregation"][2] is None:
        raise ValueError(f"`readout` must be 'add' or 'mean', got {readout!r}")
    if "cutoff" in given and given["cutoff"][2] is None:
        raise ValueError(
            f"`envelope` must be 'cosine' or None, as SchNetPack's cutoffs are, got {envelope!r}"
        )
    return replace(settings, **{field: theirs for field, (_, _, theirs) in given.items()})


def _with_defaults(settings: Settings, version: int, is_property_model: bool, has_examples: bool) -> Settings:
    """Add the defaults of a version, and raise if a setting without default is missing."""
    if version == 2 and settings.output == "DipoleMoment":
        raise ValueError(
            "`weights` must be of a model with Atomwise, or of version 1's DipoleMoment; version 2 corrects "
            "the charges of its dipoles, which SchNet cannot represent"
        )
    if settings.cutoff is None and is_property_model:
        raise ValueError(
            "`envelope` must be given for a PropertyModel of SchNetPack 0.3: None for its default, "
            "HardCutoff, or 'cosine'"
        )
    activation = settings.activation or (None if version == 2 else "shifted_softplus")
    if activation not in (None, *READOUT_ACTIVATIONS):
        raise ValueError(
            f"`activation` must be one of {', '.join(map(repr, READOUT_ACTIVATIONS))}, which SchNet can have "
            f"in its readout; got {activation!r} by {settings.source}"
        )
    if activation is None and not has_examples:
        raise ValueError(
            "`activation` must be set for weights of SchNetPack 2, which do not hold it: 'silu', the "
            "default of its Atomwise, 'shifted_softplus' or 'tanh'. Or pass the file of the whole model "
            "(best_model), the config.yaml of the run as `config`, or structures with energies as `examples`"
        )
    return replace(settings, activation=activation)


def _state(own: SchNet, entries: dict[str, Tensor], theirs: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the ``state_dict`` of a model with its weights replaced by those of SchNetPack.

    Raises:
        ValueError: If an entry is missing, has another shape, or remains unused.
    """
    own = own.to(entries["embedding.weight"])
    state = own.state_dict()
    for name, tensor in own.named_parameters():
        if name not in entries:
            raise _incomplete(name)
        if entries[name].shape != tensor.shape:
            raise ValueError(
                f"`weights` must have {tuple(tensor.shape)} numbers in {name!r}, as SchNet of this size has; "
                f"got {tuple(entries[name].shape)}. Other numbers of layers or of neurons do not fit"
            )
        state[name] = entries.pop(name)
    if entries:
        unused = theirs[next(iter(entries))]
        raise ValueError(f"`weights` must be those of SchNet alone, got {unused!r} too, which it cannot hold")
    return state


def _sizes(entries: dict[str, Tensor], settings: Settings) -> dict[str, Any]:
    """Return the sizes of the network, and remove entries that only define sizes."""
    if "eps" in entries or "interactions.0.cutoff_network.eps" in entries:
        raise ValueError("`weights` must be of a model with CosineCutoff or HardCutoff, got MollifierCutoff")
    try:
        offsets, widths = entries.pop("offsets"), entries.pop("widths")
        cutoff = float(entries.pop("cutoff"))
        embedding = entries["embedding.weight"]
        filters, gaussians = entries["interactions.0.cfconv.filter_network.dense1.weight"].shape
        interactions = 1 + max(int(n.split(".")[1]) for n in entries if n.startswith("interactions."))
    except KeyError as error:
        raise _incomplete(error.args[0]) from None
    sizes = (embedding.size(1), interactions)
    if any(isinstance(other, int) and other != own for own, other in zip(sizes, settings.sizes, strict=True)):
        raise ValueError(
            f"{settings.source}: must be of the model of the weights, which has {sizes} features and "
            f"interactions; got {settings.sizes}"
        )
    spaced = torch.linspace(0, float(offsets[-1]), gaussians, dtype=torch.float64)
    if not (_close(offsets, spaced) and _close(widths, spaced[1].expand(gaussians))):
        raise ValueError(
            "`weights` must have equally spaced Gaussians from 0, one spacing wide; SchNet cannot hold "
            "trained or shifted ones"
        )
    if len(embedding) < 100:
        raise ValueError(
            f"`weights` must embed the atomic numbers 0 to 99, got {len(embedding)} rows in "
            "'representation.embedding.weight'; append rows of NaN for elements absent from training"
        )
    entries["embedding.weight"] = embedding[:100]
    for name in [name for name in entries if re.match(_DUPLICATE, name)]:
        del entries[name]
    return {
        "hidden_channels": embedding.size(1),
        "num_filters": filters,
        "num_interactions": interactions,
        "num_gaussians": gaussians,
        "cutoff": cutoff,
        "last_center": float(offsets[-1]),
    }


def _standardization(
    entries: dict[str, Tensor], settings: Settings, version: int, has_examples: bool
) -> tuple[float, float, Tensor]:
    """Remove and return the mean, standard deviation and atomic references.

    Version 1 applies them in its output module, version 2 in its postprocessors, one after another.
    """
    mean, std = _number(entries, "mean", 0.0), _number(entries, "stddev", 1.0)
    atomref = _add_table(torch.zeros(100, dtype=torch.float64), entries.pop("atomref", None))
    steps = [name for name in entries if re.match(r"postprocessors\.\d+\.(scale|mean|atomref)$", name)]
    seen: set[str] = set()
    extensive: set[bool | None] = set()
    for name in sorted(steps, key=lambda name: int(name.split(".")[1])):
        number, kind = int(name.split(".")[1]), name.split(".")[2]
        step = settings.step(number)
        if not settings.applies(number, kind):
            del entries[name]
            continue
        if kind in seen:
            raise ValueError(
                f"`weights` must have one {kind!r} among its postprocessors, got a second, {name!r}; remove "
                "the entries of those that do not act on the energy"
            )
        seen.add(kind)
        if kind != "scale" and bool(entries[name].any()):
            known = settings.is_extensive if step is None else step.is_extensive
            if settings.is_extensive not in (None, known):
                raise ValueError(
                    f"`is_extensive` must be left out or equal that of the model, {known} by "
                    f"{settings.source}; got {settings.is_extensive}"
                )
            extensive.add(known)
        if kind == "atomref":
            atomref = _add_table(atomref, entries.pop(name))
        elif kind == "mean":
            mean += _number(entries, name, 0.0)
        else:
            factor = _number(entries, name, 1.0)
            mean, std, atomref = mean * factor, std * factor, atomref * factor
    if version == 2:
        _check_offsets(extensive, settings, has_examples)
    return mean, std, atomref


def _check_offsets(extensive: set[bool | None], settings: Settings, has_examples: bool) -> None:
    """Raise for offsets per molecule if atoms are summed, and offsets per atom if they are averaged."""
    averaged = settings.aggregation == "avg"
    if averaged in extensive:
        mode, needed = ("avg", False) if averaged else ("sum", True)
        raise ValueError(
            f"`weights` must be of a model whose AddOffsets has is_extensive={needed} where its Atomwise "
            f"has aggregation_mode={mode!r}; {settings.source} has {averaged}, which SchNet cannot hold. Set "
            "mean and atomref of that postprocessor to zero, and add them yourself"
        )
    if averaged and None in extensive and not has_examples:
        raise ValueError(
            "`is_extensive` must be set for an average of SchNetPack 2 with AddOffsets, as it was there: "
            "weights do not hold it. Or pass the file of the whole model, or the config.yaml as `config`"
        )


def _number(entries: dict[str, Tensor], name: str, default: float) -> float:
    value = entries.pop(name, None)
    if value is None:
        return default
    if value.numel() != 1:
        raise ValueError(f"`weights` must have one number in {name!r}, got {value.numel()}")
    return float(value)


def _add_table(table: Tensor, added: Tensor | None) -> Tensor:
    if added is None:
        return table
    values = added.detach().double().cpu().reshape(-1)[: len(table)]
    return table + torch.nn.functional.pad(values, (0, len(table) - len(values)))


def _incomplete(name: str) -> ValueError:
    return ValueError(
        "`weights` must be the state_dict of a SchNetPack model of SchNet, Gaussians, CosineCutoff and "
        f"Atomwise, got one without {name!r}"
    )


def _close(tensor: Tensor, expected: Tensor) -> bool:
    return torch.allclose(tensor.double().cpu(), expected, rtol=1e-5, atol=1e-5)  # theirs are float32
