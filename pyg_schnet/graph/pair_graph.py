"""The graph of pairs: atoms, the pairs of them that interact, and the forces and stress that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_schnet.graph.csr import Csr, csr_of, sort_sites, sum_by_molecule
from pyg_schnet.graph.neighbors import check_max_neighbors, neighbor_list, radius_graph
from pyg_schnet.graph.sites import Sites, find_sites, sites_of_edges
from pyg_schnet.graph.strain import stress_of_virial
from pyg_schnet.graph.validation import (
    MAX_ATOMIC_NUMBER,
    check_edges,
    check_elements,
    check_molecules,
    check_positions,
    count_molecules,
    is_periodic,
    raise_coincident,
)
from pyg_schnet.kernels import find_pairs, has_kernels, on_accelerator, pair_distances, segment_sum

_ATOMS_TO_COMPARE = 2000  # in all; beyond, cell lists are faster than comparing all pairs of a molecule
ATOMS_TO_SORT = 4000  # whose features outgrow the caches; sorting takes a hundredth of the time
_ELEMENTS = torch.arange(MAX_ATOMIC_NUMBER + 1) > 0  # (100,), bool


class PairGraph(NamedTuple):
    """Atoms and the pairs of them that interact, checked.

    In molecules, pairs join atoms. In periodic systems they join sites, where atoms and their images are.

    Attributes:
        z: Atomic numbers, ``(atoms,)``.
        pos: Positions of the atoms in Å, ``(atoms, 3)``.
        batch: Index of the molecule of each atom, ``(atoms,)``, sorted.
        num_molecules: Number of molecules; trailing ones may be without atoms.
        pairs: Atoms of each pair, ``(2, pairs)``: each row one pair, both directions of which are edges.
        site_pos: Positions of the sites in Å, ``(sites, 3)``; in molecules, ``pos``.
        sites: Sites of periodic systems; ``None`` in molecules.
        cell: Lattice vectors in rows, in Å, ``(molecules, 3, 3)`` or ``(3, 3)``; ``None`` without a lattice.
        pbc: Whether lattice vectors are periodic; ``None`` if none is.
        is_directed: Whether ``pairs`` are edges instead, from the source in row 0 to the target in row 1:
            for graphs in which an edge lacks its reverse.
        distance: Distance of each pair in Å, ``(pairs,)``, where a custom graph defines it.
        distance_range: Lower and upper bound of the distances in Å, where they are known.
        order: Index of each atom in the caller's order, ``(atoms,)``, where atoms were sorted.
        csr: Pairs in compressed rows, for kernels on GPUs; ``None`` on CPUs.
        site_csr: The same of ``sites.pairs``; in molecules, ``csr``.
        atom_sites: Where the sites of each atom begin, ``(atoms + 1,)``, and the sites in that order,
            ``(sites,)``, both int32, for sums on GPUs; ``None`` in molecules and on CPUs.
    """

    z: Tensor
    pos: Tensor
    batch: Tensor
    num_molecules: int
    pairs: Tensor
    site_pos: Tensor
    sites: Sites | None = None
    cell: Tensor | None = None
    pbc: Tensor | Sequence[bool] | bool | None = None
    is_directed: bool = False
    distance: Tensor | None = None
    distance_range: tuple[float, float] | None = None
    order: Tensor | None = None
    csr: Csr | None = None
    site_csr: Csr | None = None
    atom_sites: tuple[Tensor, Tensor] | None = None

    @property
    def site_pairs(self) -> Tensor:
        """Sites of each pair, ``(2, pairs)``."""
        return self.pairs if self.sites is None else self.sites.pairs

    def distances(self) -> Tensor:
        """Return the distance of each pair in Å, ``(pairs,)``, differentiable in ``site_pos``."""
        if self.distance is not None:
            return self.distance
        pos, pairs = self.site_pos, self.site_pairs
        if has_kernels(pos):
            return pair_distances(pos, pairs, self.site_csr or ())
        return (pos.index_select(0, pairs[0]) - pos.index_select(0, pairs[1])).norm(dim=1)

    def edges(self) -> tuple[Tensor, Tensor | None]:
        """Return all edges, ``(2, edges)``, and the pair of each, ``(edges,)``, where edges share pairs."""
        if self.is_directed:
            return self.pairs, None
        pair = torch.arange(self.pairs.size(1), device=self.pairs.device)
        return torch.cat([self.pairs, self.pairs.flip(0)], dim=1), torch.cat([pair, pair])

    def with_gradient(self) -> PairGraph:
        """Return the graph with ``site_pos`` that require a gradient."""
        if self.site_pos.requires_grad:
            return self
        site_pos = self.site_pos.detach().requires_grad_()
        return self._replace(site_pos=site_pos, pos=site_pos if self.sites is None else self.pos)

    def with_csr(self) -> PairGraph:
        """Return the graph with compressed rows of its pairs and sites, where kernels for GPUs read them."""
        if self.is_directed or not on_accelerator(self.pos) or not has_kernels(self.pos):
            return self
        csr = csr_of(self.pairs, len(self.z))
        if self.sites is None:
            return self._replace(csr=csr, site_csr=csr)
        return self._replace(
            csr=csr,
            site_csr=csr_of(self.sites.pairs, len(self.sites.atom)),
            atom_sites=sort_sites(self.sites.atom, len(self.z)),
        )

    def forces_and_stress(
        self, site_forces: Tensor, forces: bool = True, volume: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""Compute forces on atoms, and stresses, from forces on sites.

        .. math::
            \mathbf F_i = \sum_{s \text{ of } i} \mathbf f_s, \qquad
            \sigma = -\frac1{2V} \sum_s (\mathbf f_s \mathbf r_s^T + \mathbf r_s \mathbf f_s^T)

        Args:
            site_forces: Negative gradient of the energy by ``site_pos``, in eV/Å, ``(sites, 3)``.
            forces: Whether to return forces.
            volume: Volumes in Å³, ``(molecules,)``, NaN for molecules without one; stresses are returned if
                given.

        Returns:
            ``forces``, ``(atoms, 3)``, in the caller's order of atoms; ``stress``, ``(molecules, 3, 3)``.
        """
        out, sites = {}, self.sites
        if forces:
            out["forces"] = site_forces
            if self.atom_sites is not None:
                out["forces"] = segment_sum(site_forces, *self.atom_sites)
            elif sites is not None:
                zeros = site_forces.new_zeros(len(self.z), 3)
                out["forces"] = zeros.index_add(0, sites.atom, site_forces)
            if self.order is not None:
                out["forces"] = out["forces"][self.order.argsort()]
        if volume is not None:
            batch = self.batch if sites is None else self.batch.index_select(0, sites.atom)
            pos = self.site_pos
            if pos.is_leaf or not site_forces.requires_grad:  # no gradient of the caller's positions
                pos = pos.detach()
            moments = (site_forces[:, :, None] * pos[:, None, :]).double().flatten(1)  # (sites, 9)
            if self.is_directed:  # its sites are not sorted by molecule
                virial = moments.new_zeros(len(volume), 9).index_add(0, batch, moments)
            else:
                virial = sum_by_molecule(moments, batch, len(volume))
            virial = virial.view(-1, 3, 3)
            out["stress"] = stress_of_virial(-(virial + virial.mT) / 2, volume)
        return out


