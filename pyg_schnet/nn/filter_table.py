r"""Filters from a spline: the filter networks at a few hundred knots instead of at each pair of atoms.

A radial filter is a function of one number, smooth on the scale :math:`1/\sqrt\gamma` of its Gaussians. A
quintic spline through its values at knots a tenth of that apart is exact to 1e-7 of the forces after
training, where a cubic one is not, and gradients reach the weights through the knots. Where the error that is
measured between the knots is larger, knots are nearer each other. Distances outside the knots are never
extrapolated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyg_schnet.kernels import Watch, combine_rows, has_kernels, spline_convolution, weights_are_frozen
from pyg_schnet.nn.radial import CosineEnvelope, GaussianSmearing, PolynomialEnvelope
from pyg_schnet.nn.structure import Structure, marks_of, version

_SLACK = 0.01  # of an interval
_MOST_KNOTS = 2**14  # 500 Å of them; beyond, filters are computed pair by pair
_PAIRS_A_KNOT = 1  # from which evaluating filters at knots is faster than at each pair
_FINEST = 16  # times as many knots as usual, at most; where that is not enough, filters are exact
# Bounds of the error between knots, relative to the steepest slope of the filters: in Å, for energies, and in
# spacings of knots, for forces, whose error is some three times as large, a spacing. They keep 1e-6 of the
# energies' spread and 1e-5 of the forces; after training, a tenth of them was measured.
_ERROR_OF_VALUES, _ERROR_OF_SLOPES = 1.5e-8, 6e-7
_SHORTEST = 0.6  # Å; no atoms are nearer each other
_ORDER = 4  # of the quasi-interpolant, in squares of differences: two reproduce quintics, four also precision


def _quasi_interpolant() -> list[float]:
    """Invert the samples of a B-spline, 1 + δ²/4 + δ⁴/120 in central differences, up to δ⁸."""
    series = [1.0, -1 / 4]
    while len(series) <= _ORDER:
        series.append(-series[-1] / 4 - series[-2] / 120)
    taps = [0.0] * (2 * _ORDER + 1)
    for order, factor in enumerate(series):
        for k in range(2 * order + 1):
            taps[_ORDER - order + k] += factor * (-1) ** k * math.comb(2 * order, k)
    return taps


_TAPS = _quasi_interpolant()
# Knots beyond the first and last interval on which its spline depends: its six B-splines reach two knots back
# and three ahead, and the quasi-interpolant further.
MARGIN = (2 + _ORDER, 3 + _ORDER)


class Knots(NamedTuple):
    """Where the filters of pairs of atoms are taken from a spline; see :func:`knots_for`.

    Attributes:
        features: Features of the knots' distances, the input of filter networks, ``(knots, gaussians)``.
        envelope: Cutoff envelope at the knots, ``(knots,)``, or ``None``.
        distance: Distance of each pair, in Å, ``(pairs,)``; within the knots.
        start: Number of the interval where the spline begins, at ``start * spacing``.
        spacing: Distance of the knots, in Å.
    """

    features: Tensor
    envelope: Tensor | None
    distance: Tensor
    start: int
    spacing: float


def knot_spacing(gamma: float) -> float:
    r"""Distance of the knots in Å, :math:`0.08/\sqrt\gamma`: 0.025 Å for the paper's Gaussians.

    At 0.03 Å, 60,000 steps of training on ethanol end with 3e-7 of the energies' spread and 2e-6 of the
    forces' RMS; errors fall with the sixth power.

    Args:
        gamma: :math:`\gamma` of the Gaussians, in Å⁻².
    """
    return 0.025 * math.sqrt(10 / gamma)


def coefficients(values: Tensor) -> Tensor:
    """Turn values at knots into coefficients of B-splines, by a local rule.

    Args:
        values: At the knots, ``(knots, channels)``.

    Returns:
        Coefficients, ``(knots - 8, channels)``: none for the four outer knots of each side.

    Source:
        De Boor, Fix, "Spline approximation by quasiinterpolants", J. Approx. Theory 8, 19 (1973). With nine
        knots for a coefficient, the error is that of the spline through all values, which needs a linear
        system; with the five that reproduce quintics it is 300 times larger.
    """
    if has_kernels(values):
        return combine_rows(values, _TAPS)
    inner = len(values) - 2 * _ORDER
    return sum((tap * values[k : k + inner] for k, tap in enumerate(_TAPS)), values.new_zeros(()))


def evaluate(table: Tensor, distance: Tensor, start: int, spacing: float) -> Tensor:
    """Evaluate a spline, plainly; differentiable by table and distance as often as the spline is.

    Args:
        table: Coefficients, ``(knots, channels)``.
        distance: In Å, ``(pairs,)``.
        start: Number of the first interval, which begins at ``start * spacing``.
        spacing: Of the knots, in Å.

    Returns:
        ``(pairs, channels)``; NaN outside the spline.
    """
    u = distance / spacing - start
    k = u.detach().floor()
    inside = (k >= 0) & (k < len(table) - 5)
    row = torch.where(inside, k, 0).long()
    t = torch.where(inside, u - k, math.nan)
    s, t2 = 1 - t, t * t
    s2 = s * s
    splines = torch.stack(
        [
            s2 * s2 * s,
            26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t)))),
            66 + t2 * (-60 + t2 * (30 - 10 * t)),
            66 + s2 * (-60 + s2 * (30 - 10 * s)),
            26 + s * (-50 + s * (20 + s * (20 + s * (-20 + 5 * s)))),
            t2 * t2 * t,
        ]
    )
    rows = (table.index_select(0, row + m) * (splines[m] / 120)[:, None] for m in range(6))
    return sum(rows, table.new_zeros(()))


def convolve(y: Tensor, table: Tensor, pairs: Tensor, knots: Knots) -> Tensor:
    r"""Convolve features of atoms with filters from a spline, :math:`v_i = \sum_j w(d_{ij}) \circ y_j`.

    Args:
        y: Features, ``(atoms, channels)``.
        table: Coefficients of the filters, ``(knots, channels)``.
        pairs: Both atoms of each pair, ``(2, pairs)``; a filter acts both ways.
        knots: Where the spline is, and the distances of the pairs.

    Returns:
        ``(atoms, channels)``.
    """
    first, second, start, spacing = pairs[0], pairs[1], knots.start, knots.spacing

    def plain(y: Tensor, table: Tensor, distance: Tensor) -> Tensor:
        filters = evaluate(table, distance, start, spacing)
        out = torch.zeros_like(y).index_add(0, first, filters * y.index_select(0, second))
        return out.index_add(0, second, filters * y.index_select(0, first))

    if has_kernels(y):
        return spline_convolution(y, table, knots.distance, first, second, start, spacing, plain)
    return plain(y, table, knots.distance)


class KnotFeatures:
    """What filter networks see at the knots, kept from call to call; a model's, for all its filters.

    Args:
        basis: Features of distances.
        envelope: Cutoff envelope, or ``None``.
        cutoff: Of the model, in Å; ``None`` leaves no pair out.
        refinement: How many times as many knots as usual there are; NaN for none.

    Attributes:
        cutoff: That of the model or of the envelope, whichever is smaller; pairs beyond it add nothing.
        known: Whether basis and envelope are of classes that have splines. Where not, there are no knots.
    """

    def __init__(
        self,
        basis: GaussianSmearing,
        envelope: CosineEnvelope | PolynomialEnvelope | None,
        cutoff: float | None = None,
        refinement: float = 1.0,
    ):
        self.basis = basis
        self.envelope = envelope
        self._given_cutoff = cutoff
        modules = {"radial_basis": basis} | ({} if envelope is None else {"envelope": envelope})
        self._structure = Structure(modules)
        envelopes = CosineEnvelope | PolynomialEnvelope | None
        self.known = (
            self._structure.unknown is None
            and isinstance(basis, GaussianSmearing)
            and isinstance(envelope, envelopes)
        )
        self.cutoff = cutoff
        if self.known and envelope is not None:
            self.cutoff = envelope.cutoff if cutoff is None else min(cutoff, envelope.cutoff)
        self.spacing = knot_spacing(basis.gamma) / refinement if self.known else math.nan
        self._centers = (basis.centers, version(basis.centers)) if self.known else None
        # Features and envelope at knots: each is replaced as a whole and read once, for threads share them.
        self._stock: tuple[Tensor, Tensor | None] = torch.empty(0, 0), None
        self._frozen: tuple[Tensor, Tensor | None] | None = None
        # Marks of the weights for which knots were placed, the weights, and the features of these knots.
        self._fitted: tuple[list, list[Tensor], KnotFeatures] | None = None
        self._changes = 0

    def are_of(self, basis: nn.Module, envelope: nn.Module | None, cutoff: float | None) -> bool:
        """Whether these are what the features were computed for, unchanged."""
        if basis is not self.basis or envelope is not self.envelope or cutoff is not self._given_cutoff:
            return False
        if not self._structure.holds():
            return False
        if self._centers is None:
            return True
        before, count = self._centers
        now = self.basis._buffers.get("centers")
        return now is before and version(before) == count

    def fitted(self, networks: Sequence[nn.Module], weights: Sequence[Tensor]) -> KnotFeatures:
        """Return these features, or those of more knots where the splines of filter networks need them.

        The error is measured when weights have changed; in training, where they change at each step, after
        the first, second, fourth, eighth, … change.

        Args:
            networks: Filter networks.
            weights: Their parameters and buffers.
        """
        marks, kept = marks_of(weights), self._fitted
        if not self.known or (kept is not None and kept[0] == marks):
            return self if kept is None else kept[2]
        self._changes += 1
        is_training = torch.is_grad_enabled() and not weights_are_frozen()
        if kept is not None and is_training and self._changes & (self._changes - 1):
            return kept[2]
        alive = [weight.detach() for weight in weights]  # so that their addresses are not another's
        fitted = next((k for k in self._candidates() if k._suit(networks)), None)
        if fitted is None:
            fitted = KnotFeatures(self.basis, self.envelope, self._given_cutoff, math.nan)
        self._fitted = marks, alive, fitted
        return fitted

    def _candidates(self) -> Iterator[KnotFeatures]:
        yield self
        refinement = 2.0
        while refinement <= _FINEST:
            yield KnotFeatures(self.basis, self.envelope, self._given_cutoff, refinement)
            refinement *= 2

    def _suit(self, networks: Sequence[nn.Module]) -> bool:
        """Whether splines of filter networks are as exact as promised, halfway between the knots."""
        reach = self.basis.last_center if self.cutoff is None else self.cutoff
        intervals = int(reach / self.spacing) + 1
        if intervals > _MOST_KNOTS:
            return False
        bound = min(_ERROR_OF_VALUES, _ERROR_OF_SLOPES * self.spacing)
        device = self.basis.centers.device
        with torch.inference_mode(False), torch.no_grad():
            half = torch.arange(-2 * MARGIN[0], 2 * (intervals + MARGIN[1]) - 1, device=device)
            distance = half.double() * (self.spacing / 2)
            features = self.basis(distance)
            envelope = None if self.envelope is None else self.envelope.inside(distance)[:, None]
            middle = slice(2 * MARGIN[0] + 1, 2 * (MARGIN[0] + intervals), 2)
            for network in networks:
                values = _in_double(network)(features.double())
                values = values if envelope is None else values * envelope
                table = coefficients(values[::2])
                error = evaluate(table, distance[middle], 0, self.spacing) - values[middle]
                error = error[distance[middle] > min(_SHORTEST, reach / 2)].abs().max()
                slope = values.diff(dim=0).abs().max() / (self.spacing / 2)
                if bool(error > bound * slope + 1e-12 * values.abs().max()):
                    return False
        return True

    def near(self, pairs: Tensor, distance: Tensor, filters: str) -> tuple[Tensor, Knots] | None:
        """Place knots around the pairs within the cutoff, where their filters are to come from a spline.

        Args:
            pairs: Both atoms of each pair, ``(2, pairs)``.
            distance: In Å, ``(pairs,)``, in the type of the network.
            filters: ``"spline"`` or ``"auto"``, see :class:`~pyg_schnet.SchNet`.

        Returns:
            These pairs and their knots, or ``None``.
        """
        cutoff = self.cutoff
        if cutoff is not None and bool((outside := distance >= cutoff).any()):
            pairs, distance = pairs[:, ~outside], distance[~outside]
        frozen = weights_are_frozen()
        knots = self.at(distance, frozen) if len(distance) else None
        always = frozen or filters == "spline"
        if knots is None or not (always or len(distance) >= _PAIRS_A_KNOT * len(knots.features)):
            return None
        return pairs, knots

    def at(self, distance: Tensor, frozen: bool) -> Knots | None:
        """Place knots around distances.

        Args:
            distance: In Å, at least one, in the type of the network.
            frozen: Whether to place them so that later distances find the same.

        Returns:
            ``None`` where the distances are too far apart for a table.
        """
        low, high = (float(value) for value in distance.detach().aminmax())
        return self.between(low, high, distance, frozen)

    def between(self, low: float, high: float, distance: Tensor, frozen: bool) -> Knots | None:
        """Place knots around distances of which the shortest and the longest are known."""
        if not high < _MOST_KNOTS * self.spacing:  # or NaN, where nothing is known of the basis
            return None
        # A distance at a knot belongs to one interval or the next, as the sums of whoever asks round.
        first, last = max(0, int(low / self.spacing - _SLACK)), int(high / self.spacing + _SLACK)
        if not frozen:
            return Knots(*self._rows(first, last, distance), distance, first, self.spacing)
        kept = self._frozen
        if kept is None or last + 1 + sum(MARGIN) > len(kept[0]) or _differ(kept[0], distance):
            reach = 1.25 * high if self.envelope is None else self.envelope.cutoff
            kept = self._frozen = self._rows(0, max(last, int(reach / self.spacing)), distance)
        return Knots(*kept, distance, 0, self.spacing)

    def _rows(self, first: int, last: int, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give the features of all knots on which the intervals depend, from a stock that grows."""
        needed = last + 1 + sum(MARGIN)
        stock = self._stock
        if _differ(stock[0], like) or len(stock[0]) < needed:
            with torch.inference_mode(False):
                number = torch.arange(-MARGIN[0], max(needed, int(1.25 * needed)), device=like.device)
            with torch.inference_mode(False), torch.no_grad():  # kept for calls of any mode
                distance = number.double() * self.spacing
                envelope = None if self.envelope is None else self.envelope.inside(distance).to(like.dtype)
                stock = self._stock = self.basis(distance).to(like.dtype), envelope
        rows = slice(first, needed)
        reach = (last + MARGIN[1]) * self.spacing
        features = stock[0][rows, : self.basis.count_within(reach)].contiguous()
        return features, None if stock[1] is None else stock[1][rows]

    def __deepcopy__(self, memo: dict) -> KnotFeatures:
        return KnotFeatures(
            copy.deepcopy(self.basis, memo), copy.deepcopy(self.envelope, memo), self._given_cutoff
        )

    def __reduce__(self) -> tuple:
        return KnotFeatures, (self.basis, self.envelope, self._given_cutoff)


