"""The mean predictor of the paper's table 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_schnet.graph.validation import check_molecules
from pyg_schnet.nn.readout import sum_by_molecule


class MeanPredictor(nn.Module):
    """A model that adds nothing to the atomic references, whose sum is the mean of isomers' energies.

    Forces are zero, and so is the gradient of its only weight, which the training loop asks for.

    Source:
        Schütt et al., NeurIPS 2017, table 3 (arXiv:1706.08566).
    """

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor | None = None, num_molecules: int | None = None
    ) -> Tensor:
        """Predict zero for each molecule, ``(molecules, 1)``."""
        batch, num_molecules = check_molecules(z, pos, batch, num_molecules)
        return 0.0 * self.nothing * sum_by_molecule(pos.sum(dim=1), batch, num_molecules).unsqueeze(1)
