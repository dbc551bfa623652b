"""Pairs of many structures, each found once, of which graphs of batches are cut without synchronization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_schnet.graph.csr import Csr
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.graph.sites import Sites
from pyg_schnet.graph.stored_graph import ATOM, PAIR, SITE, StoredGraph


class Cut(NamedTuple):
    """Structures of a batch, cut from a store.

    Attributes:
        graph: Atoms and pairs, without cells.
        structure: Index of each structure in the store, ``(structures,)``.
        atom: Index of each atom in the store, ``(atoms,)``.
        ptr: First atom of each structure and, at last, their number, ``(structures + 1,)``.
    """

    graph: PairGraph
    structure: Tensor
    atom: Tensor
    ptr: Tensor


class PairStore:
    """Atoms and pairs of all structures of a data set, one structure after the other.

    A batch consists of ranges of rows. The host computes where they begin, copies that to the device, and
    knows the sizes of all tensors; the device gathers the rows.

    Args:
        graphs: Graphs of one structure or more each, in order.
        periodic: Whether any of them has sites; all are stored with sites then.
        compressed: Whether to store compressed rows, which kernels for GPUs read.
        shared: Whether molecules with as many atoms have the same pairs, as they do without a cutoff.

    Attributes:
        distance_range: Shortest and longest distance of all pairs, in Å.

    Raises:
        ValueError: If a graph is directed.
    """

    def __init__(
        self,
        graphs: Iterable[PairGraph],
        periodic: bool = False,
        compressed: bool = False,
        shared: bool = False,
    ):
        parts, starts = [], []
        known: dict[int, int] = {}  # first pair of the molecules of a size, where they share pairs
        total = np.zeros((3, 1), dtype=np.int64)
        for graph in graphs:
            part = StoredGraph.of(graph, periodic, compressed)
            start = part.counts.cumsum(1) - part.counts + total
            total += part.counts.sum(1, keepdims=True)
            if shared and not periodic:
                part, start[PAIR], total[PAIR] = _share(part, known, int(start[PAIR, 0]))
            parts.append(part)
            starts.append(start)
        self._starts, self._totals = np.concatenate(starts, axis=1), total
        self._counts, self._tensors, self.distance_range = StoredGraph.join(parts)
        for name in ("rowptr", "site_rowptr"):  # one more, for where the last row of a batch ends
            if name in self._tensors:
                self._tensors[name] = torch.nn.functional.pad(self._tensors[name], (0, 1))
        self._periodic, self._compressed = periodic, compressed
        self._row = torch.empty(0, dtype=torch.long)

    @property
    def bytes(self) -> int:
        """Memory of the store."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to(self, device: torch.device) -> PairStore:
        """Move the store to a device, in place."""
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        self._row = self._row.to(device)
        return self

    def cut(self, structures: Sequence[int] | np.ndarray) -> Cut:
        """Return the graph of a batch.

        Args:
            structures: Indices of structures, in the order of the batch.
        """
        ids = np.asarray(structures, dtype=np.int64)
        counts = self._counts[:, ids]
        begin = np.insert(counts.cumsum(1), 0, 0, axis=1)  # (3, structures + 1)
        shift = np.append(self._starts[:, ids], self._totals, axis=1) - begin
        atoms, pairs, sites = begin[:, -1].tolist()
        levels = [ATOM, SITE] if self._periodic else [ATOM]  # at which there are pairs
        first = [*begin[np.repeat(levels, 2)]]
        entry = [row for level in levels for row in begin[[level, PAIR]]]
        rowptr = [2 * begin[PAIR], *([begin[SITE]] if self._periodic else [])]
        wide, narrow = self._send([*begin, *shift, *first, np.append(ids, 0)], [*entry, *rowptr])
        begin, shift, first = wide[:3], wide[3:6], wide[6:-1]
        entry, rowptr = narrow[: len(entry)], narrow[len(entry) :]
        own = self._tensors

        owner, row = self._rows(begin[ATOM], shift[ATOM], atoms + 1)
        batch, atom = owner[:atoms], row[:atoms]
        pair_owner, pair = self._rows(begin[PAIR], shift[PAIR], pairs)
        z, pos = own["z"].index_select(0, atom), own["pos"].index_select(0, atom)
        ends = own["ends"].index_select(1, pair) + first.index_select(1, pair_owner)
        graph = PairGraph(z, pos, batch, len(ids), ends[:2], pos, distance_range=self.distance_range)
        site = site_row = site_owner = atom  # of molecules
        if self._periodic:
            site_owner, site_row = self._rows(begin[SITE], shift[SITE], sites + 1)
            site, site_batch = site_row[:sites], site_owner[:sites]
            of_atom = own["site_atom"].index_select(0, site) + begin[ATOM].index_select(0, site_batch)
            where = Sites(ends[2:], of_atom, own["site_shift"].index_select(0, site))
            graph = graph._replace(site_pos=own["site_pos"].index_select(0, site), sites=where)
        if self._compressed:
            entries = own["entries"].index_select(1, pair)
            entries = (entries + entry.index_select(1, pair_owner)[:, :, None]).flatten(1)
            rows = own["rowptr"].index_select(1, row) + rowptr.index_select(1, owner)
            csr = Csr(rows[0], entries[0], entries[1])
            graph = graph._replace(csr=csr, site_csr=csr)
            if self._periodic:
                site_rows = own["site_rowptr"].index_select(0, site_row) + rowptr[0].index_select(
                    0, site_owner
                )
                order = own["site_order"].index_select(0, site) + rowptr[1].index_select(
                    0, site_owner[:sites]
                )
                site_csr = Csr(site_rows, entries[2], entries[3])
                graph = graph._replace(site_csr=site_csr, atom_sites=(rows[1], order))
        return Cut(graph, wide[-1, :-1], atom, begin[ATOM])

    def _rows(self, begin: Tensor, shift: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the structure in the batch, and the row in the store, of each row of the batch."""
        if len(self._row) < count:
            self._row = torch.arange(count + count // 2, device=self._row.device)
        row = self._row[:count]
        owner = torch.searchsorted(begin[1:], row, right=True)
        return owner, row + shift.index_select(0, owner)

    def _send(self, wide: list[np.ndarray], narrow: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Copy integers to the device, as int64 and as int32, in one transfer that is not waited for."""
        host = np.stack(wide), np.stack(narrow).astype(np.int32)
        packed = torch.from_numpy(np.concatenate([part.reshape(-1).view(np.uint8) for part in host]))
        device = self._row.device
        if device.type != "cpu":
            packed = packed.pin_memory().to(device, non_blocking=True)
        parts = packed.split([part.nbytes for part in host])
        return (
            parts[0].view(torch.int64).view(host[0].shape),
            parts[1].view(torch.int32).view(host[1].shape),
        )


def _share(part: StoredGraph, known: dict[int, int], first: int) -> tuple[StoredGraph, np.ndarray, int]:
    """Leave out pairs of molecules of known sizes.

    Args:
        part: Molecules.
        known: First pair of the molecules of each size, which is extended.
        first: First pair of new sizes.

    Returns:
        The molecules, the first pair of each, and the number of pairs stored so far.
    """
    new, starts = np.zeros(part.counts.shape[1], dtype=bool), []
    for number, (atoms, pairs) in enumerate(part.counts[[ATOM, PAIR]].T.tolist()):
        if atoms not in known:
            known[atoms], new[number] = first, True
            first += pairs
        starts.append(known[atoms])
    return part.with_pairs_of(new), np.array(starts), first
