"""Verlet's list: neighbors a little beyond the cutoff, good for many steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.images import find_images
from pyg_schnet.neighbors import neighbor_list


class VerletList:
    r"""Neighbors of one periodic system, searched again only when some may be missing.

    A pair at :math:`\mathbf r` was listed if :math:`|\mathbf r| < r_c + s`. Since then the lattice was
    deformed by :math:`D = A_0^{-1} A`, and atoms moved by at most :math:`u` beside it. A pair that is now
    within the cutoff was within :math:`(r_c + 2u) \, \| D^{-1} \|`, and is listed as long as that is less
    than :math:`r_c + s`. Strained cells, barostats, wrapped atoms and atoms that change places need no rule
    of their own.

    Args:
        cutoff: :math:`r_c` in Å.
        skin: :math:`s` in Å; with 0 each structure is searched anew.

    Attributes:
        searches: How many there were.

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
        self._pos = torch.empty(0, 3)
        self._cell = torch.empty(3, 3)
        self._pbc = torch.empty(3, dtype=torch.bool)
        self._found: dict[str, object] = {}

    def add_to(self, data: Data) -> None:
        """Give a system its ``edge_index``, ``shift`` and, where each edge has its reverse, ``images``.

        Args:
            data: One system, with ``pos``, ``cell`` and ``pbc``.
        """
        pos, cell, pbc = data.pos, data.cell.view(3, 3), data.pbc.view(3)
        assert pos is not None
        if not self._holds(pos, cell, pbc):
            edge_index, shift = neighbor_list(pos, self.cutoff + self.skin, None, cell, pbc)
            images = find_images(edge_index, shift, torch.zeros_like(data.z))
            self._found = {"edge_index": edge_index, "shift": shift, "images": images}
            # Last: a search that fails leaves nothing that would pass for its result.
            self._pos, self._cell, self._pbc = pos.clone(), cell.clone(), pbc.clone()
            self.searches += 1
        data.update({name: value for name, value in self._found.items() if value is not None})

    def _holds(self, pos: Tensor, cell: Tensor, pbc: Tensor) -> bool:
        if self.skin == 0 or pos.shape != self._pos.shape or not torch.equal(pbc, self._pbc):
            return False
        moved, stretch = pos - self._pos, 1.0
        if not torch.equal(cell, self._cell):
            if not bool(pbc.all()) or not bool(cell.det().abs() > 0):
                return False  # open directions may have no lattice vector to tell a deformation by
            back = torch.linalg.solve(cell, self._cell)
            moved = pos - self._pos @ torch.linalg.solve(self._cell, cell)
            stretch = float(torch.linalg.matrix_norm(back, ord=2))
        farthest = float(torch.linalg.vector_norm(moved, dim=1).amax()) if len(pos) else 0.0
        return (self.cutoff + 2 * farthest) * stretch < self.cutoff + self.skin  # false for NaN
