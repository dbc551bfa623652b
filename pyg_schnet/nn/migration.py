"""Weights from other programs' SchNets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pyg_schnet.nn.schnet import SchNet


def from_pyg(cls: type[SchNet], model: nn.Module) -> SchNet:
    """See :meth:`pyg_schnet.SchNet.from_pyg`."""
    from torch_geometric.nn.models.schnet import RadiusInteractionGraph
    from torch_geometric.nn.models.schnet import SchNet as PyGSchNet

    if not isinstance(model, PyGSchNet):
        raise TypeError(
            f"`model` must be a torch_geometric.nn.SchNet, got {type(model).__module__}."
            f"{type(model).__qualname__}"
        )
    custom_graph = not isinstance(model.interaction_graph, RadiusInteractionGraph)
    readout = _PYG_READOUTS.get(type(model.readout).__name__)
    if readout is None:
        raise ValueError(f"`model.readout` must be a sum or a mean, got {type(model.readout).__name__}")
    scale = 1.0 if model.scale is None else float(model.scale)
    # PyG adds `mean` and multiplies by `std` only where both are given.
    mean, std = model.mean, model.std
    if mean is None or std is None:
        mean, std = None, (scale if scale != 1 else None)
    else:
        mean, std = float(mean) * scale, float(std) * scale
    atomref = None if model.atomref is None else model.atomref.weight.detach().reshape(-1) * scale
    ours = cls(
        hidden_channels=model.hidden_channels,
        num_filters=model.num_filters,
        num_interactions=model.num_interactions,
        num_gaussians=model.num_gaussians,
        cutoff=model.cutoff,
        interaction_graph=model.interaction_graph if custom_graph else None,
        readout=readout,
        dipole=model.dipole,
        mean=mean,
        std=std,
        atomref=atomref,
    )
    ours = ours.to(model.lin1.weight)
    _load(ours, _translate_pyg(model.state_dict()))
    if model.dipole and scale != 1:
        with torch.no_grad():
            for parameter in ours.get_submodule("readout.network.dense2").parameters():
                parameter.mul_(scale)
    return ours


def from_schnetpack(cls: type[SchNet], weights: Mapping[str, Tensor]) -> SchNet:
    """See :meth:`pyg_schnet.SchNet.from_schnetpack`."""
    renamed = {}
    for name, tensor in weights.items():
        for theirs, ours in _SCHNETPACK.items():
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    try:
        offsets, widths = renamed["offsets"], renamed["widths"]
        cutoff = float(renamed["cutoff"])
        channels = renamed["embedding.weight"].size(1)
        filters, gaussians = renamed["interactions.0.cfconv.filter_network.dense1.weight"].shape
        interactions = 1 + max(int(n.split(".")[1]) for n in renamed if n.startswith("interactions."))
    except KeyError as error:
        raise _incomplete(error.args[0]) from None
    spaced = torch.linspace(0, float(offsets[-1]), gaussians, dtype=torch.float64)
    if not (_close(offsets, spaced) and _close(widths, spaced[1].expand(gaussians))):
        raise ValueError(
            "`weights` must have equally spaced Gaussians from 0, one spacing wide; SchNet cannot hold "
            "trained or shifted ones"
        )
    ours = cls(
        hidden_channels=channels,
        num_filters=filters,
        num_interactions=interactions,
        num_gaussians=gaussians,
        cutoff=cutoff,
        last_center=float(offsets[-1]),
    )
    ours = ours.to(renamed["embedding.weight"])
    for name in dict(ours.named_parameters()):
        if name not in renamed:
            raise _incomplete(name)
    names = ours.state_dict().keys()
    _load(ours, {name: tensor for name, tensor in renamed.items() if name in names})
    return ours


_PYG_READOUTS = {"SumAggregation": "add", "MeanAggregation": "mean"}
_SCHNETPACK = {
    r"^(model\.)?representation\.(radial_basis\.)?": "",
    r"^cutoff_fn\.": "",
    r"\.in2f\.": ".atomwise1.",
    r"\.f2out\.0\.": ".atomwise2.",
    r"\.f2out\.1\.": ".atomwise3.",
    r"\.filter_network\.0\.": ".cfconv.filter_network.dense1.",
    r"\.filter_network\.1\.": ".cfconv.filter_network.dense2.",
    r"^(model\.)?output_modules\.0\.outnet\.0\.": "readout.network.dense1.",
    r"^(model\.)?output_modules\.0\.outnet\.1\.": "readout.network.dense2.",
}


def _translate_pyg(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {
        "mlp.0": "cfconv.filter_network.dense1",
        "mlp.2": "cfconv.filter_network.dense2",
        "conv.lin1": "atomwise1",
        "conv.lin2": "atomwise2",
        "lin": "atomwise3",
    }
    ours = {"embedding.weight": theirs["embedding.weight"]}
    for name, tensor in theirs.items():
        if name.startswith("interactions."):
            _, number, layer = name.split(".", 2)
            layer, kind = layer.rsplit(".", 1)
            if layer in names:  # PyG lists the filter network twice; its second name is not needed
                ours[f"interactions.{number}.{names[layer]}.{kind}"] = tensor
        elif name.startswith(("lin1.", "lin2.")):
            ours[f"readout.network.dense{name[3:]}"] = tensor
    return ours


def _incomplete(name: str) -> ValueError:
    return ValueError(
        "`weights` must be the state_dict of a SchNetPack 2 model of SchNet, GaussianRBF, CosineCutoff "
        f"and Atomwise, got one without {name!r}"
    )


def _close(tensor: Tensor, expected: Tensor) -> bool:
    return torch.allclose(tensor.double().cpu(), expected, rtol=1e-5, atol=1e-5)  # theirs are float32


def _load(model: SchNet, weights: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"readout.atomref"}
