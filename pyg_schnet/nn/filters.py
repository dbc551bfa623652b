"""The filter-generating network of the paper."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_schnet.nn.radial import ShiftedSoftplus
from pyg_schnet.nn.snapshot import has_hooks


class FilterNetwork(nn.Module):
    r"""Generate a continuous filter from the radial expansion of a distance.

    .. math::
        W(d) = [\mathrm{ssp}]\big(\mathbf{B}\, \mathrm{ssp}(\mathbf{A}\, e(d) + a) + b\big)

    Args:
        num_gaussians: Number of radial functions :math:`e_k(d)`.
        num_filters: Number of filters.
        final_activation: Whether a shifted softplus follows the second layer too, as in the paper;
            today's implementations leave it out.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1, "Filter-generating networks" and figure 2 (right).
    """

    def __init__(self, num_gaussians: int, num_filters: int, final_activation: bool = False):
        super().__init__()
        self.num_gaussians = num_gaussians
        self.dense1 = nn.Linear(num_gaussians, num_filters)
        self.dense2 = nn.Linear(num_filters, num_filters)
        self.activation = ShiftedSoftplus()
        self.final_activation = final_activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier-uniform, biases zero."""
        for dense in (self.dense1, self.dense2):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.zeros_(dense.bias)

    def forward(self, expansion: Float[Tensor, "edges gaussians"]) -> Float[Tensor, "edges filters"]:
        """Compute filters.

        Args:
            expansion: Radial expansion of distances; functions that are left out at its end are zero.

        Returns:
            One factor for each edge and filter.
        """
        hidden = self.activation(_apply_to_first(self.dense1, expansion, self.num_gaussians))
        filters = self.dense2(hidden)
        return self.activation(filters) if self.final_activation else filters


def _apply_to_first(dense: nn.Module, expansion: Tensor, num_gaussians: int) -> Tensor:
    """Apply a linear layer to the first functions of an expansion whose others are zero."""
    if expansion.size(1) == num_gaussians:
        return dense(expansion)
    if type(dense) is nn.Linear and dense.bias is not None and not has_hooks(dense):
        return torch.addmm(dense.bias, expansion, dense.weight.t()[: expansion.size(1)])
    return dense(nn.functional.pad(expansion, (0, num_gaussians - expansion.size(1))))