def takes_splines(distance: Tensor, filters: str) -> bool:
    """Whether filters of such distances may come from splines, here and now."""
    if filters == "exact" or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled(distance.device.type):
        return False
    return filters == "spline" or distance.dtype == torch.float32


def _in_double(network: nn.Module) -> nn.Module:
    """Copy a network with its tensors in float64; it is not touched, for other threads may be calling it."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor.detach().double() for tensor in tensors})


def _differ(tensor: Tensor, like: Tensor) -> bool:
    return tensor.dtype != like.dtype or tensor.device != like.device


class SplineFilters:
    """The spline of one filter network; computed once where nobody will ask for gradients of the weights."""

    def __init__(self):
        self.given: Tensor | None = None  # the table, while a model is traced
        self._network: tuple[nn.Module, Structure] | None = None
        # Features of the knots, what was seen of the network, and the table; replaced as a whole, for threads
        # read it.
        self._kept: tuple[Tensor, tuple, Tensor] | None = None

    def coefficients(self, network: nn.Module, knots: Knots) -> Tensor:
        """Evaluate the network at the knots; the coefficients, ``(knots - 8, channels)``."""
        if self.given is not None:
            return self.given
        if not weights_are_frozen():  # each call has knots of its own
            return _coefficients(network, knots)
        structure = self._structure_of(network)
        if structure.unknown is not None:
            with torch.inference_mode(False), torch.no_grad():
                return _coefficients(network, knots)
        kept, weights = self._kept, Watch().look([*network.parameters(), *network.buffers()])
        key = structure.key, weights
        if kept is None or kept[0] is not knots.features or kept[1] != key:
            with torch.inference_mode(False), torch.no_grad():
                kept = (knots.features, key, _coefficients(network, knots))
            self._kept = kept
        return kept[2]

    def _structure_of(self, network: nn.Module) -> Structure:
        kept = self._network
        if kept is None or kept[0] is not network or not kept[1].holds():
            kept = self._network = network, Structure({"filter_network": network})
        return kept[1]

    def __getstate__(self) -> dict:
        return {}  # a copy or a file makes its own

    def __setstate__(self, state: dict) -> None:
        self.__init__()


def _coefficients(network: nn.Module, knots: Knots) -> Tensor:
    values = network(knots.features)
    if knots.envelope is not None:
        values = values * knots.envelope[:, None]
    return coefficients(values)
