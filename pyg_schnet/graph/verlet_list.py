"""Verlet lists: neighbors a little beyond the cutoff, valid for many steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.sites import Sites, find_sites


class Reference(NamedTuple):
    """Positions and lattices of systems when their neighbors were searched.

    Attributes:
        pos: Positions in Å, ``(atoms, 3)``.
        lattice: Lattice vectors, ``(systems, 3, 3)``, and which are periodic; ``None`` without a lattice.
    """

    pos: Tensor
    lattice: tuple[Tensor, Tensor] | None

    @classmethod
    def copy_of(cls, pos: Tensor, lattice: tuple[Tensor, Tensor] | None) -> Reference:
        """Return copies, which do not change with the system."""
        return cls(pos.clone(), None if lattice is None else (lattice[0].clone(), lattice[1].clone()))

    def is_near(
        self,
        pos: Tensor,
        batch: Tensor | None,
        lattice: tuple[Tensor, Tensor] | None,
        cutoff: float,
        skin: float,
    ) -> bool:
        """Return whether all pairs within the cutoff were within cutoff and skin; false for NaN."""
        old = self.lattice
        if skin == 0 or pos.shape != self.pos.shape or (lattice is None) != (old is None):
            return False
        if lattice is None or old is None:
            return _has_moved_little(pos - self.pos, skin)
        if lattice[0].shape != old[0].shape or not torch.equal(lattice[1], old[1]):
            return False
        if torch.equal(lattice[0], old[0]):
            return _has_moved_little(pos - self.pos, skin)
        return _is_deformed_little(self.pos, pos, batch, lattice[0], old[0], lattice[1], cutoff, skin)


def lattice_of(fields: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Return lattice vectors, ``(systems, 3, 3)``, and which are periodic; ``None`` without a lattice."""
    if "pbc" not in fields:
        return None
    return fields["cell"].view(-1, 3, 3), fields["pbc"].view(-1, 3)


class _Search(NamedTuple):
    """The systems that were searched, and the neighbors found."""

    reference: Reference
    found: dict[str, Tensor | Sites]


class VerletList:
    r"""Neighbors of several systems, searched again only when some may be missing.

    A pair at :math:`\mathbf r` was listed if :math:`|\mathbf r| < r_c + s`. Since then the lattice was
    deformed by :math:`D = A_0^{-1} A`, and atoms moved by at most :math:`u` beside it. A pair that is now
    within the cutoff was within :math:`(r_c + 2u) \, \| D^{-1} \|`, and is listed as long as that is less
    than :math:`r_c + s`. Strained cells, barostats, wrapped atoms and atoms that change places need no rule
    of their own. All systems are searched when one needs it.

    Args:
        cutoff: :math:`r_c` in Å.
        skin: :math:`s` in Å; with 0, neighbors are searched at each call.

    Attributes:
        searches: Number of searches so far.

    Raises:
        ValueError: If the skin is negative.

    Source:
        Verlet, Phys. Rev. 159, 98 (1967).
    """

    def __init__(self, cutoff: float, skin: float):
        if not 0 <= skin < float("inf"):
            raise ValueError(f"`skin` must be at least 0 and in Å, got {skin}")
        self.cutoff, self.skin = cutoff, skin
        self.searches = 0
        self._last: _Search | None = None  # replaced as a whole

    def add_to(self, data: Data) -> None:
        """Set ``edge_index`` of systems and, if they are periodic, ``shift`` and ``sites``.

        ``sites`` are left out if an edge lacks its reverse.

        Args:
            data: One system or several, with ``pos`` and, where there is a lattice, ``cell`` and ``pbc``;
                ``batch`` stays the same from call to call.
        """
        fields = data.to_dict()  # once: each attribute of data costs some µs
        pos, batch = fields["pos"], fields.get("batch")
        lattice = lattice_of(fields)
        last = self._last
        if last is None or not last.reference.is_near(pos, batch, lattice, self.cutoff, self.skin):
            last = self._last = self._search(pos, batch, lattice)
            self.searches += 1
        if "sites" in fields and "sites" not in last.found:
            del data.sites  # of an earlier search
        data.update(last.found)

    def _search(self, pos: Tensor, batch: Tensor | None, lattice: tuple[Tensor, Tensor] | None) -> _Search:
        cell, pbc = lattice or (None, None)
        edge_index, shift = neighbor_list(pos, self.cutoff + self.skin, batch, cell, pbc)
        found: dict[str, Tensor | Sites] = {"edge_index": edge_index}
        if lattice is not None:
            found["shift"] = shift
            number = edge_index.new_zeros(len(pos)) if batch is None else batch
            if (sites := find_sites(edge_index, shift, number)) is not None:
                found["sites"] = sites
        return _Search(Reference.copy_of(pos, lattice), found)


def _has_moved_little(moved: Tensor, skin: float) -> bool:
    if len(moved) == 0:
        return True
    return float(moved.square().sum(dim=1).amax()) < (skin / 2) ** 2  # false for NaN


def _is_deformed_little(
    before: Tensor,
    pos: Tensor,
    batch: Tensor | None,
    cell: Tensor,
    old: Tensor,
    pbc: Tensor,
    cutoff: float,
    skin: float,
) -> bool:
    if not bool(pbc.all()) or not bool((cell.det().abs() > 0).all()):
        return False  # open directions may have no lattice vector that defines a deformation
    batch = torch.zeros_like(pos[:, 0], dtype=torch.long) if batch is None else batch
    own = torch.linalg.solve(old, cell).index_select(0, batch)
    length = (pos - (before[:, None] @ own).squeeze(1)).square().sum(dim=1).sqrt()
    farthest = length.new_zeros(len(cell)).scatter_reduce(0, batch, length, "amax")
    stretch = torch.linalg.matrix_norm(torch.linalg.solve(cell, old), ord=2)
    return bool(((cutoff + 2 * farthest) * stretch < cutoff + skin).all())  # false for NaN
