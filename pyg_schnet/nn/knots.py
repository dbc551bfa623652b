"""Knots of the filters' splines: where they are, how many are needed, and the radial expansion at them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pyg_schnet.kernels import on_accelerator, weight_gradients_disabled
from pyg_schnet.nn.radial import CutoffEnvelope, GaussianSmearing
from pyg_schnet.nn.snapshot import ModuleSnapshot, version_of, versions_of
from pyg_schnet.nn.spline import MARGIN, ZERO_KNOTS, Knots, coefficients, evaluate, knot_spacing, within_knots

_SLACK = 0.01  # of an interval
_ROUNDING = 1e-6  # of bounds of distances, relative
_MAX_KNOTS = 2**14  # 500 Å of them; beyond, filters are evaluated for each pair
_PAIRS_PER_KNOT = 1  # from which evaluating filters at knots is faster than for each pair
_MAX_REFINEMENT = 16  # times as many knots as usual; where that is not enough, filters are exact
# Bounds of the error between knots, relative to the steepest slope of the filters: in Å, for energies, and in
# spacings of knots, for forces, whose error is some three times as large, a spacing. They keep 1e-6 of the
# energies' standard deviation and 1e-5 of the forces; after training, a tenth of them was measured.
_ERROR_OF_VALUES, _ERROR_OF_SLOPES = 1.5e-8, 6e-7
_SHORTEST = 0.6  # Å; no atoms are nearer each other


class KnotFeatures:
    """Radial expansion and envelope at the knots, cached from call to call, for all filters of a model.

    Args:
        basis: Radial expansion of distances.
        envelope: Cutoff envelope, or ``None``.
        cutoff: Cutoff of the model in Å; ``None`` for none.
        refinement: Number of knots relative to the usual number; NaN for no knots.

    Attributes:
        cutoff: The smaller of the cutoffs of the model and of the envelope; pairs beyond it add nothing.
        known: Whether basis and envelope are of classes that have splines; else there are no knots.
    """

    def __init__(
        self,
        basis: GaussianSmearing,
        envelope: CutoffEnvelope | None,
        cutoff: float | None = None,
        refinement: float = 1.0,
    ):
        self.basis = basis
        self.envelope = envelope
        self._given_cutoff = cutoff
        modules = {"radial_basis": basis} | ({} if envelope is None else {"envelope": envelope})
        self._snapshot = ModuleSnapshot(modules)
        self.known = (
            self._snapshot.unsupported is None
            and isinstance(basis, GaussianSmearing)
            and isinstance(envelope, CutoffEnvelope | None)
        )
        self.cutoff = cutoff
        if self.known and envelope is not None:
            self.cutoff = envelope.cutoff if cutoff is None else min(cutoff, envelope.cutoff)
        self.spacing = knot_spacing(basis.gamma) / refinement if self.known else math.nan
        self._centers = (basis.centers, version_of(basis.centers)) if self.known else None
        # Each is replaced as a whole and read once, for threads share them.
        self._cached: tuple[Tensor, Tensor | None] = torch.empty(0, 0), None
        # Features and envelope of knots for all calls, and the number of intervals, without and with knots
        # beyond the cutoff.
        self._frozen: dict[bool, tuple[Tensor, Tensor | None, int]] = {}
        # Versions of the weights for which knots were placed, the weights, and the features of these knots.
        self._fitted: tuple[list, list[Tensor], KnotFeatures] | None = None
        self._changes = 0

    def are_of(self, basis: nn.Module, envelope: nn.Module | None, cutoff: float | None) -> bool:
        """Return whether the features were computed for these arguments, unchanged since."""
        if basis is not self.basis or envelope is not self.envelope or cutoff is not self._given_cutoff:
            return False
        if not self._snapshot.is_current():
            return False
        if self._centers is None:
            return True
        before, count = self._centers
        now = self.basis._buffers.get("centers")
        return now is before and version_of(before) == count

    def fitted(self, networks: Sequence[nn.Module], weights: Sequence[Tensor]) -> KnotFeatures:
        """Return these features, or those of more knots where splines of the filter networks need them.

        The error is measured when weights have changed; in training, where they change at each step, after
        the first, second, fourth, eighth, … change.

        Args:
            networks: Filter networks.
            weights: Their parameters and buffers.
        """
        versions, kept = versions_of(weights), self._fitted
        if not self.known or (kept is not None and kept[0] == versions):
            return self if kept is None else kept[2]
        self._changes += 1
        is_training = torch.is_grad_enabled() and not weight_gradients_disabled()
        if kept is not None and is_training and self._changes & (self._changes - 1):
            return kept[2]
        alive = [weight.detach() for weight in weights]  # which keeps their addresses from being reused
        fitted = next((k for k in self._candidates() if k._suffice(networks)), None)
        if fitted is None:
            fitted = KnotFeatures(self.basis, self.envelope, self._given_cutoff, math.nan)
        self._fitted = versions, alive, fitted
        return fitted

    def _candidates(self) -> Iterator[KnotFeatures]:
        yield self
        kept, refinement = self._fitted, 2.0
        while refinement <= _MAX_REFINEMENT:
            is_kept = kept is not None and kept[2].spacing == self.spacing / refinement
            if is_kept and kept is not None:  # recorded steps read its tensors
                yield kept[2]
            else:
                yield KnotFeatures(self.basis, self.envelope, self._given_cutoff, refinement)
            refinement *= 2

    def _suffice(self, networks: Sequence[nn.Module]) -> bool:
        """Return whether splines of filter networks keep the bounds of the error halfway between knots."""
        reach = self.basis.last_center if self.cutoff is None else self.cutoff
        intervals = int(reach / self.spacing) + 1
        if intervals > _MAX_KNOTS:
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

    def near(self, distance: Tensor, filters: str, bounds: tuple[float, float] | None = None) -> Knots | None:
        """Place knots around the distances of pairs, where their filters are to come from tables.

        Args:
            distance: Distances in Å, ``(pairs,)``, in the type of the network; on CPUs within the cutoff.
            filters: ``"spline"`` or ``"auto"``, see :class:`~pyg_schnet.SchNet`.
            bounds: Lower and upper bound of the distances in Å, where they are known.

        Returns:
            ``None`` where filters are evaluated for each pair.
        """
        frozen = weight_gradients_disabled()
        knots = self.at(distance, frozen, bounds) if len(distance) else None
        always = frozen or filters == "spline"
        if knots is None or not (always or len(distance) >= _PAIRS_PER_KNOT * len(knots.features)):
            return None
        return knots

    def at(self, distance: Tensor, frozen: bool, bounds: tuple[float, float] | None = None) -> Knots | None:
        """Place knots around distances.

        Args:
            distance: Distances in Å, at least one, in the type of the network.
            frozen: Whether to place knots that later distances share.
            bounds: Lower and upper bound of the distances, for accelerators, which do not read the distances
                where there are bounds or a cutoff.

        Returns:
            ``None`` where the distances are too far apart for a table.
        """
        if not on_accelerator(distance) or (bounds is None and self.cutoff is None):
            low, high = (float(value) for value in distance.detach().aminmax())
            return self.between(low, high, distance, frozen)
        knots = self.between(*(bounds or (0.0, math.inf)), distance, frozen)
        return None if knots is None else knots._replace(distance=within_knots(distance, knots))

    def between(self, low: float, high: float, distance: Tensor, frozen: bool) -> Knots | None:
        """Place knots from the shortest to the longest distance.

        On accelerators, pairs may be beyond the cutoff and must add nothing: the knots end at the cutoff
        then, and :func:`~pyg_schnet.nn.spline.within_knots` must replace the distances.
        """
        beyond = False
        if self.cutoff is not None and high > self.cutoff * (1 + _ROUNDING) and on_accelerator(distance):
            beyond, high = True, self.cutoff
        if not high < _MAX_KNOTS * self.spacing:  # or NaN, where nothing is known of the basis
            return None
        # Rounding may assign a distance at a knot to one interval or the next.
        first, last = max(0, int(low / self.spacing - _SLACK)), int(high / self.spacing + _SLACK)
        if not frozen:
            rows = self._rows(first, last, distance, beyond)
        else:
            first, kept = 0, self._frozen.get(beyond)
            if kept is None or last >= kept[2] or _differ(kept[0], distance):
                reach = 1.25 * high if self.envelope is None else self.envelope.cutoff
                last = max(last, int(reach / self.spacing))
                kept = (*self._rows(0, last, distance, beyond), last + 1)
                self._frozen = {**self._frozen, beyond: kept}
            rows = kept[:2]
        return Knots(*rows, distance, first, self.spacing, cutoff=self.cutoff if beyond else None)

    def _rows(self, first: int, last: int, like: Tensor, beyond: bool) -> tuple[Tensor, Tensor | None]:
        """Return features of all knots that the intervals need, from a cache that is extended on demand.

        Args:
            first: First interval.
            last: Last interval.
            like: Tensor with the type and device of the features.
            beyond: Whether to append knots with an envelope of zero.
        """
        needed = last + 1 + sum(MARGIN)
        total = needed + (ZERO_KNOTS if beyond else 0)
        cached = self._cached
        if _differ(cached[0], like) or len(cached[0]) < total:
            with torch.inference_mode(False):
                number = torch.arange(-MARGIN[0], max(total, int(1.25 * needed)), device=like.device)
            with torch.inference_mode(False), torch.no_grad():  # kept for calls of any mode
                distance = number.double() * self.spacing
                envelope = None if self.envelope is None else self.envelope.inside(distance).to(like.dtype)
                cached = self._cached = self.basis(distance).to(like.dtype), envelope
        rows = slice(first, total)
        if on_accelerator(like):  # where fewer launches are faster than narrower matrices
            features = cached[0][rows]
        else:
            reach = (last + MARGIN[1]) * self.spacing
            features = cached[0][rows, : self.basis.count_within(reach)].contiguous()
        envelope = None if cached[1] is None else cached[1][rows]
        if beyond:
            with torch.inference_mode(False), torch.no_grad():
                inside = (torch.arange(first, total, device=like.device) < needed).to(like.dtype)
                envelope = inside if envelope is None else envelope * inside
        return features, envelope

    def __deepcopy__(self, memo: dict) -> KnotFeatures:
        return KnotFeatures(
            copy.deepcopy(self.basis, memo), copy.deepcopy(self.envelope, memo), self._given_cutoff
        )

    def __reduce__(self) -> tuple:
        return KnotFeatures, (self.basis, self.envelope, self._given_cutoff)


def _in_double(network: nn.Module) -> nn.Module:
    """Return a copy of a network in float64; the network stays as it is, for other threads may call it."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor.detach().double() for tensor in tensors})


def _differ(tensor: Tensor, like: Tensor) -> bool:
    return tensor.dtype != like.dtype or tensor.device != like.device
