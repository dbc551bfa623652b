"""Readouts of the properties of a run, with scales and references from its training labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.streaming import stream
from pyg_schnet.nn import AtomwiseNetwork, DipoleMagnitude, SchNetConfig, SpatialExtent
from pyg_schnet.nn.readout import CenteredReadout, Readout, sum_by_molecule
from pyg_schnet.potentials.targets import Target
from pyg_schnet.training.element_charges import fit_element_charges


@dataclass(frozen=True)
class LabelScale:
    """Size of the labels of a property, for the loss.

    Attributes:
        spread: Standard deviation of the labels relative to the references, in their unit; 1 if it is zero.
        known: Share of the structures with a label.
    """

    spread: float
    known: float


def fit_readouts(
    targets: Sequence[Target], train: AtomsDataset, config: SchNetConfig
) -> tuple[dict[Target, Readout], dict[Target, LabelScale]]:
    r"""Build the readouts of properties, and fit their references and scales to training labels.

    References are fitted by least squares, with :math:`n` atoms of each element: for extensive properties
    :math:`\sum_z a_z n_z`; for values of atoms the mean of each element; for the spatial extent
    :math:`\sum_i (q_{z_i} |\mathbf r_i - \mathbf c|^2 + a_{z_i})`; for dipoles the charges of
    :func:`~pyg_schnet.training.element_charges.fit_element_charges`. An intensive property has its mean.

    The scale of a dipole or an extent is the spread of the labels about the references, over the root mean
    square change by an output of one of a single atom. Their networks start with an output of zero, so that
    the first errors are those of the references; but for dipoles without, of which zero is stationary.

    Args:
        targets: The properties.
        train: Training structures with labels, NaN where they are missing.
        config: The network.

    Returns:
        Readouts with new weights, and the scales of the labels.

    Raises:
        ValueError: If a label is absent, or its shape is not that of its kind.
    """
    readouts, scales = {}, {}
    for target in targets:
        _check(target, train)
        settings: dict[str, Any] = {}
        if target.kind == "intensive":
            statistics = train.statistics(target.name)
            settings = {"mean": statistics.mean, "std": statistics.std or 1.0}
        elif target.kind in ("extensive", "atomic"):
            references = train.references(target.name)
            settings = {"std": train.scale(references, target.name), "atomref": references.energy}
        readout = target.readout(
            config.hidden_channels,
            zero_output=config.zero_output,
            activation=config.readout_activation,
            **settings,
        )
        if isinstance(readout, SpatialExtent):
            _fit_extent(readout, target, train)
            _start_at_references(readout)
        elif isinstance(readout, DipoleMagnitude):
            readout.charges.copy_(fit_element_charges(readout, target.name, train))
            if bool(readout.charges.any()):
                _start_at_references(readout)
        readouts[target], scales[target] = readout, _scale(readout, target, train)
        if isinstance(readout, SpatialExtent | DipoleMagnitude):
            readout.scale.fill_(scales[target].spread / _lever(readout, target, train))
    return readouts, scales


def describe(targets: Sequence[Target], scales: Mapping[Target, LabelScale]) -> list[str]:
    """Return a line of text for each property: kind, unit, spread, and share of known labels."""
    lines = []
    for target in targets:
        scale, unit = scales[target], f" {target.unit}" if target.unit else ""
        missing = "" if scale.known == 1 else f", known for {100 * scale.known:.3g} % of the structures"
        lines.append(f"{target.name} ({target.kind}): spread {scale.spread:.4g}{unit}{missing}")
    return lines


def _check(target: Target, train: AtomsDataset) -> None:
    if target.name not in train.properties:
        known = ", ".join(train.properties) or "none"
        raise ValueError(f"`targets` must be labels of {train.path}, {known}; got {target.name!r}")
    if train.is_atomic(target.name) != target.is_atomic:
        each, kind = ("atom", "atomic") if train.is_atomic(target.name) else ("structure", "intensive")
        raise ValueError(
            f"`kind` of the target {target.name!r} must be that of its labels, one for each {each}, got "
            f"{target.kind!r}; write {{name: {target.name}, kind: {kind}}}, for example"
        )


def label_spread(readout: Readout, target: Target, dataset: MoleculeDataset) -> tuple[float, int]:
    """Compute the standard deviation of the labels of a property relative to its references.

    Args:
        readout: Readout of the property, with its references.
        target: The property.
        dataset: Structures with labels, NaN where they are missing.

    Returns:
        Standard deviation in the unit of the property, and the number of structures with labels.

    Raises:
        ValueError: If there are no labels.
    """
    residual, structures = _residuals(readout, target, dataset)
    if len(residual) == 0:
        raise ValueError(f"`{target.name}` must be known for at least one structure, got none")
    return math.sqrt(float((residual - residual.mean()).square().mean())), structures


def _residuals(readout: Readout, target: Target, dataset: MoleculeDataset) -> tuple[Tensor, int]:
    """Return known labels relative to a network with zero output, and the number of structures with some."""
    found, structures = [], 0
    for _, batch in stream(dataset, ("pos", target.name)):
        atoms = (batch.z, cast(Tensor, batch.pos).double(), cast(Tensor, batch.batch), batch.num_graphs)
        zero = torch.zeros(len(atoms[0]), dtype=torch.float64)
        residual = batch[target.name] - readout.combine(zero, *atoms)
        known = residual.isfinite()
        structures += len(atoms[2][known].unique()) if target.is_atomic else int(known.sum())
        found.append(residual[known].detach())
    return torch.cat(found), structures


def _scale(readout: Readout, target: Target, train: AtomsDataset) -> LabelScale:
    spread, structures = label_spread(readout, target, train)
    return LabelScale(spread if spread > 1e-12 else 1.0, structures / len(train))


def _start_at_references(readout: DipoleMagnitude | SpatialExtent) -> None:
    """Set the network's output to zero, whose factor in the property depends on the size of the molecule."""
    network = cast(AtomwiseNetwork, readout.network)
    network.zero_output = True
    torch.nn.init.zeros_(network.dense2.weight)


