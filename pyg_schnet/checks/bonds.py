"""Bond scans: the energy barrier before the potential falls into an unphysical minimum."""

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
from pyg_schnet.checks.samples import Samples, with_positions

_STRETCHES = torch.linspace(0.6, 2.0, 57, dtype=torch.float64)  # of a bond's length
_ORIGIN = int((_STRETCHES - 1).abs().argmin())  # the structure as it is
_BARRIER = 0.4  # eV; 15 times the thermal energy at 300 K: one in five million vibrations reaches it
_FALL = 0.1  # eV; depth at least of an unphysical minimum
_COLLAPSE = 3.0  # eV; no untrained network falls so far along a bond, in units of its output
_QUARTER = 0.25  # of a bond's length; such a change costs an eV or more
_TRAINED = 0.9  # of the bonds are stable; all of them in a trained network, a third in an untrained one
_ATOMS = 800  # computed for the bonds of a kind in a structure, each of which costs 57 energies
_BOND = 1.25  # of the sum of the covalent radii


def check_bonds(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Stretch and compress bonds of each kind and measure the barrier before an unphysical minimum."""
    found: dict[tuple[int, ...], tuple[float, float, bool]] = {}
    held: list[bool] = []
    deepest = 0.0
    for data in samples.molecules:
        bonds, tried = _bonds(data), max(1, _ATOMS // len(data.z))
        for kind, own in _kinds(data, bonds).items():
            for number in torch.randperm(len(own), generator=samples.generator)[:tried].tolist():
                scan = _scan(adapter, data, bonds, *own[number])
                held.append(scan.is_stable)
                deepest = max(deepest, scan.fall)
                barrier = scan.barrier()
                if math.isfinite(barrier[0]):
                    found[kind] = min(found.get(kind, barrier), barrier)
    if not found:
        yield CheckResult("bonds", "", SKIP, note="there are no molecules with bonds")
        return
    kind = min(found, key=lambda each: found[each][0])
    barrier, where, falls = found[kind]
    name = "–".join(chemical_symbols[z] for z in kind)
    what = (
        f"beyond {where:.2f} Å the energy of {name} falls into an unphysical minimum"
        if falls
        else f"stretching {name} to {where:.2f} Å costs no more energy"
    )
    note = f"{what}; train on such structures, or run at lower temperature"
    finding = CheckResult.measured("bonds", "barrier", barrier, _BARRIER, "eV", note, at_least=True)
    if finding.verdict == FAIL and sum(held) < _TRAINED * len(held) and deepest < _COLLAPSE:
        note = (
            f"only {sum(held)} of {len(held)} bonds are stable against stretching and compression by a "
            "quarter, as in a network that is not trained"
        )
        finding = replace(finding, verdict=LIMIT, note=note)
    yield finding


def _bonds(data: Data) -> list[tuple[int, int]]:
    """Return pairs of bonded atoms, by the sum of their covalent radii."""
    return [(i, j) for i, j in _near(data).nonzero().tolist() if i < j]


def _near(data: Data) -> Tensor:
    """Return which atoms are within 1.25 times the sum of their covalent radii, ``(atoms, atoms)``."""
    pos = cast(Tensor, data.pos)
    radii = torch.tensor([covalent_radii[z] for z in data.z.tolist()])
    return torch.cdist(pos, pos) < _BOND * (radii[:, None] + radii[None, :])


def _kinds(data: Data, bonds: list[tuple[int, int]]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Group bonds by their elements."""
    kinds: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, j in bonds:
        kinds.setdefault(tuple(sorted((int(data.z[i]), int(data.z[j])))), []).append((i, j))
    return kinds


@dataclass(frozen=True)
class _BondScan:
    """Energies along a bond.

    Attributes:
        energies: Energies at ``_STRETCHES``, in eV.
        length: Length of the bond in the structure, in Å.
        usable: Range of stretches at which no new bonds form.
    """

    energies: Tensor
    length: float
    usable: range

    @property
    def fall(self) -> float:
        """Largest decrease below the energy of the structure, in eV."""
        return float(self.energies[_ORIGIN] - self.energies.min())

    @property
    def is_stable(self) -> bool:
        """Whether the energy increases if the bond is a quarter longer, and if it is a quarter shorter."""
        here = self.energies[_ORIGIN]
        return all(bool(self.energies[_index(1 + sign * _QUARTER)] > here) for sign in (-1, 1))

    def barrier(self) -> tuple[float, float, bool]:
        """Return the barrier in eV, the bond length at its top in Å, and whether a minimum follows.

        The barrier is infinite if atoms form new bonds before the energy falls.
        """
        energies, lowest = self.energies, _first_minimum(self.energies)
        barriers = []
        for direction, end in (
            (range(lowest, len(energies)), self.usable.stop - 1),
            (range(lowest, -1, -1), self.usable.start),
        ):
            inside = [k for k in direction if k in self.usable]
            if not inside:
                continue
            along = energies[inside] - energies[lowest]
            highest = along.cummax(0)
            minima = (highest.values - along > _FALL).nonzero().flatten()
            if not len(minima) and end not in (0, len(energies) - 1):
                continue
            last = int(minima[0]) if len(minima) else len(along) - 1
            top = int(highest.indices[last])
            barriers.append(
                (float(along[top]), float(_STRETCHES[inside[top]]) * self.length, len(minima) > 0)
            )
        return min(barriers, default=(math.inf, 0.0, False))


def _scan(adapter: ModelAdapter, data: Data, bonds: list[tuple[int, int]], i: int, j: int) -> _BondScan:
    """Compute the energies along a bond; all atoms on one side of it move."""
    pos = cast(Tensor, data.pos)
    side = _side(bonds, len(pos), i, j)
    bond = pos[j] - pos[i]
    scan = [
        with_positions(data, pos + (stretch - 1) * side[:, None] * bond) for stretch in _STRETCHES.tolist()
    ]
    apart = (side[:, None] != side[None, :]) & ~_near(data)
    met = [bool((_near(one) & apart).any()) for one in scan]
    first = max((k + 1 for k in range(_ORIGIN) if met[k]), default=0)
    last = min((k for k in range(_ORIGIN, len(met)) if met[k]), default=len(met))
    return _BondScan(adapter.compute_exact(scan).energy, float(bond.norm()), range(first, last))


def _first_minimum(energies: Tensor) -> int:
    """Return the index of the minimum that is reached downhill from the length in the structure."""
    place = _ORIGIN
    while True:
        near = range(max(place - 1, 0), min(place + 2, len(energies)))
        lowest = min(near, key=lambda k: float(energies[k]))
        if lowest == place:
            return place
        place = lowest


def _index(stretch: float) -> int:
    return int((_STRETCHES - stretch).abs().argmin())


def _side(bonds: list[tuple[int, int]], atoms: int, i: int, j: int) -> Tensor:
    """Return 1 for the atoms on the side of ``j`` if the bond is cut, otherwise 0; only ``j`` in a ring."""
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
