"""The continuous-filter convolution."""

from __future__ import annotations

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from pyg_schnet.nn.cfconv_inputs import (
    check_decomposed_layers,
    check_shapes,
    edges_of,
    raise_missing,
    raise_unscriptable,
)


class CFConv(MessagePassing):
    r"""Continuous-filter convolution over a graph whose edges carry features.

    .. math::
        \mathbf{x}'_i = \sum_{j \in \mathcal{N}(i)} w_{ij}\, \mathbf{x}_j \circ W(\mathbf{e}_{ij})

    The filter network :math:`W` maps the features of an edge to one factor for each channel; with a
    function of :math:`\mathbf{r}_i - \mathbf{r}_j` for features this is equation (2) of the paper, and
    with :class:`~pyg_schnet.nn.GaussianSmearing` and :class:`~pyg_schnet.nn.FilterNetwork` its radial
    filter. Channels do not mix: put a linear layer before or after.

    Args:
        filter_network: Maps ``edge_attr`` to ``(edges, channels)``.
        **kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`; ``aggr`` is ``"add"``.

    Raises:
        ValueError: If ``decomposed_layers`` is not 1: PyG would cut the channels of nodes, not of filters.

    Shapes:
        - **input:** node features ``(nodes, channels)``, or ``(sources, channels)`` with
          ``(targets, any)`` or ``None`` for a bipartite graph, or several sets of them on one graph,
          ``(..., nodes, channels)``; edge indices ``(2, edges)``, in any order, or a transposed adjacency
          matrix ``(targets, sources)``; edge features ``(edges, ...)``; edge weights ``(edges,)`` (optional)
        - **output:** ``(nodes, channels)``, or ``(targets, channels)``

    Example:
        >>> import torch
        >>> conv = CFConv(torch.nn.Linear(3, 16))  # any network of any edge features
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> conv(torch.ones(2, 16), edge_index, torch.randn(2, 3)).shape
        torch.Size([2, 16])

    Source:
        Schütt et al., NeurIPS 2017, section 3, equation (2) (arXiv:1706.08566).
    """

    def __init__(self, filter_network: nn.Module, **kwargs):
        super().__init__(**{"aggr": "add", **kwargs})
        check_decomposed_layers(self.decomposed_layers)
        self.filter_network = filter_network

    def reset_parameters(self) -> None:
        """Draw new weights of the filter network, if it has ``reset_parameters``."""
        super().reset_parameters()
        reset(self.filter_network)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: Adj,
        edge_attr: Shaped[Tensor, "rows ..."] | None = None,
        size: tuple[int, int] | None = None,
        edge_weight: Float[Tensor, " rows"] | None = None,
        pair: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "*sets targets channels"]:
        r"""Compute :math:`\sum_j w_{ij}\, \mathbf{x}_j \circ W(\mathbf{e}_{ij})` for each target.

        Args:
            x: Node features, ``(nodes, channels)``; a pair ``(sources, channels)`` and ``(targets, any)`` or
                ``None`` for a bipartite graph.
            edge_index: Edges; row 0 the sources, row 1 the targets. Or a sparse adjacency matrix, of torch or
                torch_sparse, transposed as for all of PyG's layers: row ``i`` holds what ``i`` receives.
            edge_attr: Input of the filter network, one row for each edge. With an adjacency matrix, rows are
                in the order of its entries, which often differs from that of the ``edge_index`` it was built
                from; by default its values are used.
            size: Numbers of sources and targets of a bipartite graph; an adjacency matrix has its own.
            edge_weight: Factor of each edge, for instance a cutoff envelope.
            pair: Row of ``edge_attr`` and ``edge_weight`` of each edge, where edges share rows: both
                directions of a pair of atoms have one filter, which is evaluated once. By default each edge
                has its own row.

        Returns:
            Sums over the neighbors of each target.

        Raises:
            TypeError: If ``size`` is a tensor, as the edge weights of other layers are.
            ValueError: If edges, their features and weights, or channels differ in number, or features of
                nodes or edges are missing.
        """
        if is_sparse(edge_index):
            edge_index, values, size = edges_of(edge_index, self.flow)
            edge_attr = values if edge_attr is None else edge_attr
        assert isinstance(edge_index, Tensor)
        if isinstance(size, Tensor):
            raise TypeError("`size` must be (sources, targets), got a tensor; pass weights as `edge_weight=`")
        x = (x, x) if isinstance(x, Tensor) else x
        if x[0] is None or edge_attr is None:
            raise_missing(x[0], edge_attr)
        filters = self.filter_network(edge_attr)  # (rows, channels)
        check_shapes(x[0], edge_index, filters, edge_weight, pair)
        if edge_weight is not None:
            filters = filters * edge_weight[:, None]
        if pair is not None:
            filters = filters.index_select(0, pair)  # (edges, channels)
        return self.propagate(edge_index, x=x, filters=filters, size=size)

    # Plain `Tensor`: with shapes in `message`, PyG silently drops its generated `propagate`.
    def message(self, x_j: Tensor, filters: Tensor) -> Tensor:
        """Compute the message of each edge.

        Args:
            x_j: Features of the sources, ``(edges, channels)``.
            filters: Filters, ``(edges, channels)``.

        Returns:
            Their product, ``(edges, channels)``.
        """
        return x_j * filters

    __prepare_scriptable__ = raise_unscriptable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.filter_network}, aggr={self.aggr})"