def _lever(readout: CenteredReadout, target: Target, train: AtomsDataset) -> float:
    """Return the root mean square change of a property by an output of one of a single atom."""
    total, number = 0.0, 0
    for _, batch in stream(train, ("pos", target.name)):
        molecule, pos = cast(Tensor, batch.batch), cast(Tensor, batch.pos)
        known = batch[target.name].isfinite()[molecule]
        square = readout.relative_to_center(batch.z, pos, molecule, batch.num_graphs).square().sum(dim=1)
        square = square.square() if isinstance(readout, SpatialExtent) else square
        total, number = total + float(square[known].sum()), number + int(known.sum())
    return math.sqrt(total / number) or 1.0


def _fit_extent(readout: SpatialExtent, target: Target, train: AtomsDataset) -> None:
    """Fit the electrons and the extent of each element by least squares."""
    elements = train.elements()
    gram = torch.zeros(2 * len(elements), 2 * len(elements), dtype=torch.float64)
    right = torch.zeros(2 * len(elements), dtype=torch.float64)
    for _, batch in stream(train, ("pos", target.name)):
        z, molecule, label = batch.z, cast(Tensor, batch.batch), batch[target.name]
        relative = readout.relative_to_center(z, cast(Tensor, batch.pos).double(), molecule, batch.num_graphs)
        is_element = torch.stack([z == element for element in elements], dim=1).double()
        square = relative.square().sum(dim=1, keepdim=True)
        columns = torch.cat([is_element * square, is_element], dim=1)
        known = label.isfinite()
        rows = sum_by_molecule(columns, molecule, batch.num_graphs)[known]
        gram += rows.T @ rows
        right += rows.T @ label[known]
    solution = torch.linalg.lstsq(gram, right, driver="gelsd").solution
    readout.electrons[elements] = solution[: len(elements)]
    readout.atomref[elements] = solution[len(elements) :]
