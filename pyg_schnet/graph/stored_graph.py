"""Graphs as they are stored for later batches: with indices that do not depend on other structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_schnet.graph.csr import Csr, csr_of, sort_sites
from pyg_schnet.graph.pair_graph import PairGraph

ATOM, PAIR, SITE = range(3)  # kinds of rows


class StoredGraph(NamedTuple):
    """Structures with indices relative to their own first atom, pair and site.

    Attributes:
        counts: Numbers of atoms, pairs and sites of each structure, ``(3, structures)``.
        tensors: Rows of the structures, one after the other:
            ``z``, ``pos``;
            ``ends``, ``(2, pairs)``, the atoms of each pair, int32;
            ``rowptr``, ``(1, atoms)``, and ``entries``, ``(2, pairs, 2)``, the compressed rows, int32.
            With sites, ``ends`` has two more rows for the sites of each pair, ``entries`` for the compressed
            rows of sites, and ``rowptr`` one more for the sites of each atom; and there are ``site_atom``,
            ``site_shift``, ``site_pos``, ``site_rowptr`` and ``site_order``, sites sorted by atom.
        distance_range: Shortest and longest distance in Å.
    """

    counts: np.ndarray
    tensors: dict[str, Tensor]
    distance_range: tuple[float, float]

    @classmethod
    def of(cls, graph: PairGraph, periodic: bool, compressed: bool) -> StoredGraph:
        """Return the stored form of a graph.

        Args:
            graph: One structure or more.
            periodic: Whether to store sites, also for molecules.
            compressed: Whether to store compressed rows.

        Raises:
            ValueError: If the graph is directed.
        """
        if graph.is_directed:
            raise ValueError(
                "`edge_index` must contain the reverse of each edge to be stored as pairs, got an edge "
                "without it; add the missing edges, or leave `edge_index` out"
            )
        with torch.no_grad():
            distance = graph.distances()
        low, high = (float(x) for x in distance.aminmax()) if len(distance) else (np.inf, 0.0)
        batch, structures = graph.batch, graph.num_molecules
        sites, site_pairs = torch.arange(len(batch)), graph.site_pairs
        shift = sites.new_zeros(len(sites), 3)
        if graph.sites is not None:
            sites, shift = graph.sites.atom, graph.sites.shift
        site_batch = batch[sites]
        pair_batch, order = batch[graph.pairs[0]].sort(stable=True)
        pairs, site_pairs = graph.pairs[:, order], site_pairs[:, order]
        owners = (batch, pair_batch, site_batch)
        counts = torch.stack([torch.bincount(owner, minlength=structures) for owner in owners])
        first_atom, first_pair, first_site = counts.cumsum(1) - counts
        ends = [pairs - first_atom[pair_batch]]
        tensors = {"z": graph.z, "pos": graph.pos.detach()}
        rowptr, entries = [], []
        if compressed:
            csr = csr_of(pairs, len(batch))
            rowptr.append(csr.rowptr[:-1] - 2 * first_pair[batch])
            entries += _entries(csr, pair_batch, first_atom, first_pair)
        if periodic:
            ends.append(site_pairs - first_site[pair_batch])
            tensors["site_atom"] = (sites - first_atom[site_batch]).int()
            tensors["site_shift"] = shift.to(torch.int16)
            tensors["site_pos"] = graph.site_pos.detach()
        if periodic and compressed:
            csr = csr_of(site_pairs, len(sites))
            tensors["site_rowptr"] = (csr.rowptr[:-1] - 2 * first_pair[site_batch]).int()
            entries += _entries(csr, pair_batch, first_site, first_pair)
            begin, order = sort_sites(sites, len(batch))
            rowptr.append(begin[:-1] - first_site[batch])
            tensors["site_order"] = (order - first_site[site_batch[order]]).int()
        tensors["ends"] = torch.cat(ends).int()
        if compressed:
            tensors["rowptr"], tensors["entries"] = torch.stack(rowptr).int(), torch.stack(entries).int()
        return cls(counts.numpy(), tensors, (low, high))

    @classmethod
    def join(cls, parts: Sequence[StoredGraph]) -> StoredGraph:
        """Join the structures of several; those of the parts are consumed."""
        tensors = {}
        for name in list(parts[0].tensors):
            tensors[name] = torch.cat([part.tensors.pop(name) for part in parts], dim=_dimension(name))
        low, high = zip(*(part.distance_range for part in parts), strict=True)
        counts = np.concatenate([part.counts for part in parts], axis=1)
        return cls(counts, tensors, (min(*low, max(high)), max(high)))

    def with_pairs_of(self, kept: np.ndarray) -> StoredGraph:
        """Return the graph without the pairs of other structures; their numbers stay in ``counts``.

        Args:
            kept: Whether to keep the pairs of each structure, bool, ``(structures,)``.
        """
        rows = torch.from_numpy(kept.repeat(self.counts[PAIR]))
        mine = {name: t[:, rows] if name in ("ends", "entries") else t for name, t in self.tensors.items()}
        return self._replace(tensors=mine)


def _dimension(name: str) -> int:
    return 1 if name in ("ends", "entries", "rowptr") else 0


def _entries(csr: Csr, pair_batch: Tensor, first: Tensor, first_pair: Tensor) -> list[Tensor]:
    """Return the other end, and the pair, of the entries of compressed rows, ``(pairs, 2)`` each."""
    owner = pair_batch[csr.pair]
    return [(csr.col - first[owner]).view(-1, 2), (csr.pair - first_pair[owner]).view(-1, 2)]
