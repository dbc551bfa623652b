"""Neighbor search: from positions to the edges of a graph, exactly.

In small molecules, all pairs are compared in blocks of bounded memory, on the device of ``pos``. In large and
periodic systems, vesin's cell lists are used, on the device where they can and else on the host; their time
and memory are linear in the number of atoms. No neighbor is dropped, and all searches return the same edges:
they propose pairs, and one expression decides.

Potentials do not search molecules on CPUs here: :func:`~pyg_schnet.graph.pair_graph.build_pairs` calls
:func:`~pyg_schnet.kernels.find_pairs`, which checks the atoms and finds the pairs in C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from pyg_schnet.graph.cell_list import close_pairs, fits_cell_list
from pyg_schnet.graph.periodic import periodic_edges
from pyg_schnet.graph.validation import (
    check_cell,
    check_positions,
    check_radius,
    check_three_dimensional,
    count_molecules,
    raise_coincident,
)
from pyg_schnet.kernels import on_accelerator

_HAS_TORCH_CLUSTER = find_spec("torch_cluster") is not None  # the extra [ext], optional
_BLOCK = 2**21  # candidate pairs compared at once: about 100 MB
_LARGE = 80  # atoms of a molecule from which cell lists are faster than all pairs: 0.39 ms, not 0.51
_LARGE_ON_ACCELERATOR = 1400  # of which all pairs are one block
_BACKENDS = ("auto", "torch", "vesin", "torch_cluster")


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

    Has the arguments and the result of :func:`torch_geometric.nn.radius_graph`, without its maximum number
    of neighbors. Points may have any dimension.

    Args:
        pos: Positions; for molecules in Å.
        r: Radius in the unit of ``pos``; ``math.inf`` connects all pairs. A pair at distance ``r`` is
            not connected.
        batch: Index of the molecule of each point, sorted; all points are one molecule if ``None``.
        loop: Whether each point is also its own neighbor.
        max_num_neighbors: Raise if a point has more neighbors; none are dropped.
        flow: ``"source_to_target"`` puts sources into row 0, ``"target_to_source"`` into row 1.
        num_workers: PyG's; without effect.
        batch_size: PyG's; without effect, molecules are counted from ``batch``.
        backend: ``"torch"`` compares all pairs, ``"vesin"`` uses cell lists, in up to three dimensions and
            for a finite radius, ``"torch_cluster"`` needs that package, and ``"auto"`` is the faster of the
            first two. All return the same edges.

    Returns:
        Edges sorted by target, then source.

    Raises:
        ValueError: If an argument is out of range, positions are not finite, two points coincide, or a
            point has more than ``max_num_neighbors`` neighbors.
    """
    check_flow(flow)
    check_radius(r, "r")
    batch = check_positions(pos, batch)
    _check_backend(backend)
    edge_index = _molecular_edges(pos, r, batch, backend)
    check_max_neighbors(edge_index, r, max_num_neighbors)
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
        cutoff: Cutoff in Å; ``math.inf`` connects all pairs, without periodicity only.
        batch: Index of the molecule of each atom, sorted; one molecule if ``None``.
        cell: Lattice vectors in rows, in Å, for each molecule; ``(3, 3)`` for one.
        pbc: Whether each lattice vector is periodic, ``(molecules, 3)``, ``(3,)`` or one flag for all;
            by default no direction is periodic.
        backend: As in :func:`radius_graph`; periodic systems use ``"torch"`` instead of ``"torch_cluster"``.

    Returns:
        The edges, sorted by target, source, then shift (row 0 the source j, row 1 the target i), and the
        integer cell shift of each.

    Raises:
        ValueError: If an argument is out of range, positions or cells are not finite, lattice vectors depend
            on each other or are far too short for the cutoff, or two atoms coincide. Cells may be left- or
            right-handed.
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
    check_cell(cell)
    if math.isinf(cutoff):
        raise ValueError("`cutoff` must be finite in a periodic system, got inf")
    cell = _one_for_each(cell.detach().to(pos.dtype), 3, molecules, "cell")
    edges, shifts = [], []
    first = 0
    for molecule, atoms in enumerate(torch.bincount(batch, minlength=molecules).tolist()):
        edge, shift = periodic_edges(
            pos[first : first + atoms].detach(), cutoff, cell[molecule], periodic[molecule], backend, _BLOCK
        )
        edges.append(edge + first)
        shifts.append(shift)
        first += atoms
    return torch.cat(edges, dim=1), torch.cat(shifts)


