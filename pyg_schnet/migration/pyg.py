"""Conversion from and to PyG's SchNet."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.nn.models import schnet as pyg

from pyg_schnet.graph.neighbors import radius_graph
from pyg_schnet.migration.pickled_module import PickledObject
from pyg_schnet.migration.weight_file import WeightFile, read_weights
from pyg_schnet.nn.readout import AtomicMean, AtomicSum, DipoleMagnitude, element_table
from pyg_schnet.nn.schnet import SchNet

_READOUTS = {"SumAggregation": "add", "MeanAggregation": "mean"}
_LAYERS = {
    "mlp.0": "cfconv.filter_network.dense1",
    "mlp.2": "cfconv.filter_network.dense2",
    "conv.lin1": "atomwise1",
    "conv.lin2": "atomwise2",
    "lin": "atomwise3",
}
_Value = TypeVar("_Value")


class ExactInteractionGraph(pyg.RadiusInteractionGraph):
    """An ``interaction_graph`` for PyG with all neighbors within the cutoff, without pyg-lib.

    PyG's own silently drops neighbors beyond the 32nd.

    Args:
        cutoff: Cutoff in Å.
        max_num_neighbors: Raise if an atom has more neighbors; none are dropped.
    """

    def __init__(self, cutoff: float, max_num_neighbors: int | None = None):
        super().__init__(cutoff)
        self.max_num_neighbors = max_num_neighbors  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        edges = radius_graph(pos, self.cutoff, batch, max_num_neighbors=self.max_num_neighbors)
        return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=-1)


def from_pyg(
    cls: type[SchNet],
    model: nn.Module | Mapping[str, Tensor] | str | os.PathLike,
    readout: str | None = None,
    dipole: bool | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> SchNet:
    """Build a model with the weights of a :class:`torch_geometric.nn.SchNet`.

    Energies agree except where PyG drops neighbors (``max_num_neighbors``), or where its envelope rises
    again beyond the cutoff. A custom ``interaction_graph`` is kept.

    Args:
        cls: SchNet, or a class derived from it.
        model: PyG's model, its ``state_dict()``, or a file of either, written by ``torch.save`` or in
            ``.safetensors``. No code of a file is run.
        readout: Argument of PyG's class, ``"add"`` by default. This and the following arguments are only for
            a ``state_dict``, which does not contain them.
        dipole: Argument of PyG's class.
        mean: Argument of PyG's class.
        std: Argument of PyG's class.

    Returns:
        A model of the same dtype, on the same device.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``model`` is not PyG's SchNet.
        ValueError: If weights or a file are not those of PyG's SchNet, or if an argument is given for a whole
            model, which contains it.
    """
    given = {"readout": readout, "dipole": dipole, "mean": mean, "std": std}
    if not isinstance(model, nn.Module):
        model = _build_pyg_model(model, given)
    elif any(value is not None for value in given.values()):
        raise _redundant_argument(given)
    if not isinstance(model, pyg.SchNet):
        raise TypeError(
            f"`model` must be a torch_geometric.nn.SchNet, got {type(model).__module__}."
            f"{type(model).__qualname__}"
        )
    graph = model.interaction_graph
    readout = _READOUTS.get(type(model.readout).__name__)
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
        interaction_graph=None if isinstance(graph, pyg.RadiusInteractionGraph) else graph,
        max_num_neighbors=graph.max_num_neighbors if isinstance(graph, ExactInteractionGraph) else None,
        readout=readout,
        dipole=model.dipole,
        mean=mean,
        std=std,
        atomref=atomref,
    )
    ours = ours.to(model.lin1.weight)
    missing, unexpected = ours.load_state_dict(_our_names(model.state_dict()), strict=False)
    assert not unexpected
    assert set(missing) <= {"readout.atomref"}
    if model.dipole and scale != 1:
        with torch.no_grad():
            for parameter in ours.get_submodule("readout.network.dense2").parameters():
                parameter.mul_(scale)
    return ours.train(model.training)


def _build_pyg_model(model: Mapping[str, Tensor] | str | os.PathLike, given: dict[str, Any]) -> pyg.SchNet:
    """Build PyG's model from its weights or from a file."""
    file = WeightFile(dict(model)) if isinstance(model, Mapping) else read_weights(model)
    weights = {re.sub(r"^(module\.|model\.)*", "", name): tensor for name, tensor in file.weights.items()}
    cutoff = scale = None
    if file.model is not None:
        if any(value is not None for value in given.values()):
            raise _redundant_argument(given)
        given, cutoff, scale = _read_model(file.model)
    try:
        offset, (filters, channels) = (
            weights["distance_expansion.offset"],
            weights["interactions.0.conv.lin1.weight"].shape,
        )
        cutoff = cutoff or float(f"{float(offset[-1]):.7g}")  # rounded to float32's digits
        table = weights.get("atomref.weight")
        with torch.random.fork_rng(devices=[]):  # keep the state: initial weights are discarded
            theirs = pyg.SchNet(
                hidden_channels=channels,
                num_filters=filters,
                num_interactions=len({name.split(".")[1] for name in weights if ".conv.lin1." in name}),
                num_gaussians=len(offset),
                cutoff=cutoff,
                interaction_graph=ExactInteractionGraph(cutoff),
                readout=given["readout"] or "add",
                dipole=bool(given["dipole"]),
                mean=given["mean"],
                std=given["std"],
                atomref=None if table is None else table.clone(),  # it becomes a buffer of the model
            ).to(weights["lin1.weight"])
        theirs.load_state_dict(weights)
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "`model` must be a torch_geometric.nn.SchNet, its state_dict or a file of either, got other "
            f"entries: {error}"
        ) from None
    theirs.scale = scale  # pyright: ignore[reportAttributeAccessIssue]
    return theirs


