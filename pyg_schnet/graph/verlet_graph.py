"""Graphs of pairs that stay on an accelerator: searched with a margin, and only moved in between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.graph.pair_graph import PairGraph, build_pairs
from pyg_schnet.graph.verlet_list import Reference, lattice_of


class VerletGraph:
    """Pairs of several systems, searched again only when some may be missing.

    The graph holds the pairs within cutoff and skin in a fixed order, with sites and compressed rows. Those
    beyond the cutoff stay in it, where models add nothing for them: to remove them, the host would wait for
    their number in each step. Without a cutoff, it always holds all pairs of each molecule, and a search only
    computes the bounds of their distances.

    Args:
        cutoff: Cutoff in Å, infinite for all pairs of molecules.
        skin: Distance in Å beyond it up to which pairs are in the graph.
        allowed: Whether each atomic number from 0 is allowed.

    Attributes:
        searches: Number of searches so far.
        margin: Twice the distance in Å by which an atom may move until the next search.
        reference: Systems at the last search.
    """

    reference: Reference

    def __init__(self, cutoff: float, skin: float, allowed: Tensor | None = None):
        self.cutoff, self.skin, self.margin, self.allowed = cutoff, skin, skin, allowed
        self.searches = 0
        self._graph: PairGraph | None = None
        self._offset: Tensor | None = None  # of sites from their atoms, in the lattice of the search

    def update(self, fields: Mapping[str, Any]) -> PairGraph:
        """Return the graph at present positions; search first where a pair may be missing.

        Args:
            fields: ``z``, ``pos`` and, where there are some, ``batch``, ``num_graphs``, ``cell`` and ``pbc``;
                the same from call to call but for positions and cells.

        Raises:
            ValueError: As :func:`~pyg_schnet.graph.pair_graph.build_pairs`, where it searches.
        """
        pos, lattice = fields["pos"], lattice_of(fields)
        if self._graph is None or not self.reference.is_near(
            pos, fields.get("batch"), lattice, self.cutoff, self.margin
        ):
            return self.search(fields)
        changed = lattice is not None and not torch.equal(lattice[0], self._lattice()[0])
        return self.at(pos, lattice[0] if changed and lattice else None)

    def search(self, fields: Mapping[str, Any]) -> PairGraph:
        """Search pairs, and return the graph; the arguments are those of :meth:`update`."""
        pos, all_pairs = fields["pos"], math.isinf(self.cutoff)
        found = build_pairs(
            fields["z"],
            pos,
            fields.get("batch"),
            None if all_pairs else self.cutoff + self.skin,
            num_molecules=fields.get("num_graphs"),
            cell=fields.get("cell"),
            pbc=fields.get("pbc"),
            allowed=self.allowed,
        )
        longest = self.cutoff
        if all_pairs:
            longest = float(found.distances().max()) if found.pairs.size(1) else 0.0
            self.margin = self.skin + longest / 4  # as much as tables of filters reach beyond
        self.reference = Reference.copy_of(pos, lattice_of(fields))
        self._graph = found._replace(distance_range=(0.0, longest + self.margin))
        self._offset = None
        if found.sites is not None and found.cell is not None:
            self._offset = found.sites.positions(torch.zeros_like(pos), found.cell, found.batch)
        self.searches += 1
        return self.at(pos)

    def at(self, pos: Tensor, cell: Tensor | None = None) -> PairGraph:
        """Return the graph at other positions, without a check whether it is complete there.

        Args:
            pos: Positions in Å, ``(atoms, 3)``.
            cell: Lattice vectors in rows, in Å, ``(systems, 3, 3)``, where they changed since the search.
        """
        graph = self._graph
        assert graph is not None
        if graph.sites is None:
            return graph._replace(pos=pos, site_pos=pos)
        if cell is not None:
            return graph._replace(pos=pos, cell=cell, site_pos=graph.sites.positions(pos, cell, graph.batch))
        assert self._offset is not None
        return graph._replace(pos=pos, site_pos=pos.index_select(0, graph.sites.atom) + self._offset)

    def _lattice(self) -> tuple[Tensor, Tensor]:
        assert self.reference.lattice is not None
        return self.reference.lattice
