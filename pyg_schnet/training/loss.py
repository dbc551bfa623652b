"""The loss of the paper, and the stress beside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.strain import virial_per_atom
from pyg_schnet.nn.readout import sum_by_molecule


def potential_loss(
    out: dict[str, Tensor],
    batch: Data,
    energy_weight: float,
    scale: Tensor,
    errors: str = "squared",
    stress_weight: float = 1.0,
) -> Tensor:
    r"""Mean over the molecules of a batch of the squared errors of energy, forces and stress.

    .. math::
        \ell = \frac1B \sum_m \frac1{s^2} \Big( \rho\, (E_m - \hat E_m)^2
        + \frac1{n_m} \sum_{i=1}^{n_m} \| \mathbf F_{mi} - \hat{\mathbf F}_{mi} \|^2
        + \tau\, \Big\| \frac{V_m}{n_m} (\sigma_m - \hat\sigma_m) \Big\|^2 \Big)

    All errors are divided by the potential's scale :math:`s`, a number (in eV, and eV/Å): this
    multiplies the paper's loss by a constant, so that the learning rate does not depend on the unit.
    Stresses :math:`\sigma`, which the paper has not, count as energies an atom; systems without have no term.
    ``errors="absolute"`` takes the errors instead of their squares, :math:`|E_m - \hat E_m|` and
    :math:`\| \mathbf F_{mi} - \hat{\mathbf F}_{mi} \|`: what is reported then is what is trained.

    Args:
        out: Energies ``(molecules,)`` in eV and, if they count, forces ``(atoms, 3)`` in eV/Å and stresses
            ``(molecules, 3, 3)`` in eV/Å³.
        batch: A batch with the labels.
        energy_weight: :math:`\rho`: 0.01 Å⁻² with forces, 1 for energies alone in the paper.
        scale: :math:`s`.
        errors: ``"squared"`` or ``"absolute"``.
        stress_weight: :math:`\tau`.

    Returns:
        A number without unit, float64.

    Source:
        Schütt et al., NeurIPS 2017, section 4.2, equation (5) (arXiv:1706.08566).
    """
    energy = (out["energy"] - batch.energy) / scale
    loss = energy_weight * (energy.square() if errors == "squared" else energy.abs()).mean()
    if "forces" in out:
        forces = (out["forces"] - batch.forces) / scale  # (atoms, 3)
        error = forces.square().sum(dim=1) if errors == "squared" else torch.linalg.vector_norm(forces, dim=1)
        atoms = batch.ptr.diff()
        assert batch.batch is not None
        per_molecule = sum_by_molecule(error, batch.batch, len(atoms)) / atoms
        loss = loss + per_molecule.mean()
    if "stress" in out:
        known = out["stress"].isfinite()  # molecules have none
        difference = torch.where(known, out["stress"] - batch.stress, 0.0)
        virial = virial_per_atom(difference, batch).flatten(1) / scale  # (molecules, 9)
        error = virial.square().sum(dim=1) if errors == "squared" else torch.linalg.vector_norm(virial, dim=1)
        loss = loss + stress_weight * error.mean()
    return loss