def _redundant_argument(given: dict[str, Any]) -> ValueError:
    name, value = next((name, value) for name, value in given.items() if value is not None)
    return ValueError(
        f"`{name}` must be left out if `model` is a whole model, which contains it; got {value!r}"
    )


def _read_model(model: PickledObject) -> tuple[dict[str, Any], float | None, float | None]:
    """Read what weights do not contain from a whole model in a file: arguments, cutoff and scale."""
    readout, graph = model.child("readout"), model.child("interaction_graph")
    if model.kind.rsplit(".", 1)[-1] != "SchNet" or readout is None:
        raise ValueError(f"`model` must be a file of torch_geometric.nn.SchNet, got one of {model.kind}")
    kind = _READOUTS.get(readout.kind.rsplit(".", 1)[-1])
    if kind is None:
        raise ValueError(f"`model.readout` must be a sum or a mean, got {readout.kind}")
    if graph is None or not graph.kind.endswith((".RadiusInteractionGraph", ".ExactInteractionGraph")):
        raise ValueError(
            "`model.interaction_graph` must be PyG's own in a file, got another, which is code; pass "
            "the model itself instead of the file"
        )
    numbers = {name: _number(model.attribute(name)) for name in ("mean", "std", "scale", "cutoff")}
    scale, cutoff = numbers.pop("scale"), numbers.pop("cutoff")
    return {"readout": kind, "dipole": model.attribute("dipole") is True, **numbers}, cutoff, scale


def _number(value: Any) -> float | None:
    single = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    return float(value) if single else None