def check_flow(flow: str) -> None:
    """Raise ValueError unless ``flow`` is one of PyG's."""
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(f"`flow` must be 'source_to_target' or 'target_to_source', got {flow!r}")


def check_max_neighbors(edge_index: Tensor, r: float, max_num_neighbors: int | None) -> None:
    """Raise ValueError if an atom has more neighbors than ``max_num_neighbors``."""
    if max_num_neighbors is not None and edge_index.size(1) > 0:
        most = int(torch.bincount(edge_index[1]).max())
        if most > max_num_neighbors:
            raise ValueError(
                f"`max_num_neighbors` is {max_num_neighbors}, but a point has {most} neighbors within "
                f"{r}; none are dropped, so raise it to {most} or leave it out"
            )


def _check_backend(backend: str) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(_BACKENDS)}; got {backend!r}")
    if backend == "torch_cluster" and not _HAS_TORCH_CLUSTER:
        raise ImportError(
            "`backend='torch_cluster'` needs torch-cluster: pip install --no-build-isolation torch-cluster"
        )


def _one_for_each(value: Tensor, dimensions: int, molecules: int, name: str) -> Tensor:
    """Expand a cell or periodicity to all molecules; drop those of trailing molecules without atoms."""
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
    if backend == "vesin" and pos.size(1) > 3:
        raise ValueError(
            f"`pos` must have at most 3 dimensions for `backend='vesin'`, got {pos.size(1)}; "
            "use `backend='torch'`"
        )
    if len(pos) == 0:
        return torch.empty(2, 0, dtype=torch.long, device=pos.device)
    pos = pos.detach()
    atoms = torch.bincount(batch)
    if backend == "auto" and pos.size(1) <= 3:
        mean_square = float(atoms.square().sum() / (atoms > 0).sum())
        large = _LARGE_ON_ACCELERATOR if on_accelerator(pos) else _LARGE
        backend = "vesin" if mean_square >= large**2 else "torch"
    if backend == "vesin" and math.isfinite(r):
        return _cell_list_edges(pos, r, batch, atoms)
    if backend == "torch_cluster" and math.isfinite(r):
        return _torch_cluster_edges(pos, r, batch, int(atoms.max()))
    return _all_pairs_edges(pos, r, batch, atoms)


def _cell_list_edges(pos: Tensor, r: float, batch: Tensor, atoms: Tensor) -> Tensor:
    reach = r * (1 + 16 * torch.finfo(pos.dtype).eps)  # `_closer` rounds to the precision of `pos`
    space = pad(pos, (0, 3 - pos.size(1)))  # (points, 3)
    keys = []
    first = 0
    for points in space.split(atoms.tolist()):
        if len(points) > 1:
            extents = (points.amax(0) - points.amin(0)).tolist()
            if not fits_cell_list(extents, reach):
                return _all_pairs_edges(pos, r, batch, atoms)
            target, source, _ = close_pairs(points, reach)
            keys.append((target + first) * len(pos) + source + first)
        first += len(points)
    if not keys:
        return torch.empty(2, 0, dtype=torch.long, device=pos.device)
    key = torch.cat(keys).sort()[0]
    found = [_closer(pos, r, part % len(pos), part // len(pos)) for part in key.split(_BLOCK)]
    return torch.cat(found, dim=1)


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
    if not bool(different.all()):
        source, target = source[different], target[different]
    square = torch.zeros_like(source, dtype=pos.dtype)
    for x in pos.T.contiguous():
        square += (x.index_select(0, source) - x.index_select(0, target)).square_()
    if bool((square == 0).any()):
        raise_coincident(source[square == 0][0], target[square == 0][0])
    edge_index = torch.stack([source, target])
    near = square < r * r
    return edge_index if math.isinf(r) or bool(near.all()) else edge_index[:, near]


def _torch_cluster_edges(pos: Tensor, r: float, batch: Tensor, largest: int) -> Tensor:
    import torch_cluster  # pyright: ignore[reportMissingImports] - optional

    edge_index = torch_cluster.radius_graph(pos, r, batch, max_num_neighbors=largest)
    source, target = edge_index
    return _closer(pos, r, *_sort_by_target(torch.stack([source, target]), len(pos)))


def _sort_by_target(edge_index: Tensor, points: int) -> Tensor:
    key = (edge_index[1] * points + edge_index[0]).sort()[0]
    return torch.stack([key % points, key // points])
