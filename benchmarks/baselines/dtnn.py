"""The deep tensor neural network, SchNet's predecessor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_schnet.graph.pair_graph import build_pairs
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.nn import GaussianSmearing
from pyg_schnet.nn.readout import sum_by_molecule


class DTNN(nn.Module):
    r"""A network whose atoms are refined, T times with the same weights, by all others of the molecule.

    .. math::
        \mathbf{c}_i \leftarrow \mathbf{c}_i + \sum_{j \ne i} \tanh\big(W^{fc} ((W^{cf} \mathbf{c}_j +
        \mathbf{b}^{f_1}) \circ (W^{df} \hat{\mathbf{d}}_{ij} + \mathbf{b}^{f_2}))\big), \qquad
        E = \sum_i \mathbf{w} \cdot \tanh(W \mathbf{c}_i + \mathbf{b}) + b

    Args:
        hidden_channels: Number of features :math:`B` of an atom.
        num_factors: Rank :math:`F` of the factorised tensor.
        num_interactions: Number of passes :math:`T`.
        num_gaussians: Number of Gaussians of the distances.
        last_center: Position of the last one in Å; the first is at 0.
        gamma: Their :math:`\gamma = 1/(2\sigma^2)` in Å⁻².

    Source:
        Schütt, Arbabzadah, Chmiela, Müller, Tkatchenko, Nature Communications 8, 13890 (2017), equations
        (4) to (7): 30 features, 60 factors, Gaussians of σ = 0.2 Å every 0.2 Å, 15 neurons in the readout.
        There the first center is at −1 Å, where no distance is.
    """

    def __init__(
        self,
        hidden_channels: int = 30,
        num_factors: int = 60,
        num_interactions: int = 3,
        num_gaussians: int = 101,
        last_center: float = 20.0,
        gamma: float = 12.5,
    ):
        super().__init__()
        self.num_interactions = num_interactions
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden_channels, padding_idx=0)
        self.radial_basis = GaussianSmearing(num_gaussians, last_center, gamma)
        self.by_distance = nn.Linear(num_gaussians, num_factors)  # W^df, b^f2
        self.by_atom = nn.Linear(hidden_channels, num_factors)  # W^cf, b^f1
        self.to_features = nn.Linear(num_factors, hidden_channels, bias=False)  # W^fc
        self.dense1 = nn.Linear(hidden_channels, hidden_channels // 2)
        self.dense2 = nn.Linear(hidden_channels // 2, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights; the first prediction is zero."""
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)
        for dense in (self.by_distance, self.by_atom, self.to_features, self.dense1):
            nn.init.xavier_uniform_(dense.weight)
            if dense.bias is not None:
                nn.init.zeros_(dense.bias)
        nn.init.zeros_(self.dense2.weight)
        nn.init.zeros_(self.dense2.bias)

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor | None = None,
        num_molecules: int | None = None,
    ) -> Tensor:
        """Predict one number for each molecule, ``(molecules, 1)``, as :meth:`pyg_schnet.SchNet.forward`."""
        graph = build_pairs(z, pos, batch, num_molecules=num_molecules)
        expansion = self.radial_basis(graph.distances().to(self.embedding.weight.dtype))
        (source, target), row = graph.edges()
        factors = self.by_distance(expansion)  # (rows, factors), of all passes
        if row is not None:
            factors = factors.index_select(0, row)
        c = self.embedding(z)
        for _ in range(self.num_interactions):
            message = torch.tanh(self.to_features(self.by_atom(c).index_select(0, source) * factors))
            c = c + sum_by_molecule(message, target, len(z))
        contribution = self.dense2(torch.tanh(self.dense1(c))).double()
        return sum_by_molecule(contribution, graph.batch, graph.num_molecules)