def to_pyg(model: SchNet, scale: float | Tensor = 1.0, atomref: Tensor | None = None) -> pyg.SchNet:
    """Build a :class:`torch_geometric.nn.SchNet` with the same weights, energies and forces.

    Its ``interaction_graph`` finds all neighbors within the cutoff by the search of this package: PyG's own
    needs pyg-lib and drops neighbors beyond the 32nd. ``max_num_neighbors`` still raises an error. Its
    ``log 2``, γ and centers are computed in float64; a new PyG model that loads this ``state_dict`` has them
    in float32, and energies that differ by 1e-8. Sums over atoms have the dtype of the weights: convert the
    model by ``double()`` before if ``atomref`` is large.

    Args:
        model: A model of this package.
        scale: Factor of the property, shape ``()``: the ``scale`` in eV of a trained
            :class:`~pyg_schnet.Potential`, whose energies PyG's model then predicts in eV.
        atomref: Energies in eV added per atom, shape ``(100,)``: the ``atomref`` of that potential, not
            trained in PyG's model.

    Returns:
        A model of the same dtype, on the same device. :func:`from_pyg` restores the same numbers.

    Raises:
        ValueError: If PyG's class cannot represent the model: a final activation of the filters, no cutoff,
            an envelope other than the cosine, or Gaussians that do not end at the cutoff.
    """
    config, readout, scale = model.config, model.readout, float(scale)
    _check_representable(model)
    mean = std = table = None
    if not isinstance(readout, DipoleMagnitude):
        assert isinstance(readout, AtomicSum)
        added = element_table(atomref).to(readout.atomref.device)
        if isinstance(readout, AtomicMean) and bool(added.any()):
            _reject("readout", "'add' where `atomref` is given: a mean does not add up atoms", "'mean'")
        mean, std = readout.mean * scale, readout.std * scale
        table = readout.atomref * scale + added
        table = table[:, None] if bool(table.any()) else None
        if (mean, std) == (0.0, 1.0):
            mean = std = None
    elif atomref is not None:
        _reject("dipole", "False where `atomref` is given: atoms alone have no dipole", "True")
    assert config.cutoff is not None
    with torch.random.fork_rng(devices=[]):  # keep the state: initial weights are discarded
        theirs = pyg.SchNet(
            hidden_channels=config.hidden_channels,
            num_filters=config.num_filters,
            num_interactions=config.num_interactions,
            num_gaussians=config.num_gaussians,
            cutoff=config.cutoff,
            interaction_graph=model.interaction_graph
            or ExactInteractionGraph(config.cutoff, model.max_num_neighbors),
            readout="mean" if config.readout == "mean" else "add",
            dipole=config.dipole,
            mean=mean,
            std=std,
            atomref=table,
        ).to(model.embedding.weight)
    if config.dipole and scale != 1:
        theirs.scale = scale  # pyright: ignore[reportAttributeAccessIssue]
    weights = model.state_dict()
    with torch.no_grad():
        for name, tensor in _our_names(theirs.state_dict()).items():
            tensor.copy_(weights[name])
        if theirs.atomref is not None:
            theirs.initial_atomref = table.to(model.embedding.weight)  # pyright: ignore[reportOptionalMemberAccess]
            theirs.atomref.weight.copy_(theirs.initial_atomref)
            theirs.atomref.weight.requires_grad_(False)
    _set_constants(theirs, model)
    return theirs.train(model.training)


def _set_constants(theirs: pyg.SchNet, model: SchNet) -> None:
    """Set the constants that PyG computes in float32: log 2, γ and the Gaussians' centers."""
    theirs.distance_expansion.offset = model.radial_basis.centers.clone()
    theirs.distance_expansion.coeff = -model.radial_basis.gamma
    for module in theirs.modules():
        if isinstance(module, pyg.ShiftedSoftplus):
            module.shift = math.log(2.0)


def _check_representable(model: SchNet) -> None:
    """Raise if PyG's class cannot represent the model."""
    config = model.config
    if config.final_activation:
        _reject("final_activation", "False: PyG's filter network has none", "True")
    if config.readout_activation != "shifted_softplus":
        _reject("readout_activation", "'shifted_softplus', PyG's only one", repr(config.readout_activation))
    if config.cutoff is None:
        _reject("cutoff", "a distance in Å: PyG's class has no model of all pairs", "None")
    if config.envelope != "cosine":
        _reject("envelope", "'cosine', PyG's only one", repr(config.envelope))
    last = config.last_center
    if last is not None and not math.isclose(last, config.cutoff, rel_tol=1e-6):
        _reject("last_center", f"the cutoff, {config.cutoff} Å, where PyG has it", str(last))
    spacing = config.cutoff / (config.num_gaussians - 1)
    gamma = 0.5 / spacing**2
    if config.gamma is not None and not math.isclose(config.gamma, gamma, rel_tol=1e-6):
        _reject("gamma", f"None or {gamma:g} Å⁻², PyG's for these centers", str(config.gamma))
    if not isinstance(model.readout, AtomicSum | DipoleMagnitude):
        name = type(model.readout).__name__
        _reject("readout", "a sum or a mean of atoms or a dipole, as PyG's", name)


def _reject(name: str, requirement: str, got: str) -> NoReturn:
    raise ValueError(
        f"`{name}` must be {requirement}; got {got}. Train a model that PyG's class can represent, or "
        "keep this class: it has the same call signature"
    )


def _our_names(theirs: Mapping[str, _Value]) -> dict[str, _Value]:
    """Rename the entries of PyG's ``state_dict`` to those of this package."""
    ours = {"embedding.weight": theirs["embedding.weight"]}
    for name, value in theirs.items():
        if name.startswith("interactions."):
            _, number, layer = name.split(".", 2)
            layer, kind = layer.rsplit(".", 1)
            if layer in _LAYERS:  # PyG lists the filter network twice; its second name is not needed
                ours[f"interactions.{number}.{_LAYERS[layer]}.{kind}"] = value
        elif name.startswith(("lin1.", "lin2.")):
            ours[f"readout.network.dense{name[3:]}"] = value
    return ours
