"""Export of a potential to the file that ``pair_style schnet`` reads."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, cast

import torch
from ase.data import atomic_masses, chemical_symbols
from torch import Tensor, nn

from pyg_schnet.kernels import without_weight_gradients
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.interaction import Interaction
from pyg_schnet.nn.radial import CutoffEnvelope
from pyg_schnet.nn.readout import AtomicSum
from pyg_schnet.nn.snapshot import ModuleSnapshot
from pyg_schnet.nn.spline import Knots
from pyg_schnet.potentials.checkpoint import read, write
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.calculator import evaluation_copy

KIND = "LAMMPS model"


def export_to_lammps(
    potential: Potential | str | os.PathLike, path: str | os.PathLike, dtype: torch.dtype | None = None
) -> None:
    """Write a potential to a file for ``pair_style schnet`` of LAMMPS.

    The file holds weights and spline tables of the filters in the type of the network, and energies of atoms
    in eV and float64.

    Args:
        potential: A potential, the path of a checkpoint or of a run, or the name of a pretrained model.
        path: File to write, usually ``*.safetensors``.
        dtype: Precision of the network, ``torch.float32`` or ``torch.float64``; its own by default.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        TypeError: If the model is not a SchNet of this package, unchanged, that sums energies of atoms.
        ValueError: If the potential has no cutoff, or predicts properties but no energy, or is an ensemble.
    """
    own = evaluation_copy(potential, "cpu", dtype)
    if isinstance(own, Ensemble):
        raise ValueError(
            f"`potential` must be one potential for LAMMPS, got an ensemble of {len(own.potentials)}; export "
            "one of them"
        )
    model, readout = _check_model(own)
    cutoff = _cutoff(own, model)
    knots = _knots(model, cutoff)
    tensors = {"embedding": model.embedding.weight[own.elements]}
    tensors |= _dense("readout.0", readout.network.dense1) | _dense("readout.1", readout.network.dense2)
    with without_weight_gradients():
        for number, block in enumerate(cast(Iterable[Interaction], model.interactions)):
            name = f"interactions.{number}"
            for layer in ("atomwise1", "atomwise2", "atomwise3"):
                tensors |= _dense(f"{name}.{layer}", getattr(block, layer))
            tensors[f"{name}.table"] = block.filter_table.coefficients(block.cfconv.filter_network, knots)
    references = own.scale * (readout.mean + readout.atomref) + own.atomref
    tensors["atom_energy"] = references[own.elements]
    header = {
        "elements": [chemical_symbols[z] for z in own.elements],
        "masses": [float(atomic_masses[z]) for z in own.elements],
        "interactions": len(model.interactions),
        "cutoff": cutoff,
        "spacing": knots.spacing,
        "scale": float(own.scale) * readout.std,
        "activation": model.config.readout_activation,
    }
    write(path, KIND, header, tensors)


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Return the elements and the cutoff in Å of a file of :func:`export_to_lammps`."""
    header = read(path, KIND)[0]
    return {"elements": header["elements"], "cutoff": header["cutoff"]}


def _check_model(potential: Potential) -> tuple[SchNet, Any]:
    """Return model and readout of a potential that LAMMPS can evaluate; raise for others."""
    model = potential.model
    if not isinstance(model, SchNet):
        raise TypeError(f"`potential` must hold a SchNet for LAMMPS, got {type(model).__name__}")
    reason = ModuleSnapshot({"model": model}).unsupported
    if model.interaction_graph is not None:
        reason = "`interaction_graph` is a function, which LAMMPS cannot call"
    if type(model.readout) is not AtomicSum:
        reason = f"the energy must be a sum over atoms, got the readout {type(model.readout).__name__}"
    if reason is not None:
        raise TypeError(f"`potential` must hold an unchanged SchNet for LAMMPS: {reason}")
    return model, model.readout


def _cutoff(potential: Potential, model: SchNet) -> float:
    """Return the distance in Å from which atoms do not interact."""
    if potential.cutoff == math.inf:
        raise ValueError(
            "`potential` must have a cutoff for LAMMPS, which distributes atoms in space, got a SchNet "
            "without one; train with `model.cutoff`, or use attach_to_lammps in one process"
        )
    envelope = cast(CutoffEnvelope | None, model.envelope)
    return potential.cutoff if envelope is None else min(potential.cutoff, envelope.cutoff)


def _knots(model: SchNet, cutoff: float) -> Knots:
    """Return the knots of the splines from 0 to the cutoff."""
    tables, reach = model.filter_tables, torch.tensor([0.0, cutoff], dtype=model.embedding.weight.dtype)
    knots = tables.features(model).at(reach, frozen=True) if tables.supports(model) else None
    if knots is None:
        raise ValueError(
            "`potential` must have filters that splines represent, got filters that vary too fast between "
            "the knots; train with fewer Gaussians"
        )
    return knots


def _dense(name: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in layer.named_parameters()}
