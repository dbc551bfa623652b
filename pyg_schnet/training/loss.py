"""The loss of the paper, extended by stresses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.strain import virial_per_atom
from pyg_schnet.nn.readout import sum_by_molecule
from pyg_schnet.potentials.targets import Target
from pyg_schnet.training.properties import LabelScale


def potential_loss(
    out: dict[str, Tensor],
    batch: Data,
    energy_weight: float,
    scale: Tensor,
    errors: str = "squared",
    stress_weight: float = 1.0,
    weights: Tensor | None = None,
    properties: Mapping[Target, LabelScale] | None = None,
) -> Tensor:
    r"""Compute the mean over a batch of the squared errors of energy, forces and stress.

    .. math::
        \ell = \frac1B \sum_m \frac1{s^2} \Big( \rho\, (E_m - \hat E_m)^2
        + \frac1{n_m} \sum_{i=1}^{n_m} \| \mathbf F_{mi} - \hat{\mathbf F}_{mi} \|^2
        + \tau\, \Big\| \frac{V_m}{n_m} (\sigma_m - \hat\sigma_m) \Big\|^2 \Big)

    All errors are divided by the potential's scale :math:`s` (in eV, and eV/Å), which multiplies the paper's
    loss by a constant, so that the learning rate does not depend on the unit. Stresses :math:`\sigma`, which
    the paper does not have, enter as energies per atom; structures without a stress have no such term.
    ``errors="absolute"`` uses the errors :math:`|E_m - \hat E_m|` and
    :math:`\| \mathbf F_{mi} - \hat{\mathbf F}_{mi} \|` instead of their squares, to minimize mean absolute
    errors. Each property beside the energy adds its weight times the mean of its errors, divided by the
    spread of its labels, over structures with a label (NaN is none); of values of atoms, the mean over the
    atoms of a structure that have one. The number of structures with a label is their share in the training
    set times :math:`B`, so that parts of a batch add up.

    Args:
        out: Predicted energies ``(structures,)`` in eV and, if they are trained, forces ``(atoms, 3)`` in
            eV/Å and stresses ``(structures, 3, 3)`` in eV/Å³.
        batch: Batch with the labels.
        energy_weight: Weight :math:`\rho`; in the paper 0.01 Å⁻² with forces, and 1 for energies alone.
        scale: Scale :math:`s` in eV, and eV/Å, shape ``()``.
        errors: ``"squared"`` or ``"absolute"``.
        stress_weight: Weight :math:`\tau`, dimensionless.
        weights: Weight of each structure, ``(structures,)``, in place of :math:`1/B`.
        properties: Properties beside the energy, each with the scale of its labels.

    Returns:
        The dimensionless loss, float64, shape ``()``.

    Source:
        Schütt et al., NeurIPS 2017, section 4.2, equation (5) (arXiv:1706.08566).
    """

    def total(per_structure: Tensor) -> Tensor:
        return per_structure.mean() if weights is None else (weights * per_structure).sum()

    loss = scale.new_zeros(())
    if "energy" in out:
        energy = (out["energy"] - batch.energy) / scale
        loss = energy_weight * total(energy.square() if errors == "squared" else energy.abs())
    for target, label_scale in (properties or {}).items():
        label = batch[target.name]
        known = label.isfinite()
        difference = torch.where(known, out[target.name] - torch.where(known, label, 0.0), 0.0)
        difference = difference / label_scale.spread
        error = difference.square() if errors == "squared" else difference.abs()
        if target.is_atomic:
            assert batch.batch is not None
            numbers = sum_by_molecule(known.double(), batch.batch, batch.num_graphs).clamp(min=1)
            error = sum_by_molecule(error, batch.batch, batch.num_graphs) / numbers
        loss = loss + target.weight / label_scale.known * total(error)
    if "forces" in out:
        forces = (out["forces"] - batch.forces) / scale  # (atoms, 3)
        error = forces.square().sum(dim=1) if errors == "squared" else torch.linalg.vector_norm(forces, dim=1)
        atoms = batch.ptr.diff()
        assert batch.batch is not None
        per_structure = sum_by_molecule(error, batch.batch, len(atoms)) / atoms
        loss = loss + total(per_structure)
    if "stress" in out:
        known = out["stress"].isfinite()  # NaN for molecules
        difference = torch.where(known, out["stress"] - batch.stress, 0.0)
        virial = virial_per_atom(difference, batch).flatten(1) / scale  # (structures, 9)
        error = virial.square().sum(dim=1) if errors == "squared" else torch.linalg.vector_norm(virial, dim=1)
        loss = loss + stress_weight * total(error)
    return loss
