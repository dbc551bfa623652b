"""Inputs of a program: a graph of pairs, and the knots of the filters' splines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.kernels import weight_gradients_disabled
from pyg_schnet.nn.knots import KnotFeatures
from pyg_schnet.nn.spline import Knots

if TYPE_CHECKING:
    from pyg_schnet.nn import SchNet


class Inputs(NamedTuple):
    """Arguments of a program other than weights.

    Attributes:
        graph: Atoms and pairs.
        knots: Knots of the filters' splines.
    """

    graph: PairGraph
    knots: Knots

    def values(self) -> tuple[Any, ...]:
        """Return the arguments of a program, in order."""
        graph, knots = self
        envelope = () if knots.envelope is None else (knots.envelope,)
        sites = () if graph.sites is None else (graph.sites.pairs, graph.sites.atom)
        rows = () if graph.csr is None else graph.csr
        site_rows = () if graph.csr is None or graph.sites is None else graph.site_csr or ()
        place = (knots.start, knots.features, *envelope, *sites, *rows, *site_rows)
        return (graph.z, graph.site_pos, graph.batch, graph.pairs, graph.num_molecules, *place)

    def tensors(self) -> list[Tensor]:
        """Return the tensors among :meth:`values`, of the same shapes and contiguous."""
        return [value.contiguous() for value in self.values() if isinstance(value, Tensor)]

    def sizes(self) -> tuple[int, ...]:
        """Return the extents in the order of ``Sizes`` in runtime.h."""
        graph, knots = self
        sites = 0 if graph.sites is None else len(graph.site_pos)
        return (len(graph.z), sites, graph.pairs.size(1), graph.num_molecules, *knots.features.shape)


def find_inputs(model: SchNet, features: KnotFeatures, graph: PairGraph) -> Inputs | None:
    """Find the knots for the pairs of a graph.

    Args:
        model: The model that evaluates the graph.
        features: Features of the model's knots.
        graph: Atoms and pairs.

    Returns:
        ``None`` for graphs and modes that have no program.
    """
    pos = graph.site_pos
    if (
        graph.distance_range is None
        or pos.requires_grad
        or graph.z.dtype != torch.long
        or graph.batch.dtype != torch.long
        or torch.is_autocast_enabled(pos.device.type)
    ):
        return None
    like = model.embedding.weight.detach()
    knots = features.between(*graph.distance_range, like, weight_gradients_disabled())
    return None if knots is None else Inputs(graph, knots)
