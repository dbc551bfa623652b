"""Neighbor search: from positions to the edges of a graph, exactly.

The search compares all pairs of a molecule in blocks of bounded memory, so it needs no extra package,
runs on the device of ``pos`` and drops nothing. ``torch_cluster`` gives the same edges where it is
installed; it pays for large molecules only, where its tree is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_schnet.lattice import periodic_edges
from pyg_schnet.molecules import (
    check_positions,
    check_radius,
    check_three_dimensional,
    count_molecules,
    raise_coincident,
)

_HAS_TORCH_CLUSTER = find_spec("torch_cluster") is not None  # the extra [ext], never needed
_BLOCK = 2**21  # candidate pairs compared at once: about 100 MB
_LARGE = (
    200  # atoms from which torch_cluster's tree beats comparing all pairs: 0.9 ms for 1.6, at 1,000 6 for 57
)
_BACKENDS = ("auto", "torch", "torch_cluster")


def radius_graph(
    pos: Float[Tensor, "points dimensions"],
    r: float,
    batch: Int[Tensor, " points"] | None = None,
    loop: bool = False,
    max_num_neighbors: int | None = None,
    flow: str = "source_to_target",
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    backend: str = "auto",
) -> Int[Tensor, "2 edges"]:
    r"""Connect all points closer than a radius.

    Takes the arguments of :func:`torch_geometric.nn.radius_graph` and returns the same, without its cap
    on the number of neighbors. Points are of any dimension.

    Args:
        pos: Positions; for molecules in Å.
        r: Radius in the unit of ``pos``; ``math.inf`` connects all pairs. A pair at distance ``r`` is
            not connected.
        batch: Number of the molecule of each point, sorted; all points are one molecule if ``None``.
        loop: Whether each point is also its own neighbor.
        max_num_neighbors: For callers who rely on a bound. Nothing is dropped: a point with more
            neighbors is an error.
        flow: ``"source_to_target"`` puts sources into row 0, ``"target_to_source"`` into row 1.
        num_workers: PyG's; without effect.
        batch_size: PyG's; without effect, the molecules are counted from ``batch``.
        backend: ``"torch"``, ``"torch_cluster"``, or ``"auto"``, the faster one that is installed.

    Returns:
        Edges sorted by target, then source.

    Raises:
        ValueError: If an argument is out of range, positions are not finite, two points coincide, or a
            point has more than ``max_num_neighbors`` neighbors.
    """
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(f"`flow` must be 'source_to_target' or 'target_to_source', got {flow!r}")
    check_radius(r, "r")
    batch = check_positions(pos, batch)
    _check_backend(backend)
    edge_index = _molecular_edges(pos, r, batch, backend)
    if max_num_neighbors is not None and edge_index.size(1) > 0:
        most = int(torch.bincount(edge_index[1]).max())
        if most > max_num_neighbors:
            raise ValueError(
                f"`max_num_neighbors` is {max_num_neighbors}, but a point has {most} neighbors within "
                f"{r}; nothing is dropped here, so raise it to {most} or leave it out"
            )
    if loop:
        own = torch.arange(len(pos), device=pos.device).expand(2, -1)
        edge_index = _sort_by_target(torch.cat([edge_index, own], dim=1), len(pos))
    return edge_index if flow == "source_to_target" else edge_index.flip(0)


def neighbor_list(
    pos: Float[Tensor, "atoms 3"],
    cutoff: float,
    batch: Int[Tensor, " atoms"] | None = None,
    cell: Float[Tensor, "*molecules 3 3"] | None = None,
    pbc: Tensor | Sequence[bool] | bool | None = None,
    backend: str = "auto",
) -> tuple[Int[Tensor, "2 edges"], Int[Tensor, "edges 3"]]:
    r"""Find all pairs closer than a cutoff, periodic images included.

    The vector of edge :math:`j \to i` is ``pos[j] - pos[i] + shift @ cell``; its length is below the cutoff.

    Args:
        pos: Positions in Å, inside the cell or not.
        cutoff: In Å; ``math.inf`` connects all pairs, without periodicity only.
        batch: Number of the molecule of each atom, sorted; one molecule if ``None``.
        cell: Lattice vectors in rows, in Å, for each molecule; ``(3, 3)`` for one.
        pbc: Whether each lattice vector is periodic, ``(molecules, 3)``, ``(3,)`` or one flag for all;
            by default no direction is periodic.
        backend: As in :func:`radius_graph`; periodic systems use ``"torch"``.

    Returns:
        The edges, sorted by target, then source (row 0 the source j, row 1 the target i), and the
        integer cell shift of each.

    Raises:
        ValueError: If an argument is out of range, positions are not finite or two atoms coincide.
    """
    check_three_dimensional(pos)
    check_radius(cutoff, "cutoff")
    batch = check_positions(pos, batch)
    _check_backend(backend)
    molecules = count_molecules(batch)
    flags = torch.as_tensor(False if pbc is None else pbc, dtype=torch.bool, device=pos.device)
    periodic = _one_for_each(flags, 2, molecules, "pbc")
    if not bool(periodic.any()):
        edge_index = _molecular_edges(pos, cutoff, batch, backend)
        return edge_index, torch.zeros_like(edge_index[0])[:, None].expand(-1, 3).contiguous()
    if cell is None:
        raise ValueError("`cell` must be given, in Å, where `pbc` is true; got None")
    if math.isinf(cutoff):
        raise ValueError("`cutoff` must be finite in a periodic system, got inf")
    cell = _one_for_each(cell.detach().to(pos.dtype), 3, molecules, "cell")
    edges, shifts = [], []
    first = 0
    for molecule, atoms in enumerate(torch.bincount(batch, minlength=molecules).tolist()):
        edge, shift = periodic_edges(
            pos[first : first + atoms].detach(), cutoff, cell[molecule], periodic[molecule], _BLOCK
        )
        edges.append(edge + first)
        shifts.append(shift)
        first += atoms
    return torch.cat(edges, dim=1), torch.cat(shifts)


def undirected_pairs(
    edge_index: Int[Tensor, "2 edges"],
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " edges"]]:
    """Number the pairs of a symmetric graph, so that work can be done once a pair.

    Args:
        edge_index: Edges sorted by target, then source, each with its reverse and without loops, as
            :func:`radius_graph` makes them.

    Returns:
        ``first``, one edge of each pair, and ``pair``, the number of each edge's pair.
    """
    source, target = edge_index
    reverse = torch.argsort(source, stable=True)  # sorted by (source, target): the reversed list
    is_first = source < target
    first = is_first.nonzero().squeeze(-1)
    number = is_first.cumsum(0) - 1
    return first, torch.where(is_first, number, number.index_select(0, reverse))


class RadiusGraph(BaseTransform):
    """Turn molecules into graphs: add ``edge_index`` (and ``shift``, where there is a cell) to ``Data``.

    Args:
        r: Cutoff in Å; ``math.inf`` connects all pairs.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
        >>> RadiusGraph(5.0)(water).edge_index.tolist()
        [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    """

    def __init__(self, r: float):
        check_radius(r, "r")
        self.r = r

    def forward(self, data: Data) -> Data:
        if data.pos is None:
            raise ValueError("`data` must hold `pos`, positions in Å; got None")
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        edge_index, shift = neighbor_list(data.pos, self.r, getattr(data, "batch", None), cell, pbc)
        data.edge_index = edge_index
        if cell is not None:
            data.shift = shift
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(r={self.r})"


def _check_backend(backend: str) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(_BACKENDS)}; got {backend!r}")
    if backend == "torch_cluster" and not _HAS_TORCH_CLUSTER:
        raise ImportError(
            "`backend='torch_cluster'` needs torch-cluster: pip install --no-build-isolation torch-cluster"
        )


def _one_for_each(value: Tensor, dimensions: int, molecules: int, name: str) -> Tensor:
    """Give each molecule its cell or periodicity; those of trailing molecules without atoms go."""
    shape = (molecules, *[3] * (dimensions - 1))
    if value.dim() == dimensions and len(value) > 1:
        value = value[:molecules]
    try:
        return value.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"`{name}` must have shape {shape}, one for each molecule, got {tuple(value.shape)}"
        ) from None


def _molecular_edges(pos: Tensor, r: float, batch: Tensor, backend: str) -> Tensor:
    if len(pos) == 0:
        return torch.empty(2, 0, dtype=torch.long, device=pos.device)
    pos = pos.detach()
    atoms = torch.bincount(batch)
    if _HAS_TORCH_CLUSTER and math.isfinite(r):
        largest = int(atoms.max())
        if backend == "torch_cluster" or (
            backend == "auto" and largest >= _LARGE and pos.device.type == "cpu"
        ):
            return _torch_cluster_edges(pos, r, batch, largest)
    return _all_pairs_edges(pos, r, batch, atoms)


def _all_pairs_edges(pos: Tensor, r: float, batch: Tensor, atoms: Tensor) -> Tensor:
    candidates = atoms.index_select(0, batch)  # (points,) each point meets its own molecule
    begin = (atoms.cumsum(0) - atoms).index_select(0, batch)  # (points,) where the molecule begins
    ends = candidates.cumsum(0)
    blocks = []
    low = 0
    while low < len(pos):
        done = int(ends[low] - candidates[low])
        high = int(torch.searchsorted(ends, done + _BLOCK, right=True))
        high = max(high, low + 1)
        size = candidates[low:high]
        target = torch.repeat_interleave(torch.arange(low, high, device=pos.device), size)
        within = torch.arange(len(target), device=pos.device) - (size.cumsum(0) - size)[target - low]
        source = within + begin.index_select(0, target)
        blocks.append(_closer(pos, r, source, target))
        low = high
    return torch.cat(blocks, dim=1)


def _closer(pos: Tensor, r: float, source: Tensor, target: Tensor) -> Tensor:
    different = source != target
    source, target = source[different], target[different]
    square = (pos.index_select(0, source) - pos.index_select(0, target)).square().sum(dim=1)
    if bool((square == 0).any()):
        raise_coincident(source[square == 0][0], target[square == 0][0])
    edge_index = torch.stack([source, target])
    return edge_index if math.isinf(r) else edge_index[:, square < r * r]


def _torch_cluster_edges(pos: Tensor, r: float, batch: Tensor, largest: int) -> Tensor:
    import torch_cluster  # pyright: ignore[reportMissingImports] - optional

    edge_index = torch_cluster.radius_graph(pos, r, batch, max_num_neighbors=largest)
    source, target = edge_index
    return _closer(pos, r, *_sort_by_target(torch.stack([source, target]), len(pos)))


def _sort_by_target(edge_index: Tensor, points: int) -> Tensor:
    return edge_index[:, torch.argsort(edge_index[1] * points + edge_index[0])]