def build_pairs(
    z: Tensor,
    pos: Tensor,
    batch: Tensor | None = None,
    cutoff: float | None = None,
    *,
    num_molecules: int | None = None,
    edge_index: Tensor | None = None,
    shift: Tensor | None = None,
    cell: Tensor | None = None,
    pbc: Tensor | Sequence[bool] | bool | None = None,
    sites: Any = None,
    max_num_neighbors: int | None = None,
    allowed: Tensor | None = None,
    sort_atoms: bool = False,
) -> PairGraph:
    """Check molecules or periodic systems, and find the pairs of atoms within the cutoff.

    Args:
        z: Atomic numbers, ``(atoms,)``.
        pos: Positions in Å, ``(atoms, 3)``.
        batch: Index of the molecule of each atom, ``(atoms,)``, sorted; one molecule if ``None``.
        cutoff: Cutoff in Å; ``None`` connects all pairs of a molecule.
        num_molecules: Number of molecules; counted if ``None``.
        edge_index: Edges, if they are known, ``(2, edges)``; row 0 the sources.
        shift: Integer cell shift of each edge of a periodic system, ``(edges, 3)``.
        cell: Lattice vectors in rows, in Å, ``(molecules, 3, 3)`` or ``(3, 3)``.
        pbc: Whether each lattice vector is periodic, ``(molecules, 3)`` or ``(3,)``.
        sites: :class:`Sites` of the edges, if they are known; anything else is ignored.
        max_num_neighbors: Raise if an atom has more neighbors.
        allowed: Whether each atomic number from 0 is allowed, ``(100,)``, bool; by default 1 to 99 are.
        sort_atoms: Whether to sort the atoms of a single molecule, so that near atoms are near in memory.

    Returns:
        The graph, differentiable in ``pos`` and ``cell``.

    Raises:
        ValueError: If the input is not a set of molecules, with the field and its requirement.
        TypeError: If a tensor is of the wrong type.
    """
    periodic = is_periodic(pbc)
    if periodic and cutoff is None:
        raise ValueError(
            "`pbc` must be false for a SchNet without cutoff, which connects all pairs of a molecule; "
            "use SchNet(cutoff=...)"
        )
    if periodic or (edge_index is not None and shift is not None):
        batch, molecules = _check_atoms(z, pos, batch, num_molecules, allowed)
        found = _periodic_graph(z, pos, batch, molecules, cutoff, edge_index, shift, cell, pbc, sites)
        if edge_index is None:
            check_max_neighbors(found.edges()[0], cutoff or math.inf, max_num_neighbors)
        return found._replace(pbc=pbc).with_csr()
    limits = (cutoff, num_molecules, edge_index, max_num_neighbors, allowed)
    sort_atoms = sort_atoms and edge_index is None and _are_plain(z, pos, batch, None)
    if sort_atoms and (batch is None or not bool(batch.any())):
        order = spatial_order(pos)
        try:
            return _molecular_graph(z[order], pos[order], batch, *limits)._replace(order=order)
        except ValueError:  # repeat it with the caller's indices of atoms
            return _molecular_graph(z, pos, batch, *limits)
    return _molecular_graph(z, pos, batch, *limits).with_csr()


