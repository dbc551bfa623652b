"""The domain of a potential: the distances and the forces that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

MIN_DISTANCE_RATIO = 0.9
"""How close, of the shortest distance in training, atoms may come where nobody says otherwise.

Structures of one ensemble stay above it: of GFN2-xTB ethanol at 500 K the shortest distance of 1,450 frames
is at least 0.92 of that in 50 others, 0.96 from 500 on (any pair of elements, 20 splits).
"""
UNSEEN_PAIR_DISTANCE = 2.5
"""Å; elements that are nearer are bound, or in contact, and were so in training if they ever met."""
SKIN = 0.5  # Å; how much beyond the limits distances are looked at, which says when to look again


@dataclass(frozen=True)
class TrainingDomain:
    """What a potential was trained on, as far as it is cheap to compare with in a simulation.

    Attributes:
        shortest: Shortest distances in Å by elements, the lower atomic number first, ``{(1, 6): 1.02}``;
            periodic images count. Elements that are not there never met.
        largest_force: On an atom, in eV/Å; ``None`` if there were no forces.
        stress: Whether there were stresses.
    """

    shortest: Mapping[tuple[int, int], float]
    largest_force: float | None = None
    stress: bool = False

    def check(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> None:
        """Refuse a structure whose atoms are closer than they were in training.

        Args:
            data: One structure, with ``z`` and ``pos``; ``cell`` and ``pbc`` where there are any.
            closest: The part of the shortest distance of two elements that is allowed.

        Raises:
            ValueError: With the two atoms.
        """
        if reasons := self.breaches(data, closest):
            raise ValueError(reasons[0])

    def breaches(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> dict[int, str]:
        """Say which structures have atoms that are closer than they were in training, and which.

        Args:
            data: One structure, or a batch.
            closest: As for :meth:`check`.

        Returns:
            What is wrong, by the number of the structure.
        """
        return self.near(data, closest).breaches(data)

    def room(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> float:
        """Tell how much every two atoms may approach each other, in Å and at most 0.5; negative if too close.

        As long as no atom moves by half of it, there is nothing to refuse.
        """
        near = self.near(data, closest)
        return min(SKIN, float(near.spare(cast(Tensor, data.pos)).min())) if len(near.limit) else SKIN

    def limits(self, closest: float = MIN_DISTANCE_RATIO) -> Tensor:
        """Give allowed distances by two atomic numbers, ``(100, 100)``; of elements that never met, 2.5 Å."""
        strangers = UNSEEN_PAIR_DISTANCE if self.shortest and closest > 0 else 0.0
        table = torch.full((MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1), strangers, dtype=torch.float64)
        for (a, b), value in self.shortest.items():
            table[a, b] = table[b, a] = closest * value
        return table

    def to_json(self) -> dict[str, Any]:
        """Give what :meth:`from_json` reads, ``{"shortest": {"1-6": 1.02}, "largest_force": 3.4, …}``."""
        shortest = {f"{a}-{b}": value for (a, b), value in self.shortest.items()}
        return {"shortest": shortest, "largest_force": self.largest_force, "stress": self.stress}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TrainingDomain:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: If a distance is none, or of no elements; other errors where it gave something else.
        """
        shortest = {}
        for names, value in entry["shortest"].items():
            a, b = map(int, names.split("-"))
            shortest[a, b] = float(value)
            if not (min(a, b) >= 0 and max(a, b) <= MAX_ATOMIC_NUMBER and 0 <= shortest[a, b] < math.inf):
                raise ValueError(f"`shortest` must hold distances of elements in Å, got {value} for {names}")
        force = entry["largest_force"]
        return cls(shortest, None if force is None else float(force), bool(entry["stress"]))

    @classmethod
    def intersection(cls, domains: Sequence[TrainingDomain | None]) -> TrainingDomain | None:
        """Give what all of several potentials were trained on; nothing is known if it is not of one."""
        known = [domain for domain in domains if domain is not None]
        if not known or len(known) < len(domains):
            return None
        pairs = set(known[0].shortest).intersection(*(domain.shortest for domain in known))
        forces = [domain.largest_force for domain in known if domain.largest_force is not None]
        return cls(
            {pair: max(domain.shortest[pair] for domain in known) for pair in sorted(pairs)},
            min(forces) if len(forces) == len(known) else None,
            all(domain.stress for domain in known),
        )

    def near(self, data: Data, closest: float = MIN_DISTANCE_RATIO) -> NearPairs:
        """Find the pairs of atoms that are not yet 0.5 Å beyond their limits.

        Args:
            data: One structure, or a batch.
            closest: As for :meth:`check`.
        """
        z, pos = data.z, cast(Tensor, data.pos)
        table = self.limits(closest).to(pos.device)
        own = z.unique()
        farthest = float(table[own][:, own].max())
        if farthest == 0:
            return NearPairs(z.new_empty(2, 0), pos.new_empty(0, 3), pos.new_empty(0), closest)
        batch = data.get("batch")
        edges, shift = neighbor_list(pos, farthest + SKIN, batch, data.get("cell"), data.get("pbc"))
        source, target = edges
        moved = torch.zeros_like(pos[source])
        if "cell" in data:
            lattice = data.cell.view(-1, 3, 3).to(pos.dtype)
            own = lattice[0] if batch is None else lattice[batch[source]]
            moved = (shift.to(pos.dtype)[:, None] @ own).squeeze(1)
        return NearPairs(edges, moved, table[z[source], z[target]], closest)


@dataclass(frozen=True)
class NearPairs:
    """Pairs of atoms near their limits; good as long as no atom moves by 0.25 Å and no cell changes.

    Attributes:
        pairs: ``(2, pairs)``, both ways.
        moved: Where the cells of the first are, in Å, ``(pairs, 3)``.
        limit: The shortest distances allowed, in Å, ``(pairs,)``.
        closest: What part they are of those in training.
    """

    pairs: Tensor
    moved: Tensor
    limit: Tensor
    closest: float

    def spare(self, pos: Tensor) -> Tensor:
        """Tell how much each pair is beyond its limit, in Å, ``(pairs,)``."""
        source, target = self.pairs
        return (pos[source] - pos[target] + self.moved).norm(dim=1) - self.limit

    def breaches(self, data: Data) -> dict[int, str]:
        """Say which structures have atoms that are too close, and which, by the structure's number."""
        spare = self.spare(cast(Tensor, data.pos))
        close = (spare < 0).nonzero().flatten()
        if len(close) == 0:
            return {}
        batch = data.get("batch")
        batch = torch.zeros_like(data.z) if batch is None else batch
        structure, found = batch[self.pairs[0, close]], {}
        for number in structure.unique().tolist():
            own = close[structure == number]
            worst = own[spare[own].argmin()]
            limit, first = float(self.limit[worst]), int((batch < number).sum())
            i, j = sorted(self.pairs[:, worst].tolist())
            found[number] = (
                f"atoms {i - first} and {j - first} (atomic numbers {int(data.z[i])} and {int(data.z[j])}) "
                f"are {limit + float(spare[worst]):.3f} Å apart; "
            )
            found[number] += (
                "no two such atoms met in training"
                if limit == UNSEEN_PAIR_DISTANCE
                else f"the shortest such distance in training was {limit / self.closest:.3f} Å, and "
                f"{self.closest:g} of it is allowed"
            )
        return found
