"""Calibration of an ensemble: comparison of its deviations with its true errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from scipy.special import stdtr
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.metrics import Evaluation, evaluate

_BINS = 10
MIN_STRUCTURES = 10  # the relative uncertainty of the factor is then a quarter


@dataclass(frozen=True)
class Calibration:
    r"""Deviations and errors of one quantity.

    Assume that errors are normal, and that their standard deviation is :math:`f` times that of the
    potentials, which is estimated as :math:`\sigma` from :math:`K` of them. Then :math:`e / f\sigma` follows
    Student's distribution with :math:`\nu = K - 1` degrees of freedom for energies. A force is a vector of
    :math:`d = 3` components, each with the deviation :math:`\sigma / \sqrt 3`, and :math:`\nu = 3 (K - 1)`.
    The factor :math:`f` of maximum likelihood is the solution of

    .. math::
        f^2 = \frac1{n} \sum_i w_i \frac{\|e_i\|^2}{\sigma_i^2}, \qquad
        w_i = \frac{\nu + d}{\nu + d \|e_i\|^2 / (f \sigma_i)^2}

    For many potentials all :math:`w_i` are 1, which is the closed form of Musil et al. For few potentials,
    rare points at which they agree by chance dominate the closed form: for three, its mean is infinite.

    Attributes:
        deviation: Deviations :math:`\sigma`, positive: of energies in eV per atom, of forces in eV/Å; shape
            ``(n,)``.
        error: Errors :math:`e`, prediction minus label, in the same unit, shape ``(n, d)``.
        degrees: Degrees of freedom of Student's distribution, :math:`\nu`.

    Source:
        Musil et al., J. Chem. Theory Comput. 15, 906 (2019): scaling of committees, and Imbalzano et al., J.
        Chem. Phys. 154, 074102 (2021): the same for few potentials, from four on. Kuleshov et al., ICML 2018
        (reliability) and Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020) (area, sharpness). Levi et
        al., Sensors 22, 5540 (2022): errors in bins of deviations, ENCE.
    """

    deviation: Tensor
    error: Tensor
    degrees: int

    @cached_property
    def factor(self) -> float:
        """Factor of maximum likelihood :math:`f`, which multiplies the deviations.

        Raises:
            ValueError: If so many errors are zero that the factor would be zero, or a value is not finite.
        """
        degrees, components = self.degrees, self.error.size(1)
        square = self.error.double().square().sum(1) / self.deviation.double().square()
        nonzero = square[square > 0]
        # The mean of (ν + d) s / (ν f² + d s), which decreases with f², is one at the solution.
        excess = len(nonzero) / len(square) * (degrees + components) - components
        if not bool(square.isfinite().all()):
            raise ValueError("`error` and `deviation` must be finite and deviations positive, got others")
        if not excess > 0:
            bound, zeros = degrees / (degrees + components), len(square) - len(nonzero)
            raise ValueError(
                f"`error` must be zero for fewer than {bound:.0%} of points, got {zeros} of {len(square)}; "
                "calibrate on labels that are not predictions"
            )
        low, high = math.log(float(nonzero.min()) * excess / degrees), math.log(float(nonzero.max()))
        while high - low > 1e-12 * max(1.0, abs(low), abs(high)):
            middle = 0.5 * (low + high)
            mean = (
                (degrees + components) * square / (degrees * math.exp(middle) + components * square)
            ).mean()
            low, high = (middle, high) if mean > 1 else (low, middle)
        return math.exp(0.25 * (low + high))

    def scaled(self, factor: float) -> Calibration:
        """Return a copy whose deviations are multiplied by a factor.

        Args:
            factor: The factor, for instance :attr:`factor`.
        """
        return replace(self, deviation=factor * self.deviation)

    @property
    def rmse(self) -> float:
        """Root mean square of the errors; errors of forces are lengths of vectors."""
        return float(self.error.square().sum(1).mean().sqrt())

    @property
    def sharpness(self) -> float:
        """Root mean square of the deviations, ``rmse`` if calibrated; smaller for a better model."""
        return float(self.deviation.square().mean().sqrt())

    def share_within(self, deviations: float) -> float:
        """Return the fraction of errors, of forces by component, within a multiple of the deviation.

        Args:
            deviations: The multiple, 1 or 2 for instance.
        """
        return float((self._normalized_errors <= deviations).double().mean())

    def expected_share(self, deviations: float) -> float:
        """Return the fraction of Student's distribution within a multiple of the deviation.

        Args:
            deviations: The multiple, 1 or 2 for instance.
        """
        return float(2 * stdtr(self.degrees, deviations) - 1)

    def reliability(self, points: int = 101) -> tuple[Tensor, Tensor]:
        """Compute the reliability curve.

        Args:
            points: Number of points of the curve.

        Returns:
            Expected fractions from 0 to 1, and observed fractions of errors in the central intervals of
            Student's distribution with these probabilities; shape ``(points,)``.
        """
        level = 2 * torch.as_tensor(stdtr(self.degrees, self._normalized_errors.numpy())) - 1
        expected = torch.linspace(0, 1, points, dtype=torch.float64)
        observed = torch.searchsorted(level.flatten().sort().values, expected, right=True) / level.numel()
        return expected, observed

    @property
    def miscalibration_area(self) -> float:
        """Area between the reliability curve and the diagonal, from 0 (perfect) to 0.5."""
        expected, observed = self.reliability()
        return float(torch.trapezoid((observed - expected).abs(), expected))

    def bins(self, number: int = _BINS) -> tuple[Tensor, Tensor, Tensor]:
        """Sort points by deviation, and average them in bins with equal numbers of points.

        Args:
            number: Maximum number of bins; each has at least ten points.

        Returns:
            Root mean squares of the deviations and of the errors in each bin, and standard errors of the
            latter; shape ``(bins,)``.
        """
        chunks = self.deviation.argsort().tensor_split(
            max(1, min(number, len(self.deviation) // MIN_STRUCTURES))
        )
        square = self.error.square().sum(1)
        deviation = torch.stack([self.deviation[chunk].square().mean().sqrt() for chunk in chunks])
        error = torch.stack([square[chunk].mean().sqrt() for chunk in chunks])
        spread = torch.stack([square[chunk].std() / len(chunk) ** 0.5 for chunk in chunks])
        return deviation, error, spread / (2 * error)

    @property
    def ence(self) -> float:
        """Expected normalized calibration error (ENCE), the mean over bins of the deviation's relative error.

        Deviations of few potentials are noisy: in the bin of the smallest, errors exceed them at any scale.
        """
        deviation, error, _ = self.bins()
        return float(((deviation - error).abs() / deviation).mean())

    @property
    def rank_correlation(self) -> float:
        """Spearman correlation of deviations and absolute errors; below 1 even for perfect deviations."""
        ranks = [values.argsort().argsort().double() for values in (self.deviation, self.error.norm(dim=1))]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    def as_dict(self) -> dict[str, float]:
        """Return all measures; the prefix ``calibrated_`` marks those of the multiplied deviations."""
        measures = {"factor": self.factor, "rmse": self.rmse, "rank_correlation": self.rank_correlation}
        measures |= {f"expected_within_{k}": self.expected_share(k) for k in (1, 2)}
        for prefix, one in (("", self), ("calibrated_", self.scaled(self.factor))):
            for name in ("sharpness", "miscalibration_area", "ence"):
                measures[f"{prefix}{name}"] = getattr(one, name)
            measures |= {f"{prefix}within_{k}": one.share_within(k) for k in (1, 2)}
        return measures

    @property
    def _normalized_errors(self) -> Tensor:
        """Absolute errors divided by the deviation of a component, ``(n, d)``."""
        return self.error.abs() / (self.deviation / self.error.size(1) ** 0.5)[:, None]


def calibrations(evaluation: Evaluation) -> dict[str, Calibration]:
    """Compare deviations with errors, by quantity.

    Points with a deviation of exactly zero, such as forces that vanish by symmetry, are left out.

    Args:
        evaluation: Evaluation of an ensemble on structures that it was not trained on.

    Returns:
        Calibrations of ``"energy"``, per atom, and, if there are labels, of ``"forces"``.

    Raises:
        ValueError: If the evaluation is of a single potential or of identical ones, has no energies or fewer
            than ten structures, or a prediction is not finite.
    """
    if evaluation.energy_mae is None and evaluation.properties:
        raise ValueError(
            "`evaluation` must have energies, whose deviations are calibrated, got "
            f"{', '.join(evaluation.properties)}; train with `energy` among `data.targets`"
        )
    if evaluation.energy_deviation is None or evaluation.sizes is None:
        raise ValueError("`evaluation` must be of an ensemble of two potentials or more, got that of one")
    evaluation.require_finite()
    if evaluation.n < MIN_STRUCTURES:
        raise ValueError(f"`evaluation` must have {MIN_STRUCTURES} structures or more, got {evaluation.n}")
    sizes, degrees = evaluation.sizes, evaluation.potentials - 1
    energy = (evaluation.energy[1] - evaluation.energy[0]) / sizes
    points = {"energy": (evaluation.energy_deviation / sizes, energy[:, None], degrees)}
    if evaluation.forces is not None and evaluation.forces_deviation is not None:
        forces = evaluation.forces[1] - evaluation.forces[0]
        points["forces"] = (evaluation.forces_deviation, forces, 3 * degrees)
    result = {}
    for name, (deviation, error, freedom) in points.items():
        nonzero = deviation > 0
        if not bool(nonzero.any()):
            raise ValueError(
                f"`evaluation` must have nonzero deviations of {name}, got zeros; is one potential in the "
                "ensemble twice?"
            )
        result[name] = Calibration(deviation[nonzero], error[nonzero], freedom)
    return result


def calibrate(ensemble: Ensemble, dataset: InMemoryDataset, batch_size: int = 32) -> Ensemble:
    """Scale the deviations of an ensemble to the size of its errors.

    Args:
        ensemble: Ensemble to calibrate, which does not change.
        dataset: Structures that no potential was trained on; at least ten, better hundreds.
        batch_size: Structures evaluated at once.

    Returns:
        A calibrated ensemble of the same potentials, which are not copied.

    Raises:
        ValueError: If there are fewer than ten structures, or all potentials are identical.
    """
    return with_factors(ensemble, calibrations(evaluate(ensemble, dataset, batch_size)))


def with_factors(ensemble: Ensemble, calibrations: dict[str, Calibration]) -> Ensemble:
    """Return an ensemble of the same potentials, whose deviations are multiplied by fitted factors.

    Args:
        ensemble: Ensemble, which does not change.
        calibrations: Result of :func:`calibrations`, for this ensemble.
    """
    factors = {name: ensemble.factors[name] * one.factor for name, one in calibrations.items()}
    other = Ensemble(list(ensemble.potentials), {**ensemble.factors, **factors})  # pyright: ignore[reportArgumentType]
    other.training = ensemble.training  # not train(), which would change the shared potentials
    return other
