r"""Tables of filters: splines through the values of filter networks at a few hundred knots.

A radial filter is a function of one number, smooth on the scale :math:`1/\sqrt\gamma` of its Gaussians. A
quintic spline through its values at knots a tenth of that apart is exact to 1e-7 of the forces after
training, where a cubic one is not, and gradients reach the weights through the knots. Where the error
measured between the knots is larger, there are more knots. Splines are never extrapolated.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import WeightsVersion, interval_order, on_accelerator, weight_gradients_disabled
from pyg_schnet.nn.cfconv import CFConv
from pyg_schnet.nn.knots import KnotFeatures
from pyg_schnet.nn.snapshot import ModuleSnapshot, versions_of, why_unsupported
from pyg_schnet.nn.spline import Knots, coefficients, convolve

if TYPE_CHECKING:
    from pyg_schnet.nn.schnet import SchNet


class FilterTables:
    """Filter tables of a model: whether tables can replace its filter networks, and their shared knots.

    A model owns one and passes itself to the methods, so that copies and saved models have their own.
    """

    def __init__(self):
        # Each is replaced as a whole and read once, for threads share them.
        self._features: KnotFeatures | None = None
        self._networks: _FilterNetworks | None = None

    def knots(self, model: SchNet, graph: PairGraph, distance: Tensor) -> Knots | None:
        """Place knots around the pairs of a graph, where their filters are to come from tables.

        Args:
            model: Model whose filters are evaluated.
            graph: Atoms and the pairs that interact.
            distance: Distance of each pair in Å, ``(pairs,)``, in the type of the network.

        Returns:
            ``None`` where filters are evaluated for each pair.
        """
        if graph.is_directed or not _may_use_tables(distance, model.filters) or not self.supports(model):
            return None
        knots = self.features(model).near(distance, model.filters, graph.distance_range)
        if knots is None or graph.csr is None:
            return knots
        order = ()
        if not weight_gradients_disabled():
            order = interval_order(knots.distance, knots.start, knots.spacing, knots.intervals)
        return knots._replace(layout=(*graph.csr, *order))

    def supports(self, model: SchNet) -> bool:
        """Return whether all convolutions are :class:`CFConv` with smooth filter networks of this package."""
        networks = self._networks
        if networks is None or not networks.snapshot.is_current():
            networks = self._networks = _FilterNetworks(model)
        return networks.are_known

    def features(self, model: SchNet) -> KnotFeatures:
        """Return features of enough knots for the current radial basis, envelope and filters."""
        basis, envelope, cutoff = model.radial_basis, model.envelope, model.config.cutoff
        features, networks = self._features, self._networks
        if features is None or not features.are_of(basis, envelope, cutoff):
            features = self._features = KnotFeatures(basis, envelope, cutoff)
        return features if networks is None else features.fitted(networks.networks, networks.weights())

    def __reduce__(self) -> tuple:
        return FilterTables, ()


class FilterTable:
    """The table of one filter network, kept while gradients of weights are disabled."""

    def __init__(self):
        self.given: Tensor | None = None  # the coefficients, while a model is traced
        self._network: tuple[nn.Module, ModuleSnapshot] | None = None
        # Features of the knots, versions of the weights, coefficients, and the weights, which keeps their
        # addresses from being reused: replaced as a whole, for threads.
        self._kept: tuple[Tensor, tuple, Tensor, list[Tensor]] | None = None

    def convolve(self, network: nn.Module, x: Tensor, pairs: Tensor, knots: Knots) -> Tensor:
        """Convolve features of atoms, ``(atoms, channels)``, with the filters of pairs, ``(2, pairs)``."""
        return convolve(x, self.coefficients(network, knots), pairs, knots)

    def coefficients(self, network: nn.Module, knots: Knots) -> Tensor:
        """Return the coefficients of the spline through the network's filters, ``(knots - 8, channels)``."""
        if self.given is not None:
            return self.given
        if not weight_gradients_disabled():  # each call has knots of its own
            return _coefficients(network, knots)
        snapshot = self._snapshot_of(network)
        if snapshot.unsupported is not None:
            with torch.inference_mode(False), torch.no_grad():
                return _coefficients(network, knots)
        kept, weights = self._kept, [*network.parameters(), *network.buffers()]
        key = snapshot.key, _version(weights)
        if kept is None or kept[0] is not knots.features or kept[1] != key:
            with torch.inference_mode(False), torch.no_grad():
                alive = [weight.detach() for weight in weights]
                kept = (knots.features, key, _coefficients(network, knots), alive)
            self._kept = kept
        return kept[2]

    def _snapshot_of(self, network: nn.Module) -> ModuleSnapshot:
        kept = self._network
        if kept is None or kept[0] is not network or not kept[1].is_current():
            kept = self._network = network, ModuleSnapshot({"filter_network": network})
        return kept[1]

    def __reduce__(self) -> tuple:
        return FilterTable, ()


def _version(weights: list[Tensor]) -> Hashable:
    """Return a version of weights: of their values or, on accelerators, of changes that autograd counts."""
    if any(map(on_accelerator, weights)) and not any(weight.is_inference() for weight in weights):
        return tuple(versions_of(weights))
    return WeightsVersion().read(weights)


def _coefficients(network: nn.Module, knots: Knots) -> Tensor:
    values = network(knots.features)
    if knots.envelope is not None:
        values = values * knots.envelope[:, None]
    return coefficients(values)


class _FilterNetworks:
    """The filter networks of a model, valid while the snapshot is current."""

    def __init__(self, model: SchNet):
        blocks: list[Any] = list(model.interactions)
        parts = [getattr(b, "cfconv", b) if why_unsupported(type(b), "") is None else b for b in blocks]
        modules = {f"interactions.{number}": part for number, part in enumerate(parts)}
        self.snapshot = ModuleSnapshot(modules, around=[model, model.interactions, *blocks])
        are_ours = all(isinstance(part, CFConv) for part in parts)
        self.are_known = self.snapshot.unsupported is None and are_ours
        self.networks = [part.filter_network for part in parts] if self.are_known else []
        modules = [module for network in self.networks for module in network.modules()]
        tensors = [own for module in modules for own in (module._parameters, module._buffers)]
        self._slots: list[tuple[dict[str, Any], str]] = [
            (own, name) for own in tensors for name in own if own[name] is not None
        ]

    def weights(self) -> list[Tensor]:
        """Return the parameters and buffers of the networks as they are now."""
        return [own[name] for own, name in self._slots if own[name] is not None]


def _may_use_tables(distance: Tensor, filters: str) -> bool:
    """Return whether filters at such distances may come from tables, in the present mode of torch."""
    if filters == "exact" or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled(distance.device.type):
        return False
    return filters == "spline" or distance.dtype == torch.float32
