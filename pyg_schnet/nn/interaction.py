"""Interaction blocks: a continuous-filter convolution between atom-wise layers."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_schnet.nn.cfconv import CFConv
from pyg_schnet.nn.filter_table import FilterTable
from pyg_schnet.nn.filters import FilterNetwork
from pyg_schnet.nn.radial import ShiftedSoftplus
from pyg_schnet.nn.spline import Knots


class Interaction(nn.Module):
    r"""Interaction block: a residual update of atomic features from neighboring atoms.

    .. math::
        \mathbf{v} = \text{atomwise}(\mathrm{ssp}(\text{atomwise}(
            \text{cfconv}(\text{atomwise}(\mathbf{x})))))

    Args:
        hidden_channels: Number of features of an atom.
        num_filters: Number of filters of the convolution.
        num_gaussians: Number of radial functions.
        final_activation: Whether a shifted softplus ends the filter network.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1 and figure 2 (middle). The first layer has no bias, as
        in the released code, SchNetPack and PyG.
    """

    def __init__(self, hidden_channels: int, num_filters: int, num_gaussians: int, final_activation: bool):
        super().__init__()
        self.atomwise1 = nn.Linear(hidden_channels, num_filters, bias=False)
        self.cfconv = CFConv(FilterNetwork(num_gaussians, num_filters, final_activation))
        self.filter_table = FilterTable()
        self.atomwise2 = nn.Linear(num_filters, hidden_channels)
        self.activation = ShiftedSoftplus()
        self.atomwise3 = nn.Linear(hidden_channels, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier-uniform, biases zero."""
        self.cfconv.reset_parameters()
        nn.init.xavier_uniform_(self.atomwise1.weight)
        for dense in (self.atomwise2, self.atomwise3):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.zeros_(dense.bias)

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        edge_index: Int[Tensor, "2 edges"],
        expansion: Float[Tensor, "rows gaussians"] | Knots,
        envelope: Float[Tensor, " rows"] | None = None,
        pair: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "atoms channels"]:
        """Compute the residual.

        Args:
            x: Features of the atoms.
            edge_index: Edges, row 0 the sources; with knots, both atoms of each pair.
            expansion: Radial expansion of distances; or knots, where a table replaces the filter network.
            envelope: Cutoff envelope of each row of ``expansion``.
            pair: Row of ``expansion`` of each edge, where edges share rows.

        Returns:
            The change of the features, which is added to ``x``.
        """
        v = self.atomwise1(x)
        if isinstance(expansion, Knots):
            v = self.filter_table.convolve(self.cfconv.filter_network, v, edge_index, expansion)
        else:
            v = self.cfconv(v, edge_index, expansion, edge_weight=envelope, pair=pair)
        return self.atomwise3(self.activation(self.atomwise2(v)))
