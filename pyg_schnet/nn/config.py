"""The configuration of SchNet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

ENVELOPES = ("cosine", "polynomial")
READOUTS = ("add", "sum", "mean")
FILTERS = ("auto", "spline", "exact")
# Far above sizes in use; beyond, a recipe of a few bytes would allocate gigabytes.
_MAX = {"hidden_channels": 2**14, "num_filters": 2**14, "num_interactions": 2**8, "num_gaussians": 2**16}
_MAX_WEIGHTS = 2**28
READOUT_ACTIVATIONS = ("shifted_softplus", "silu", "tanh")


@dataclass(frozen=True)
class SchNetConfig:
    """Arguments of a :class:`SchNet`: ``SchNet(**asdict(config))`` rebuilds it.

    Attributes:
        hidden_channels: Number of features of an atom.
        num_filters: Number of filters of a convolution.
        num_interactions: Number of interaction blocks.
        num_gaussians: Number of radial functions.
        cutoff: Cutoff in Å; null connects all pairs of a molecule.
        readout: "add" for extensive, "mean" for intensive properties; null for the features of atoms.
        dipole: Predict the length of the dipole moment.
        mean: Added to each atom's contribution.
        std: Factor of each atom's contribution.
        last_center: Position of the last Gaussian in Å; the cutoff by default.
        gamma: Coefficient of the Gaussians' exponents in Å⁻²; by default, neighboring centers are one
            standard deviation apart.
        envelope: "cosine", "polynomial" or null.
        final_activation: Whether a shifted softplus ends the filter network, as in the paper.
        zero_output: Whether the last layer starts at zero, as in the paper.
        filters: "exact" evaluates the filter networks for each pair of atoms, "spline" at a few hundred knots
            of a quintic spline, "auto" at knots in float32 where there are more pairs than knots.
        readout_activation: "shifted_softplus", "silu" or "tanh", between the two layers of the readout.

    Raises:
        ValueError: If an argument is out of range, or two exclude each other.
    """

    hidden_channels: int = 128
    num_filters: int = 128
    num_interactions: int = 6
    num_gaussians: int = 50
    cutoff: float | None = 10.0
    readout: str | None = "add"
    dipole: bool = False
    mean: float | None = None
    std: float | None = None
    last_center: float | None = None
    gamma: float | None = None
    envelope: str | None = "cosine"
    final_activation: bool = False
    zero_output: bool = False
    filters: str = "auto"
    readout_activation: str = "shifted_softplus"

    @classmethod
    def paper(cls, **changes) -> SchNetConfig:
        """Return the configuration of the 2017 paper.

        Args:
            **changes: Attributes that differ from the paper's.
        """
        paper = {
            "hidden_channels": 64,
            "num_filters": 64,
            "num_interactions": 3,
            "num_gaussians": 301,
            "cutoff": None,
            "last_center": 30.0,
            "gamma": 10.0,
            "envelope": None,
            "final_activation": True,
            "zero_output": not changes.get("dipole", False),  # see below
        }
        return cls(**{**paper, **changes})

    def __post_init__(self) -> None:
        for name in ("hidden_channels", "num_filters", "num_interactions"):
            value = getattr(self, name)
            if value < 1 or (name == "hidden_channels" and value < 2):
                least = 2 if name == "hidden_channels" else 1
                raise ValueError(f"`{name}` must be at least {least}, got {value}")
        for name, maximum in _MAX.items():
            if getattr(self, name) > maximum:
                raise ValueError(f"`{name}` must be at most {maximum:,}, got {getattr(self, name):,}")
        if self._weights > _MAX_WEIGHTS:
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in _MAX)} must make at most {_MAX_WEIGHTS:,} weights, "
                f"got {self._weights:,}; lower one of them"
            )
        if self.cutoff is None and self.last_center is None:
            raise ValueError("`last_center` must be given, in Å, where `cutoff` is None")
        if self.cutoff is not None and not 0 < self.cutoff < math.inf:
            raise ValueError(
                f"`cutoff` must be positive, finite and in Å (None connects all pairs), got {self.cutoff}"
            )
        if self.readout is not None and self.readout not in READOUTS:
            raise ValueError(f"`readout` must be 'add', 'mean' or None, got {self.readout!r}")
        if self.envelope is not None and self.envelope not in ENVELOPES:
            raise ValueError(f"`envelope` must be 'cosine', 'polynomial' or None, got {self.envelope!r}")
        if self.dipole and self.zero_output:
            raise ValueError(
                "`zero_output` must be False with `dipole`: a dipole of zero has no gradient, so "
                "that nothing would be learned"
            )
        if self.filters not in FILTERS:
            raise ValueError(f"`filters` must be 'auto', 'spline' or 'exact', got {self.filters!r}")
        if self.readout_activation not in READOUT_ACTIVATIONS:
            raise ValueError(
                "`readout_activation` must be 'shifted_softplus', 'silu' or 'tanh', got "
                f"{self.readout_activation!r}"
            )

    @property
    def gaussians_end(self) -> float:
        """Position of the last Gaussian in Å, ``last_center`` or by default the cutoff."""
        return cast(float, self.cutoff if self.last_center is None else self.last_center)

    @property
    def _weights(self) -> int:
        """Number of weights of the interaction blocks, without biases."""
        channels, filters = self.hidden_channels, self.num_filters
        block = filters * (self.num_gaussians + filters) + 2 * channels * filters + channels**2
        return self.num_interactions * block
