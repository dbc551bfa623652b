"""Bonds: how far they may be stretched before the energy falls into a hole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.result import FAIL, LIMIT, SKIP, CheckResult
from pyg_schnet.checks.samples import Samples, moved

_STRETCHES = torch.linspace(0.6, 2.0, 57, dtype=torch.float64)  # of a bond's length
_ORIGIN = int((_STRETCHES - 1).abs().argmin())  # the structure as it is
_BARRIER = 0.4  # eV; 15 times the thermal energy of 300 K: one in five million vibrations has it
_FALL = 0.1  # eV; by which the energy must fall for a hole
_COLLAPSE = 3.0  # eV; no untrained network falls so far along a bond, in units of its output
_QUARTER = 0.25  # of a bond's length; changing it by that costs an eV or more
_HOLD = 0.9  # of the bonds; all of them where a network is trained, about a third where it is not
_ATOMS = 800  # in all bonds of a kind that are tried in a structure: each costs 57 energies
_BOND = 1.25  # of the sum of the covalent radii


def check_bonds(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Stretch and compress bonds of each kind: how high does the energy rise before it falls into a hole?"""
    found: dict[tuple[int, ...], tuple[float, float, bool]] = {}
    held: list[bool] = []
    deepest = 0.0
    for data in samples.molecules:
        bonds, tried = _bonds(data), max(1, _ATOMS // len(data.z))
        for kind, own in _kinds(data, bonds).items():
            for place in torch.randperm(len(own), generator=samples.generator)[:tried].tolist():
                scan = _scan(subject, data, bonds, *own[place])
                held.append(scan.holds)
                deepest = max(deepest, scan.fall)
                barrier = scan.barrier()
                if math.isfinite(barrier[0]):
                    found[kind] = min(found.get(kind, barrier), barrier)
    if not found:
        yield CheckResult("bonds", "", SKIP, note="there are no bonds of molecules")
        return
    kind = min(found, key=lambda each: found[each][0])
    barrier, where, falls = found[kind]
    name = "–".join(chemical_symbols[z] for z in kind)
    what = (
        f"beyond {where:.2f} Å {name} is drawn into a hole"
        if falls
        else f"{where:.2f} Å of {name} cost no more"
    )
    note = f"{what}; train on such structures, or run colder"
    finding = CheckResult.measured("bonds", "barrier", barrier, _BARRIER, "eV", note, at_least=True)
    if finding.verdict == FAIL and sum(held) < _HOLD * len(held) and deepest < _COLLAPSE:
        note = (
            f"{sum(held)} of {len(held)} bonds cost energy when they are stretched and compressed by a "
            "quarter, as of a network that is not trained"
        )
        finding = replace(finding, verdict=LIMIT, note=note)
    yield finding


def _bonds(data: Data) -> list[tuple[int, int]]:
    """Find atoms at about the sum of their covalent radii."""
    return [(i, j) for i, j in _near(data).nonzero().tolist() if i < j]


def _near(data: Data) -> Tensor:
    """Return which atoms are at about the sum of their covalent radii, ``(atoms, atoms)``."""
    pos = cast(Tensor, data.pos)
    radii = torch.tensor([covalent_radii[z] for z in data.z.tolist()])
    return torch.cdist(pos, pos) < _BOND * (radii[:, None] + radii[None, :])


def _kinds(data: Data, bonds: list[tuple[int, int]]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Sort bonds by their elements."""
    kinds: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, j in bonds:
        kinds.setdefault(tuple(sorted((int(data.z[i]), int(data.z[j])))), []).append((i, j))
    return kinds


@dataclass(frozen=True)
class _Scan:
    """Energies along a bond.

    Attributes:
        energies: In eV, at ``_STRETCHES``.
        length: Of the bond in the structure, in Å.
        usable: Range of stretches at which no atoms meet that were not bonded: beyond, there is another bond.
    """

    energies: Tensor
    length: float
    usable: range

    @property
    def fall(self) -> float:
        """How far the energy falls below that of the structure, in eV."""
        return float(self.energies[_ORIGIN] - self.energies.min())

    @property
    def holds(self) -> bool:
        """Whether the energy is higher where the bond is a quarter longer, and a quarter shorter."""
        here = self.energies[_ORIGIN]
        return all(bool(self.energies[_place(1 + sign * _QUARTER)] > here) for sign in (-1, 1))

    def barrier(self) -> tuple[float, float, bool]:
        """Return how high the energy rises in eV, up to which length of the bond in Å, and if it falls then.

        It is infinite where atoms meet before the energy falls.
        """
        energies, lowest = self.energies, _first_minimum(self.energies)
        barriers = []
        for way, end in (
            (range(lowest, len(energies)), self.usable.stop - 1),
            (range(lowest, -1, -1), self.usable.start),
        ):
            seen = [k for k in way if k in self.usable]
            if not seen:
                continue
            along = energies[seen] - energies[lowest]
            highest = along.cummax(0)
            holes = (highest.values - along > _FALL).nonzero().flatten()
            if not len(holes) and end not in (0, len(energies) - 1):
                continue
            last = int(holes[0]) if len(holes) else len(along) - 1
            top = int(highest.indices[last])
            barriers.append((float(along[top]), float(_STRETCHES[seen[top]]) * self.length, len(holes) > 0))
        return min(barriers, default=(math.inf, 0.0, False))


def _scan(subject: ModelAdapter, data: Data, bonds: list[tuple[int, int]], i: int, j: int) -> _Scan:
    """Compute the energies along a bond, all atoms on one side of it moved."""
    pos = cast(Tensor, data.pos)
    side = _side(bonds, len(pos), i, j)
    bond = pos[j] - pos[i]
    there = [moved(data, pos + (stretch - 1) * side[:, None] * bond) for stretch in _STRETCHES.tolist()]
    apart = (side[:, None] != side[None, :]) & ~_near(data)
    met = [bool((_near(one) & apart).any()) for one in there]
    first = max((k + 1 for k in range(_ORIGIN) if met[k]), default=0)
    last = min((k for k in range(_ORIGIN, len(met)) if met[k]), default=len(met))
    return _Scan(subject.exact(there).energy, float(bond.norm()), range(first, last))


def _first_minimum(energies: Tensor) -> int:
    """Walk downhill from the structure's own length."""
    place = _ORIGIN
    while True:
        near = range(max(place - 1, 0), min(place + 2, len(energies)))
        lowest = min(near, key=lambda k: float(energies[k]))
        if lowest == place:
            return place
        place = lowest


def _place(stretch: float) -> int:
    return int((_STRETCHES - stretch).abs().argmin())


def _side(bonds: list[tuple[int, int]], atoms: int, i: int, j: int) -> Tensor:
    """Say which atoms are on the side of ``j`` when the bond is cut; only ``j`` where a ring holds them."""
    found, new = {j}, [j]
    while new:
        atom = new.pop()
        for bond in bonds:
            if atom in bond and set(bond) != {i, j}:
                other = bond[0] if bond[1] == atom else bond[1]
                if other not in found:
                    found.add(other)
                    new.append(other)
    side = torch.zeros(atoms, dtype=torch.float64)
    side[[j] if i in found else sorted(found)] = 1
    return side


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {"bonds": check_bonds}