def _check_atoms(
    z: Tensor, pos: Tensor, batch: Tensor | None, num_molecules: int | None, allowed: Tensor | None
) -> tuple[Tensor, int]:
    number, molecules = check_molecules(z, pos, batch, num_molecules)
    if allowed is not None:
        check_elements(z, allowed)
    if batch is not None and not torch.compiler.is_compiling():
        _count(batch, num_molecules)
    return number, molecules


def _molecular_graph(
    z: Tensor,
    pos: Tensor,
    batch: Tensor | None,
    cutoff: float | None,
    num_molecules: int | None,
    edge_index: Tensor | None,
    max_num_neighbors: int | None,
    allowed: Tensor | None,
) -> PairGraph:
    if max_num_neighbors is None and _are_plain(z, pos, batch, edge_index):
        edges = edge_index
        if edges is None and cutoff is not None and len(pos) > _ATOMS_TO_COMPARE:
            edges = radius_graph(pos, cutoff, batch)
        found = find_pairs(z, _ELEMENTS if allowed is None else allowed, pos, batch, cutoff, edges)
        if found is not None:  # all is as it should be, and there are pairs
            pairs, *ends = found
            if batch is None:
                batch, molecules = torch.zeros_like(z), num_molecules or 1
            else:
                molecules = _count(batch, num_molecules)
            return PairGraph(z, pos, batch, molecules, pairs, pos, distance_range=(ends[0], ends[1]))
    batch, molecules = _check_atoms(z, pos, batch, num_molecules, allowed)
    if edge_index is None:
        r = math.inf if cutoff is None else cutoff
        edge_index = radius_graph(pos, r, batch, max_num_neighbors=max_num_neighbors)
        graph = PairGraph(z, pos, batch, molecules, edge_index[:, edge_index[0] < edge_index[1]], pos)
        return graph._replace(distance_range=_bounds(graph, cutoff, given=False))
    graph = PairGraph(z, pos, batch, molecules, edge_index, pos, is_directed=True)
    if not torch.compiler.is_compiling():
        check_positions(pos, batch)
        check_edges(edge_index, batch)
        with torch.no_grad():
            _check_distances(graph, graph.distances(), given=True)
        none = edge_index.new_zeros(1, 3).expand(edge_index.size(1), 3)  # no images
        if on_accelerator(pos) and (sites := find_sites(edge_index, none, batch)) is not None:
            graph = graph._replace(pairs=sites.pairs, is_directed=False)
            return graph._replace(distance_range=_bounds(graph, cutoff, given=True))
    return graph


def _bounds(graph: PairGraph, cutoff: float | None, given: bool) -> tuple[float, float] | None:
    """Return bounds of the distances for accelerators, on which reading them takes longer than using more."""
    if not on_accelerator(graph.pos) or torch.compiler.is_compiling():
        return None
    if cutoff is not None:
        return 0.0, math.inf if given else cutoff
    with torch.no_grad():
        distance = graph.distances()
    low, high = torch.stack(distance.aminmax()).tolist() if len(distance) else (0.0, 0.0)
    return low, high


