"""Radial functions, Gaussians and cutoff envelopes, and activations."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_schnet.kernels import on_accelerator, shifted_softplus, silu


class ShiftedSoftplus(nn.Module):
    r"""The activation of SchNet.

    .. math::
        \mathrm{ssp}(x) = \ln(\tfrac12 e^x + \tfrac12) = \mathrm{softplus}(x) - \ln 2

    Zero at the origin and infinitely often differentiable.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1 (arXiv:1706.08566).
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the activation to each element.

        Args:
            x: Input, of any shape.

        Returns:
            Output, of the same shape.
        """
        return shifted_softplus(x)


class SiLU(nn.Module):
    r"""The activation of SchNetPack 2's readouts, :math:`x / (1 + e^{-x})`."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return silu(x)


class GaussianSmearing(nn.Module):
    r"""Expand distances in equally spaced Gaussians.

    .. math::
        e_k(d) = \exp(-\gamma (d - \mu_k)^2), \qquad \gamma = 1 / (2 \Delta\mu^2) \text{ by default}

    Args:
        num_gaussians: Number of centers :math:`\mu_k`, at least two.
        last_center: Position of the last center in Å; the first is at 0.
        gamma: :math:`\gamma` in Å⁻²; by default, neighboring centers are one standard deviation apart.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1: 301 centers up to 30 Å, γ = 10 Å⁻². SchNetPack and PyG
        use the default given here.
    """

    centers: Tensor  # (num_gaussians,), Å

    def __init__(self, num_gaussians: int, last_center: float, gamma: float | None = None):
        super().__init__()
        if num_gaussians < 2:
            raise ValueError(f"`num_gaussians` must be at least 2, got {num_gaussians}")
        if not 0 < last_center < math.inf:
            raise ValueError(f"`last_center` must be positive, finite and in Å, got {last_center}")
        if gamma is not None and not gamma > 0:
            raise ValueError(f"`gamma` must be positive and in Å⁻², got {gamma}")
        spacing = last_center / (num_gaussians - 1)
        if not 1e-100 < spacing < 1e100:  # the square must be finite and not zero
            raise ValueError(
                f"`last_center` must give a finite, nonzero spacing of Gaussians, in Å, got {spacing}"
            )
        self.gamma = gamma if gamma is not None else 0.5 / spacing**2
        self.num_gaussians = num_gaussians
        self.last_center = last_center
        self.register_buffer("centers", torch.empty(num_gaussians), persistent=False)
        self._place()

    def _place(self) -> None:
        centers = torch.linspace(0, self.last_center, self.num_gaussians, dtype=torch.float64)
        self.centers = centers.to(self.centers)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._place()  # exact centers in float64 too, not those of float32 widened
        return self

    def forward(
        self, distance: Float[Tensor, " edges"], trim: bool = False
    ) -> Float[Tensor, "edges gaussians"]:
        """Expand distances.

        Args:
            distance: Distances in Å.
            trim: Whether to leave out the last centers, whose Gaussians are below 1e-17 at all distances,
                where this is faster. The paper's 301 centers reach to 30 Å, ethanol to 5 Å: four fifths of
                the expansion are zero.

        Returns:
            Values of the Gaussians, dimensionless.
        """
        centers = self.centers
        # On a GPU, reading the longest distance costs more than it saves.
        is_faster = not (on_accelerator(distance) or torch.compiler.is_compiling())
        if trim and is_faster and len(distance) > 0:
            centers = centers[: self.count_within(float(distance.detach().max()))]
        return torch.exp(-self.gamma * (distance[:, None] - centers).square())

    def count_within(self, distance: float) -> int:
        """Return the number of centers whose Gaussians reach 1e-17 at or below a distance.

        Args:
            distance: Distance in Å.
        """
        reach = distance + math.sqrt(-math.log(1e-17) / self.gamma)
        return min(self.num_gaussians, int(reach * (self.num_gaussians - 1) / self.last_center) + 2)


class CutoffEnvelope(nn.Module):
    r"""Base class of cutoff envelopes: a factor of filters that is zero at and beyond the cutoff.

    Args:
        cutoff: Cutoff :math:`d_c` in Å.
    """

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """Return the factors of the filters at distances.

        Args:
            distance: Distances in Å.
        """
        return torch.where(distance < self.cutoff, self.inside(distance), 0)

    def inside(self, distance: Tensor) -> Tensor:
        """Evaluate the formula that holds below the cutoff; splines need it a little beyond, too.

        Args:
            distance: Distances in Å, ``(edges,)``.

        Returns:
            Factors of the filters, ``(edges,)``.
        """
        raise NotImplementedError


class CosineEnvelope(CutoffEnvelope):
    r"""Cutoff envelope: a half cosine, zero with zero slope at the cutoff and zero beyond.

    .. math::
        f(d) = \tfrac12 (\cos(\pi d / d_c) + 1) \text{ for } d < d_c, \text{ else } 0

    Its curvature jumps at the cutoff; for Hessians and long dynamics prefer :class:`PolynomialEnvelope`.

    Args:
        cutoff: Cutoff :math:`d_c` in Å.

    Source:
        Behler, J. Chem. Phys. 134, 074106 (2011), as in SchNetPack and PyG (which does not mask it).
    """

    def inside(self, distance: Tensor) -> Tensor:
        return 0.5 * (torch.cos(distance * (math.pi / self.cutoff)) + 1)


class PolynomialEnvelope(CutoffEnvelope):
    r"""Cutoff envelope: a polynomial whose first two derivatives are zero at the cutoff.

    .. math::
        f(d) = 1 - 10 u^3 + 15 u^4 - 6 u^5, \qquad u = d / d_c, \text{ for } u < 1, \text{ else } 0

    Args:
        cutoff: Cutoff :math:`d_c` in Å.

    Source:
        The C² smoothstep; Gasteiger et al., DimeNet (arXiv:2003.03123), equation (8) with p = 3.
    """

    def inside(self, distance: Tensor) -> Tensor:
        u = distance / self.cutoff
        return 1 - u**3 * (10 - 15 * u + 6 * u**2)
