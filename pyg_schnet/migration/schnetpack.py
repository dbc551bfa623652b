"""SchNetPack's weights, of its versions 1 and 2."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.migration.weight_file import read_weights
from pyg_schnet.nn.schnet import SchNet

# Version 1 has its names in `distance_expansion`, `cfconv`, `dense` and `out_net`; version 2 the others.
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
    r"^output_modules\.(\d+)\.(outnet|out_net\.1\.out_net)\.0\.": r"output.\1.dense1.",
    r"^output_modules\.(\d+)\.(outnet|out_net\.1\.out_net)\.1\.": r"output.\1.dense2.",
    r"^output_modules\.(\d+)\.standardize\.": r"output.\1.",
    r"^output_modules\.(\d+)\.atomref\.weight$": r"output.\1.atomref",
}
_NETWORK = ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")


def from_schnetpack(
    cls: type[SchNet],
    weights: Mapping[str, Tensor] | str | os.PathLike,
    readout: str = "add",
    dipole: bool = False,
    envelope: str | None = "cosine",
) -> SchNet:
    """Take over the weights of a model of SchNetPack 1 or 2, which need not be installed.

    Mean, deviation and atomic references come along, from version 1's output module or version 2's
    postprocessors. The arguments behind ``weights`` tell what no entry does. Nor does one tell of
    version 1's ``normalize_filter`` and of version 2's activations, which must be off and shifted
    softplus (``Atomwise`` has SiLU by default): compare a few energies.

    Args:
        cls: SchNet, or a class derived from it.
        weights: The model's ``state_dict()``, or a file of it, ``.safetensors`` or by ``torch.save``;
            Lightning's and SchNetPack 1's checkpoints too, where they hold tensors only. No code of a
            file is run.
        readout: ``"mean"`` where the model's ``aggregation_mode`` is "avg".
        dipole: Whether it is version 1's ``DipoleMoment`` with ``predict_magnitude``.
        envelope: ``None`` where its cutoff function is "hard".

    Returns:
        A model of the same dtype, on the same device, that predicts in SchNetPack's unit:
        ``Potential(model, scale=kcal_per_mol)`` turns kcal/mol into eV.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an entry is missing or SchNet cannot hold it, with its name; if a file holds a
            whole model, with the command that writes its weights.
    """
    entries, theirs = _rename(weights if isinstance(weights, Mapping) else read_weights(weights))
    mean, std, atomref = _standardization(entries)
    sizes = _sizes(entries)
    ours = cls(
        **sizes,
        envelope=envelope,
        readout=readout,
        dipole=dipole,
        mean=None if dipole else mean,
        std=None if dipole else std,
        atomref=None if dipole else atomref,
    )
    ours = ours.to(entries["embedding.weight"])
    own = ours.state_dict()
    for name, tensor in ours.named_parameters():
        if name not in entries:
            raise _incomplete(name)
        if entries[name].shape != tensor.shape:
            raise ValueError(
                f"`weights` must have {tuple(tensor.shape)} numbers in {name!r}, as SchNet of this size has; "
                f"got {tuple(entries[name].shape)}. Other numbers of layers or of neurons do not fit"
            )
        own[name] = entries.pop(name)
    if entries:
        left = theirs[next(iter(entries))]
        raise ValueError(f"`weights` must be those of SchNet alone, got {left!r} too, which it cannot hold")
    ours.load_state_dict(own)
    return ours


def _rename(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give entries our names, also of the one output that holds a network; and tell what they were."""
    entries, theirs = {}, {}
    for original, tensor in weights.items():
        name = re.sub(r"^(module\.|model\.)*", "", original)  # of DataParallel and Lightning
        if not name.startswith(("representation.", "output_modules.", "postprocessors.")):
            continue  # a Lightning checkpoint holds its losses' and metrics' numbers too
        for pattern, ours in _NAMES.items():
            name = re.sub(pattern, ours, name)
        entries[name], theirs[name] = tensor, original
    outputs = sorted({name.split(".")[1] for name in entries if re.match(r"output\.\d+\.dense", name)})
    if len(outputs) > 1:
        raise ValueError(
            f"`weights` must have one output, got {' and '.join(f'output_modules.{k}' for k in outputs)}; "
            "remove the entries of all but one"
        )
    for name in list(entries):
        if outputs and name.startswith(f"output.{outputs[0]}."):
            kind = name.split(".", 2)[2]
            ours = f"readout.network.{kind}" if kind in _NETWORK else kind
            entries[ours], theirs[ours] = entries.pop(name), theirs.pop(name)
    return entries, theirs


def _sizes(entries: dict[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of the network, and take out what tells nothing else."""
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
    spaced = torch.linspace(0, float(offsets[-1]), gaussians, dtype=torch.float64)
    if not (_close(offsets, spaced) and _close(widths, spaced[1].expand(gaussians))):
        raise ValueError(
            "`weights` must have equally spaced Gaussians from 0, one spacing wide; SchNet cannot hold "
            "trained or shifted ones"
        )
    if len(embedding) < 100:
        raise ValueError(
            f"`weights` must embed the atomic numbers 0 to 99, got {len(embedding)} rows in "
            "'representation.embedding.weight'; append rows of NaN for elements that the model never saw"
        )
    entries["embedding.weight"] = embedding[:100]
    for name in [name for name in entries if re.match(r"interactions\.\d+\.cutoff_network\.cutoff$", name)]:
        del entries[name]
    return {
        "hidden_channels": embedding.size(1),
        "num_filters": filters,
        "num_interactions": interactions,
        "num_gaussians": gaussians,
        "cutoff": cutoff,
        "last_center": float(offsets[-1]),
    }


def _standardization(entries: dict[str, Tensor]) -> tuple[float, float, Tensor]:
    """Take out what is done to the numbers of atoms.

    Version 1 does it in its output module, version 2 in its postprocessors, one after another.
    """
    mean, std = _number(entries, "mean", 0.0), _number(entries, "stddev", 1.0)
    atomref = _add_table(torch.zeros(100, dtype=torch.float64), entries.pop("atomref", None))
    steps = [name for name in entries if re.match(r"postprocessors\.\d+\.(scale|mean|atomref)$", name)]
    seen = set()
    for name in sorted(steps, key=lambda name: int(name.split(".")[1])):
        kind = name.split(".")[2]
        if kind in seen:
            raise ValueError(
                f"`weights` must have one {kind!r} among its postprocessors, got a second, {name!r}; remove "
                "the entries of those that do not act on the energy"
            )
        seen.add(kind)
        if kind == "atomref":
            atomref = _add_table(atomref, entries.pop(name))
        elif kind == "mean":
            mean += _number(entries, name, 0.0)
        else:
            factor = _number(entries, name, 1.0)
            mean, std, atomref = mean * factor, std * factor, atomref * factor
    return mean, std, atomref


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