def _are_plain(z: Any, pos: Any, batch: Any, edge_index: Any) -> bool:
    """Return whether the tensors are of the types, shapes and device that the kernels read."""
    return (
        isinstance(z, Tensor)
        and z.dtype == torch.long
        and pos.dim() == 2
        and pos.size(1) == 3
        and z.shape == pos.shape[:1]
        and (batch is None or (batch.dtype == torch.long and batch.shape == z.shape))
        and (
            edge_index is None
            or (edge_index.dtype == torch.long and edge_index.dim() == 2 and len(edge_index) == 2)
        )
        and all(t is None or (t.is_cpu and t.layout == torch.strided) for t in (z, pos, batch, edge_index))
        and not on_accelerator(pos)
        and has_kernels(pos)
    )


def _count(batch: Tensor, num_molecules: int | None) -> int:
    counted = count_molecules(batch)
    if num_molecules is None:
        return counted
    if num_molecules < counted:
        raise ValueError(
            f"`num_molecules` must be at least {counted}, one more than the last entry of `batch`; got "
            f"{num_molecules}"
        )
    return num_molecules


def _periodic_graph(
    z: Tensor,
    pos: Tensor,
    batch: Tensor,
    num_molecules: int,
    cutoff: float | None,
    edge_index: Tensor | None,
    shift: Tensor | None,
    cell: Tensor | None,
    pbc: Tensor | Sequence[bool] | bool | None,
    sites: Any,
) -> PairGraph:
    given = edge_index is not None
    if given and shift is None:
        raise ValueError(
            "`shift` must be given with `edge_index` where `pbc` is true; neighbor_list makes both"
        )
    if given and cell is None:
        raise ValueError("`cell` must be given, in Å, with `shift`; got None")
    compiling = torch.compiler.is_compiling()
    pairs = None
    if not (given and isinstance(sites, Sites) and len(sites.atom) >= len(pos)):
        if edge_index is None:
            assert cutoff is not None
            edge_index, shift = neighbor_list(pos, cutoff, batch, cell, pbc)
        elif not compiling:
            check_positions(pos, batch)
            check_edges(edge_index, batch)
        assert shift is not None
        sites = None if compiling else find_sites(edge_index, shift, batch)
        if sites is None:
            pairs, sites = edge_index, sites_of_edges(edge_index, shift, len(pos))
    assert cell is not None
    is_directed = pairs is not None
    pairs = sites.atom[sites.pairs] if pairs is None else pairs
    site_pos = sites.positions(pos, cell, batch)
    graph = PairGraph(z, pos, batch, num_molecules, pairs, site_pos, sites, cell, is_directed=is_directed)
    if compiling:
        return graph
    with torch.no_grad():
        distance = graph.distances()
    _check_distances(graph, distance, given)
    if on_accelerator(pos):
        return graph if is_directed else graph._replace(distance_range=_bounds(graph, cutoff, given))
    if cutoff is not None and not bool((near := distance < cutoff).all()):
        distance, sites = distance[near], sites._replace(pairs=sites.pairs[:, near])
        graph = graph._replace(pairs=pairs[:, near], sites=sites)
    if is_directed or len(distance) == 0:
        return graph
    low, high = (float(value) for value in distance.aminmax())
    return graph._replace(distance_range=(low, high))


def _check_distances(graph: PairGraph, distance: Tensor, given: bool) -> None:
    """Raise ValueError unless all distances are positive."""
    if bool((distance > 0).all()):
        return
    check_positions(graph.pos, graph.batch)
    first, second = sorted(graph.pairs[:, ~(distance > 0)][:, 0].tolist())
    if not given:  # the search compares differences of positions, and this positions of images
        raise_coincident(first, second)
    raise ValueError(
        f"`edge_index` must not connect atoms at one point, got atoms {first} and {second} at distance 0; "
        "remove loops and duplicated atoms"
    )


def spatial_order(pos: Tensor, width: float = 5.0) -> Tensor:
    """Return the order of the atoms by cells of space, in which near atoms are near in memory.

    The atoms of a pair are then in the processor's cache: 50,000 atoms in random order take twice as long.

    Args:
        pos: Positions in Å, finite, ``(atoms, 3)``.
        width: Width of a cell in Å.
    """
    cell = ((pos.detach() - pos.detach().amin(0)) / width).long()
    rows, columns = (cell[:, axis].max() + 1 for axis in (1, 2))
    return ((cell[:, 0] * rows + cell[:, 1]) * columns + cell[:, 2]).argsort(stable=True)
