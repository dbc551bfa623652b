"""The continuous-filter convolution."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from pyg_schnet.nn.adjacency import edges_of
from pyg_schnet.nn.filter_table import Knots, SplineFilters, convolve


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

    _settings: ClassVar = ()

    def __init__(self, filter_network: nn.Module, **kwargs):
        super().__init__(**{"aggr": "add", **kwargs})
        if self.decomposed_layers != 1:
            raise ValueError(
                f"`decomposed_layers` must be 1, got {self.decomposed_layers}; PyG would cut the channels of "
                "nodes, but not those of filters"
            )
        self.filter_network = filter_network
        self.spline = SplineFilters()

    def reset_parameters(self) -> None:
        """Draw new weights of the filter network, as far as it knows how."""
        super().reset_parameters()
        reset(self.filter_network)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: Adj,
        edge_attr: Shaped[Tensor, "rows ..."] | Knots | None = None,
        size: tuple[int, int] | None = None,
        edge_weight: Float[Tensor, " rows"] | None = None,
        pair: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "*sets targets channels"]:
        """Convolve.

        Args:
            x: Node features.
            edge_index: Edges; row 0 the sources, row 1 the targets. Or a sparse adjacency matrix, of torch or
                torch_sparse, transposed as for all of PyG's layers: row ``i`` holds what ``i`` receives.
            edge_attr: Features of the edges, on which the filters depend; in the order in which an adjacency
                matrix holds its entries, which is rarely that of the ``edge_index`` it was made of. If it is
                not given, the matrix's values are the features; else they have no meaning. Or
                :class:`Knots`, where they are functions of a distance and both directions of a pair have the
                same: then ``edge_index`` holds each pair once, and the network is evaluated at the knots of a
                spline only.
            size: Numbers of sources and targets of a bipartite graph; an adjacency matrix has its own.
            edge_weight: Factor of each edge, for instance a cutoff envelope.
            pair: The row of ``edge_attr`` and ``edge_weight`` that belongs to each edge, where edges
                share them: both directions of a pair of atoms have one filter, so that the network is
                evaluated once. By default each edge has its own row.

        Raises:
            ValueError: If edges, their features and weights, or channels differ in number.
        """
        if isinstance(edge_attr, Knots):
            assert isinstance(x, Tensor)
            assert isinstance(edge_index, Tensor)
            table = self.spline.coefficients(self.filter_network, edge_attr)  # (knots, channels)
            return convolve(x, table, edge_index, edge_attr)
        if is_sparse(edge_index):
            edge_index, values, size = edges_of(edge_index, self.flow)
            edge_attr = values if edge_attr is None else edge_attr
        assert isinstance(edge_index, Tensor)
        if isinstance(size, Tensor):
            raise TypeError("`size` must be (sources, targets), got a tensor; pass weights as `edge_weight=`")
        x = (x, x) if isinstance(x, Tensor) else x
        if x[0] is None or edge_attr is None:
            _raise_missing(x[0], edge_attr)
        filters = self.filter_network(edge_attr)  # (rows, channels)
        _check_numbers(x[0], edge_index, filters, edge_weight, pair)
        if edge_weight is not None:
            filters = filters * edge_weight[:, None]
        if pair is not None:
            filters = filters.index_select(0, pair)  # (edges, channels)
        return self.propagate(edge_index, x=x, filters=filters, size=size)

    # PyG adds up by scatter_add. torch_scatter is not faster on a CPU, so it is not asked for: 13,440 edges
    # of 64 channels take 0.15 ms, with its scatter 0.16, its segment_csr 0.50 (torch 2.13, one thread).
    # Plain `Tensor`: PyG drops its generated `propagate` without a word where `message` has shapes.
    def message(self, x_j: Tensor, filters: Tensor) -> Tensor:
        return x_j * filters

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse TorchScript, which calls this first, also for models that contain the layer."""
        raise TypeError(
            "CFConv cannot be compiled by torch.jit.script, which knows no unions of adjacency types and no "
            "shapes in signatures; use torch.compile(model)"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.filter_network}, aggr={self.aggr})"


def _check_numbers(
    x: Tensor, edge_index: Tensor, filters: Tensor, edge_weight: Tensor | None, pair: Tensor | None
) -> None:
    """Refuse what would be spread over rows or channels that it does not belong to."""
    edges, rows, channels = edge_index.size(-1), filters.size(0), filters.size(-1)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            "`edge_index` must have shape (2, edges) or be a sparse COO, CSR or CSC matrix, got "
            f"{tuple(edge_index.shape)}"
        )
    if filters.dim() != 2:
        raise ValueError(
            f"`filter_network` must give shape (edges, channels), got {tuple(filters.shape)} of `edge_attr` "
            "with as many rows; flatten the features of an edge, or give a single number an axis of its own"
        )
    if x.dim() < 2:
        raise ValueError(f"`x` must have shape (nodes, {channels}), got {tuple(x.shape)}")
    if x.size(-1) != channels:
        raise ValueError(
            f"`x` must have {channels} channels, as many as `filter_network` gives filters, got "
            f"{x.size(-1)}; put torch.nn.Linear({x.size(-1)}, {channels}) before the convolution"
        )
    if pair is None and rows != edges:
        raise ValueError(
            f"`edge_attr` must have one row for each of the {edges} edges, got {rows}; if edges share rows, "
            "say which by `pair`"
        )
    if pair is not None and pair.size(0) != edges:
        raise ValueError(f"`pair` must have one number for each of the {edges} edges, got {pair.size(0)}")
    if edge_weight is not None and edge_weight.shape != filters.shape[:1]:
        raise ValueError(
            f"`edge_weight` must have shape ({rows},), as many as `edge_attr` has rows, got "
            f"{tuple(edge_weight.shape)}"
        )


def _raise_missing(x: Tensor | None, edge_attr: Tensor | None) -> NoReturn:
    if x is None:
        raise ValueError("`x` must hold features of the sources, got None; those of the targets may be None")
    raise ValueError(
        "`edge_attr` must be given, the features on which the filters depend, got None; only an adjacency "
        "matrix with values, which are the features then, does without"
    )
