"""The training domain of a potential: distances and forces of the structures it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.fragments import COVALENT_RADII, VAN_DER_WAALS_RADII, describe_fragments, find_fragments
from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

MIN_DISTANCE_RATIO = 0.9
"""Default allowed fraction of the shortest distance in training.

Structures of one thermodynamic ensemble stay above it: in GFN2-xTB ethanol at 500 K, the shortest distance in
1,450 frames is at least 0.92 of that in 50 others, 0.96 for 500 (any pair of elements, 20 splits).
"""
UNSEEN_PAIR_DISTANCE = 2.5
"""Shortest allowed distance in Å of two elements without a shortest distance in training.

Atoms at shorter distances are bonded or in contact.
"""
SEPARATION_RATIO = 1.15
"""Allowed multiple of the largest separation of a part of a molecule from the rest in training.

In GFN2-xTB ethanol at 500 K, that of 1,450 frames is at most 1.07 of that in 50 others, 1.04 for 500 (any of
20 splits).
"""
CONTACT_RATIO = 1.2
"""Times the sum of van der Waals radii: atoms that are farther apart do not hold each other."""
SKIN = 0.5  # largest distance beyond its limit, in Å, of a pair in `NearPairs`


@dataclass(frozen=True)
class TrainingDomain:
    """Properties of a training set that a simulation can check at little cost.

    Attributes:
        shortest: Shortest distances in Å by pair of elements, the lower atomic number first,
            ``{(1, 6): 1.02}``, including periodic images. Absent pairs were never near each other.
        largest_force: Largest force on an atom in eV/Å; ``None`` without forces.
        stress: Whether the structures had stresses.
        separation: Largest distance of a part of a molecule from the rest, in sums of covalent radii: 1.2 of
            molecules at 500 K, and more of several molecules in one structure. ``None`` if it is unknown, as
            in files of earlier versions, or no structure was a molecule.
    """

    shortest: Mapping[tuple[int, int], float]
    largest_force: float | None = None
    stress: bool = False
    separation: float | None = None

    def check(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> None:
        """Raise if atoms of a structure are closer than they were in training.

        Args:
            data: One structure with ``z (atoms,)`` and ``pos (atoms, 3)`` in Å; ``cell`` and ``pbc`` if it is
                periodic.
            closest: Allowed fraction of the shortest distance of two elements.

        Raises:
            ValueError: If two atoms are too close; the message has their indices and distance.
        """
        if reasons := self.violations(data, closest):
            raise ValueError(reasons[0])

    def violations(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> dict[int, str]:
        """Return the reasons why structures are outside the domain, by the index of the structure.

        Args:
            data: One structure, or a batch.
            closest: Allowed fraction of the shortest distance of two elements.
        """
        return self.pairs_near_limits(data, closest).violations(data)

    def fragmentation(self, data: Data) -> str | None:
        """Return why a molecule is outside the domain because it fell into fragments, if it did.

        Fragments are parts farther from the rest than in training. Where that distance is unknown, they are
        parts that are not in contact. Periodic structures may consist of any.

        Args:
            data: One structure.
        """
        if "pbc" in data and bool(data.pbc.any()):
            return None
        pos, z = cast(Tensor, data.pos), data.z.cpu()
        if self.separation is None:
            radii, reason = CONTACT_RATIO * VAN_DER_WAALS_RADII[z], "parts of a molecule must be in contact"
        else:
            radii = SEPARATION_RATIO * self.separation * COVALENT_RADII[z]
            reason = (
                f"parts of molecules in training were at most {self.separation:.2f} sums of covalent radii "
                f"apart, and {SEPARATION_RATIO:g} of it is allowed"
            )
        parts = find_fragments(pos, radii)
        return f"{describe_fragments(parts, pos)}; {reason}" if parts.any() else None

    def clearance(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> float:
        """Return the smallest distance of a pair beyond its limit, in Å; negative if one is too close.

        It is at most 0.5. No pair can violate its limit before an atom has moved by half of the clearance.

        Args:
            data: One structure, or a batch.
            closest: Allowed fraction of the shortest distance of two elements.
        """
        near = self.pairs_near_limits(data, closest)
        return min(SKIN, float(near.margin(cast(Tensor, data.pos)).min())) if len(near.limit) else SKIN

    def min_distances(self, closest: float = MIN_DISTANCE_RATIO) -> Tensor:
        """Return the shortest allowed distances in Å by two atomic numbers, shape ``(100, 100)``.

        Args:
            closest: Allowed fraction of the shortest distance of two elements.
        """
        unseen = UNSEEN_PAIR_DISTANCE if self.shortest and closest > 0 else 0.0
        table = torch.full((MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1), unseen, dtype=torch.float64)
        for (a, b), value in self.shortest.items():
            table[a, b] = table[b, a] = closest * value
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the domain as JSON, ``{"shortest": {"1-6": 1.02}, "largest_force": 3.4, …}``."""
        shortest = {f"{a}-{b}": value for (a, b), value in self.shortest.items()}
        values = {name: getattr(self, name) for name in ("largest_force", "stress", "separation")}
        return {"shortest": shortest, **values}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TrainingDomain:
        """Build a domain from the result of :meth:`to_json`.

        Args:
            entry: Result of :meth:`to_json`, also after a round trip through JSON.

        Raises:
            ValueError: If a distance or an atomic number is out of range.
            AttributeError, KeyError, TypeError: If the entry has another structure.
        """
        shortest = {}
        for names, value in entry["shortest"].items():
            a, b = map(int, names.split("-"))
            shortest[a, b] = float(value)
            if not (min(a, b) >= 0 and max(a, b) <= MAX_ATOMIC_NUMBER and 0 <= shortest[a, b] < math.inf):
                raise ValueError(
                    f"`shortest` must map pairs of elements to distances in Å, got {names}: {value}"
                )
        force, separation = entry["largest_force"], entry.get("separation")  # absent in earlier versions
        force, separation = (None if value is None else float(value) for value in (force, separation))
        if separation is not None and not 0 <= separation < math.inf:
            raise ValueError(f"`separation` must be in sums of covalent radii, got {separation}")
        return cls(shortest, force, bool(entry["stress"]), separation)

    @classmethod
    def intersection(cls, domains: Sequence[TrainingDomain | None]) -> TrainingDomain | None:
        """Return the domain that several potentials share; ``None`` if one is unknown.

        Args:
            domains: Domains of the potentials, ``None`` for an unknown one.
        """
        known = [domain for domain in domains if domain is not None]
        if not known or len(known) < len(domains):
            return None
        pairs = set(known[0].shortest).intersection(*(domain.shortest for domain in known))
        forces = [domain.largest_force for domain in known if domain.largest_force is not None]
        separations = [domain.separation for domain in known if domain.separation is not None]
        return cls(
            {pair: max(domain.shortest[pair] for domain in known) for pair in sorted(pairs)},
            min(forces) if len(forces) == len(known) else None,
            all(domain.stress for domain in known),
            min(separations) if len(separations) == len(known) else None,
        )

    def pairs_near_limits(
        self, data: Data, closest: float = MIN_DISTANCE_RATIO, skin: float = SKIN
    ) -> NearPairs:
        """Find the pairs of atoms less than a distance beyond their limits.

        Args:
            data: One structure, or a batch.
            closest: Allowed fraction of the shortest distance of two elements.
            skin: The distance in Å.
        """
        z, pos = data.z, cast(Tensor, data.pos)
        table = self.min_distances(closest).to(pos.device)
        elements = z.unique()
        farthest = float(table[elements][:, elements].max())
        if farthest == 0:
            return NearPairs(z.new_empty(2, 0), pos.new_empty(0, 3), pos.new_empty(0), closest)
        batch = data.get("batch")
        edges, shift = neighbor_list(pos, farthest + skin, batch, data.get("cell"), data.get("pbc"))
        source, target = edges
        offset = torch.zeros_like(pos[source])
        if "cell" in data:
            lattice = data.cell.view(-1, 3, 3).to(pos.dtype)
            cell = lattice[0] if batch is None else lattice[batch[source]]
            offset = (shift.to(pos.dtype)[:, None] @ cell).squeeze(1)
        return NearPairs(edges, offset, table[z[source], z[target]], closest)


