"""Calibration of an ensemble: how large its deviations are beside its true errors."""

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
FEWEST = 10  # structures: the factor is then known to a fourth


@dataclass(frozen=True)
class Calibration:
    r"""Deviations of one quantity beside its errors.

    Were errors normal with a deviation of :math:`f` times that of the potentials, which :math:`K` of them
    estimate as :math:`\sigma`, then :math:`e / f\sigma` would follow Student's distribution, with
    :math:`\nu = K - 1` degrees of freedom for energies. A force is a vector of :math:`d = 3` components, each
    with the deviation :math:`\sigma / \sqrt 3`, and :math:`\nu = 3 (K - 1)`. The factor :math:`f` is the most
    likely one, the solution of

    .. math::
        f^2 = \frac1{n} \sum_i w_i \frac{\|e_i\|^2}{\sigma_i^2}, \qquad
        w_i = \frac{\nu + d}{\nu + d \|e_i\|^2 / (f \sigma_i)^2}

    For many potentials all :math:`w_i` are 1, and it is the closed form of Musil et al. For few the closed
    form is ruled by the rare cases in which they agree by accident: of three potentials its expectation is
    infinite.

    Attributes:
        deviation: :math:`\sigma`, positive: of energies in eV per atom, of forces in eV/Å; shape ``(n,)``.
        error: Prediction minus label in the same unit, shape ``(n, d)``.
        degrees: Of freedom of Student's distribution, :math:`\nu`.

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
        """What the deviations are to be multiplied by.

        Raises:
            ValueError: If so many errors are zero that the most likely factor is, or one is no number.
        """
        degrees, components = self.degrees, self._components
        square = self.error.double().square().sum(1) / self.deviation.double().square()
        nonzero = square[square > 0]
        # The mean of (ν + d) s / (ν f² + d s), which falls with f², is to be one.
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
        """Give the same with deviations that are multiplied."""
        return replace(self, deviation=factor * self.deviation)

    @property
    def rmse(self) -> float:
        """Root mean square of the errors; those of forces are lengths of vectors."""
        return float(self.error.square().sum(1).mean().sqrt())

    @property
    def sharpness(self) -> float:
        """Root mean square of the deviations: equal to ``rmse`` for perfect ones, the smaller the better."""
        return float(self.deviation.square().mean().sqrt())

    def share_within(self, deviations: float) -> float:
        """Give the share of errors, of forces by component, within so many deviations."""
        return float((self._reduced <= deviations).double().mean())

    def expected_share(self, deviations: float) -> float:
        """Give the share that Student's distribution has there; for many potentials, the normal one."""
        return float(2 * stdtr(self.degrees, deviations) - 1)

    def reliability(self, points: int = 101) -> tuple[Tensor, Tensor]:
        """Give shares from 0 to 1, and those of errors in the intervals that are expected to hold them."""
        level = 2 * torch.as_tensor(stdtr(self.degrees, self._reduced.numpy())) - 1
        expected = torch.linspace(0, 1, points, dtype=torch.float64)
        observed = torch.searchsorted(level.flatten().sort().values, expected, right=True) / level.numel()
        return expected, observed

    @property
    def miscalibration_area(self) -> float:
        """Area between the curve of reliability and the diagonal: 0 is perfect, 0.5 the worst."""
        expected, observed = self.reliability()
        return float(torch.trapezoid((observed - expected).abs(), expected))

    def bins(self, number: int = _BINS) -> tuple[Tensor, Tensor, Tensor]:
        """Sort by deviation into bins of equal numbers, ten at least.

        Returns:
            Root mean squares of deviations and of errors in each bin, and standard errors of the latter;
            ``(bins,)``.
        """
        chunks = self.deviation.argsort().tensor_split(max(1, min(number, len(self.deviation) // FEWEST)))
        square = self.error.square().sum(1)
        deviation = torch.stack([self.deviation[chunk].square().mean().sqrt() for chunk in chunks])
        error = torch.stack([square[chunk].mean().sqrt() for chunk in chunks])
        spread = torch.stack([square[chunk].std() / len(chunk) ** 0.5 for chunk in chunks])
        return deviation, error, spread / (2 * error)

    @property
    def ence(self) -> float:
        """Expected normalized calibration error: mean over bins of the relative error of the deviation.

        Deviations of few potentials are noisy: the bin of the smallest has larger errors, whatever the scale.
        """
        deviation, error, _ = self.bins()
        return float(((deviation - error).abs() / deviation).mean())

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of deviations and absolute errors; errors are random, so perfect ones stay below 1."""
        ranks = [values.argsort().argsort().double() for values in (self.deviation, self.error.norm(dim=1))]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    def as_dict(self) -> dict[str, float]:
        """Give all numbers, and with the prefix ``calibrated_`` those after multiplication by the factor."""
        found = {"factor": self.factor, "rmse": self.rmse, "rank_correlation": self.rank_correlation}
        found |= {f"expected_within_{k}": self.expected_share(k) for k in (1, 2)}
        for prefix, one in (("", self), ("calibrated_", self.scaled(self.factor))):
            found |= {
                f"{prefix}{name}": getattr(one, name) for name in ("sharpness", "miscalibration_area", "ence")
            }
            found |= {f"{prefix}within_{k}": one.share_within(k) for k in (1, 2)}
        return found

    @property
    def _components(self) -> int:
        return self.error.size(1)

    @property
    def _reduced(self) -> Tensor:
        """Absolute errors in deviations of a component, ``(n, d)``."""
        return self.error.abs() / (self.deviation / self._components**0.5)[:, None]


def calibrations(evaluation: Evaluation) -> dict[str, Calibration]:
    """Compare deviations with errors: ``"energy"``, an atom, and ``"forces"`` where there are any.

    Points on which all potentials agree to the last digit, as forces that vanish by symmetry, do not count.

    Args:
        evaluation: Of an ensemble, on structures that it was not trained on.

    Raises:
        ValueError: If it is of one potential, or of the same twice, or of fewer than ten structures, or if a
            prediction is not finite.
    """
    if evaluation.energy_deviation is None or evaluation.sizes is None:
        raise ValueError("`evaluation` must be of an ensemble, whose potentials disagree; got that of one")
    evaluation.require_finite()
    if evaluation.n < FEWEST:
        raise ValueError(f"`evaluation` must be of {FEWEST} structures or more, got {evaluation.n}")
    sizes, degrees = evaluation.sizes, evaluation.potentials - 1
    energy = (evaluation.energy[1] - evaluation.energy[0]) / sizes
    found = {"energy": (evaluation.energy_deviation / sizes, energy[:, None], degrees)}
    if evaluation.forces is not None and evaluation.forces_deviation is not None:
        forces = evaluation.forces[1] - evaluation.forces[0]
        found["forces"] = (evaluation.forces_deviation, forces, 3 * degrees)
    result = {}
    for name, (deviation, error, freedom) in found.items():
        counts = deviation > 0
        if not bool(counts.any()):
            raise ValueError(f"`evaluation` must have deviations of {name}, got zeros: one potential twice?")
        result[name] = Calibration(deviation[counts], error[counts], freedom)
    return result


def calibrate(ensemble: Ensemble, dataset: InMemoryDataset, batch_size: int = 32) -> Ensemble:
    """Make deviations as large as errors are.

    Args:
        ensemble: Of potentials, which are shared, not copied.
        dataset: Structures that no potential was trained on; ten at least, hundreds are better.
        batch_size: Structures at once.

    Returns:
        An ensemble with ``factors``: its deviations are multiplied by them.

    Raises:
        ValueError: If there are fewer than ten structures, or all potentials are one.
    """
    found = calibrations(evaluate(ensemble, dataset, batch_size))
    return with_factors(ensemble, found)


def with_factors(ensemble: Ensemble, found: dict[str, Calibration]) -> Ensemble:
    """Multiply the deviations of an ensemble by the factors that were found."""
    factors = {name: ensemble.factors[name] * one.factor for name, one in found.items()}
    other = Ensemble(list(ensemble.potentials), {**ensemble.factors, **factors})  # pyright: ignore[reportArgumentType]
    other.training = ensemble.training  # not train(), which would change the potentials that they share
    return other
