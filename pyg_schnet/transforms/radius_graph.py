"""The transform that adds the edges of a radius graph."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_schnet.graph.neighbors import check_flow, check_max_neighbors, neighbor_list, radius_graph
from pyg_schnet.graph.validation import check_radius


class RadiusGraph(BaseTransform):
    """Add the edges of a radius graph to ``Data``: ``edge_index`` and, with a cell, ``shift``.

    Has the arguments of :class:`torch_geometric.transforms.RadiusGraph`; as there, ``edge_attr`` of earlier
    edges is removed. Points may have any dimension, with a cell three.

    Args:
        r: Cutoff in Å; ``math.inf`` connects all pairs.
        loop: Whether each point is also its own neighbor.
        max_num_neighbors: Raise an error if a point has more neighbors; none are dropped.
        flow: As in :func:`~pyg_schnet.radius_graph`. The vector of an edge is ``pos[source] - pos[target] +
            shift @ cell``, whichever rows they are in.
        num_workers: PyG's; without effect.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
        >>> RadiusGraph(5.0)(water).edge_index.tolist()
        [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    """

    def __init__(
        self,
        r: float,
        loop: bool = False,
        max_num_neighbors: int | None = None,
        flow: str = "source_to_target",
        num_workers: int = 1,
    ):
        check_radius(r, "r")
        check_flow(flow)
        self.r = r
        self.loop = loop
        self.max_num_neighbors = max_num_neighbors
        self.flow = flow

    def forward(self, data: Data) -> Data:
        """Add the edges.

        Args:
            data: Points or structures with ``pos (points, dimensions)``, in Å for structures; with ``batch
                (points,)`` several, and with ``cell`` and ``pbc`` periodic ones.

        Returns:
            The same object, with ``edge_index (2, edges)``, sorted by target, and with a cell ``shift (edges,
            3)``.

        Raises:
            ValueError: If ``pos`` is absent, or as :func:`~pyg_schnet.radius_graph` and
                :func:`~pyg_schnet.neighbor_list`.
        """
        if data.pos is None:
            raise ValueError("`data` must hold `pos`, positions in Å; got None")
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        batch = getattr(data, "batch", None)
        if cell is None and pbc is None:
            data.edge_index = radius_graph(
                data.pos, self.r, batch, self.loop, self.max_num_neighbors, self.flow
            )
        else:
            self._add_periodic_edges(data, batch, cell, pbc)
        if "edge_attr" in data:
            del data["edge_attr"]
        return data

    def _add_periodic_edges(
        self, data: Data, batch: Tensor | None, cell: Tensor | None, pbc: Tensor | None
    ) -> None:
        pos = cast(Tensor, data.pos)
        edge_index, shift = neighbor_list(pos, self.r, batch, cell, pbc)
        check_max_neighbors(edge_index, self.r, self.max_num_neighbors)
        if self.loop:
            own = torch.arange(len(pos), device=pos.device).expand(2, -1)
            edge_index = torch.cat([edge_index, own], dim=1)
            shift = torch.cat([shift, shift.new_zeros(len(pos), 3)])
            order = (edge_index[1] * len(pos) + edge_index[0]).argsort(stable=True)
            edge_index, shift = edge_index[:, order], shift[order]
        data.edge_index = edge_index if self.flow == "source_to_target" else edge_index.flip(0)
        if cell is not None:
            data.shift = shift

    def __repr__(self) -> str:
        defaults = {"loop": False, "max_num_neighbors": None, "flow": "source_to_target"}
        changed = [
            f", {name}={getattr(self, name)!r}" for name in defaults if getattr(self, name) != defaults[name]
        ]
        return f"{type(self).__name__}(r={self.r}{''.join(changed)})"