@dataclass(frozen=True)
class NearPairs:
    """Pairs of atoms near their limits; complete until an atom moves by half the skin or a cell changes.

    Attributes:
        edges: Source and target of each pair, in both directions, shape ``(2, edges)``.
        offset: Displacement of the image of the source in Å, shape ``(edges, 3)``.
        limit: Shortest allowed distance in Å, shape ``(edges,)``.
        closest: Limit as a fraction of the shortest distance in training.
    """

    edges: Tensor
    offset: Tensor
    limit: Tensor
    closest: float

    def margin(self, pos: Tensor) -> Tensor:
        """Compute distances minus their limits in Å, shape ``(edges,)``; negative if atoms are too close.

        Args:
            pos: Positions in Å, shape ``(atoms, 3)``.
        """
        source, target = self.edges
        return (pos[source] - pos[target] + self.offset).norm(dim=1) - self.limit

    def are_apart(self, pos: Tensor) -> Tensor:
        """Return whether no atoms are too close, ``()``, without reading it.

        Args:
            pos: Positions in Å, shape ``(atoms, 3)``.
        """
        source, target = pos.index_select(0, self.edges.flatten()).view(2, -1, 3)
        return ((source - target + self.offset).norm(dim=1) >= self.limit).all()  # false for NaN

    def violations(self, data: Data) -> dict[int, str]:
        """Return a description of the closest forbidden pair, by the index of the structure.

        Args:
            data: The structure or batch of the pairs, with its present positions.
        """
        margin = self.margin(cast(Tensor, data.pos))
        close = (margin < 0).nonzero().flatten()
        if len(close) == 0:
            return {}
        batch = data.get("batch")
        batch = torch.zeros_like(data.z) if batch is None else batch
        structure, reasons = batch[self.edges[0, close]], {}
        for index in structure.unique().tolist():
            own = close[structure == index]
            worst = own[margin[own].argmin()]
            limit, first = float(self.limit[worst]), int((batch < index).sum())
            i, j = sorted(self.edges[:, worst].tolist())
            reason = (
                "such atoms were never near each other in training"
                if limit == UNSEEN_PAIR_DISTANCE
                else f"the shortest such distance in training was {limit / self.closest:.3f} Å, and "
                f"{self.closest:g} of it is allowed"
            )
            reasons[index] = (
                f"atoms {i - first} and {j - first} (atomic numbers {int(data.z[i])} and {int(data.z[j])}) "
                f"are {limit + float(margin[worst]):.3f} Å apart; {reason}"
            )
        return reasons
