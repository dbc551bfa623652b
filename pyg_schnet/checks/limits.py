"""Limits: what is far apart, stretched, or made of something else than in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.checks.answers import ModelError, NotFinite
from pyg_schnet.checks.finding import FAIL, LIMIT, PASS, SKIP, Finding
from pyg_schnet.checks.samples import Samples, diameter, is_periodic, moved
from pyg_schnet.checks.subject import Subject

_FAR = 100.0  # Å; SchNet's Gaussians end at 30
_STRETCHES = torch.linspace(0.6, 2.0, 57, dtype=torch.float64)  # of a bond's length
_BARRIER = 0.4  # eV; 15 times the thermal energy of 300 K: one in five million vibrations has it
_FALL = 0.1  # eV; by which the energy must fall for a hole
_FOREIGN = (2, 10, 18, 36, 54)  # noble gases, which hardly any training set holds, and no molecule
_ATOMS = 800  # in all bonds of a kind that are tried in a structure: each costs 57 energies
_BOND = 1.25  # of the sum of the covalent radii


def check_extensivity(subject: Subject, samples: Samples) -> Iterator[Finding]:
    """Add up: two copies far apart have twice the energy, and two cells of a crystal that of one each."""
    worst = largest = 0.0
    for data in samples.structures:
        pos = cast(Tensor, data.pos)
        if is_periodic(data):
            shift, cell = data.cell[0, 0], data.cell * torch.tensor([[2.0], [1], [1]])
            if not bool(data.pbc[0, 0]):
                shift, cell = torch.tensor([_FAR, 0, 0], dtype=torch.float64), data.cell
        else:
            far = diameter(pos) + (_FAR if subject.cutoff is None else subject.cutoff + 1)
            shift, cell = torch.tensor([far, 0, 0], dtype=torch.float64), None
        both = moved(data, torch.cat([pos, pos + shift]), data.z.repeat(2), cell)
        one, two = (float(subject.exact([each]).energy[0]) for each in (data, both))
        worst, largest = max(worst, abs(two - 2 * one) / len(data.z)), max(largest, abs(two))
    bound = subject.tolerance.energy + subject.tolerance.relative * largest
    note = "what is far apart must add up; is there a cutoff, or are all pairs connected?"
    finding = Finding.measured("extensivity", "energy", worst, bound, "eV/atom", note)
    if finding.verdict == FAIL and subject.connects_all:
        note = (
            "without a cutoff all atoms see each other: for one molecule; train with model.cutoff for several"
        )
        finding = Finding("extensivity", "energy", LIMIT, worst, bound, "eV/atom", note)
    yield finding


def check_bonds(subject: Subject, samples: Samples) -> Iterator[Finding]:
    """Stretch and compress bonds of each kind: how high does the energy rise before it falls into a hole?"""
    found: dict[tuple[int, ...], tuple[float, float, bool]] = {}
    for data in samples.molecules:
        bonds, tried = _bonds(data), max(1, _ATOMS // len(data.z))
        for kind, own in _kinds(data, bonds).items():
            for place in torch.randperm(len(own), generator=samples.generator)[:tried].tolist():
                barrier = _barrier(subject, data, bonds, *own[place])
                found[kind] = min(found.get(kind, barrier), barrier)
    if not found:
        yield Finding("bonds", "", SKIP, note="there are no bonds of molecules")
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
    yield Finding.measured("bonds", "barrier", barrier, _BARRIER, "eV", note, at_least=True)


def check_elements(subject: Subject, samples: Samples) -> Iterator[Finding]:
    """Put an element in that training had not: it must be refused, not guessed."""
    data = samples.structures[0]
    known = set(samples.elements if subject.elements is None else subject.elements)
    accepted = []
    tried = [z for z in _FOREIGN if z not in known]
    for element in tried:
        z = data.z.clone()
        z[-1] = element
        try:
            subject.exact([moved(data, cast(Tensor, data.pos), z)])
        except ModelError:
            continue
        accepted.append(chemical_symbols[element])
    if not tried:
        note = "it accepts all elements; Potential(elements=…) refuses those that training had not"
        yield Finding("elements", "foreign", FAIL, 5, 0, "of 5", note)
        return
    note = (
        f"it gives energies to {', '.join(accepted)}, which the structures do not hold; unless trained "
        "on them, it must refuse them, as Potential(elements=…) does"
    )
    yield Finding.measured("elements", "foreign", len(accepted), 0, f"of {len(tried)}", note)


def check_padding(subject: Subject, samples: Samples) -> Iterator[Finding]:
    """Add an atom of number 0, as padded batches have: it must be refused, or change nothing."""
    data = samples.structures[0]
    z = torch.cat([data.z, torch.tensor([0])])
    pos = torch.cat([cast(Tensor, data.pos), cast(Tensor, data.pos).mean(0, keepdim=True) + 0.7])
    padded = moved(data, pos, z)
    try:
        change = float((subject.exact([padded]).energy - subject.exact([data]).energy).abs())
    except NotFinite:
        raise
    except ModelError:
        yield Finding("padding", "", PASS)
        return
    bound = subject.tolerance.energy
    note = "an atom of number 0 changes the energy; do not pad, or mask such atoms"
    yield Finding.measured("padding", "energy", change, bound, "eV", note)


def _bonds(data: Data) -> list[tuple[int, int]]:
    """Find atoms at about the sum of their covalent radii."""
    pos = cast(Tensor, data.pos)
    radii = torch.tensor([covalent_radii[z] for z in data.z.tolist()])
    near = torch.cdist(pos, pos) < _BOND * (radii[:, None] + radii[None, :])
    return [(i, j) for i, j in near.nonzero().tolist() if i < j]


def _kinds(data: Data, bonds: list[tuple[int, int]]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Sort bonds by their elements."""
    kinds: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, j in bonds:
        kinds.setdefault(tuple(sorted((int(data.z[i]), int(data.z[j])))), []).append((i, j))
    return kinds


def _barrier(
    subject: Subject, data: Data, bonds: list[tuple[int, int]], i: int, j: int
) -> tuple[float, float, bool]:
    """Give how high the energy rises from its minimum in eV, to which length in Å, and if it falls then."""
    pos = cast(Tensor, data.pos)
    side = _side(bonds, len(pos), i, j)
    bond = pos[j] - pos[i]
    energies = subject.exact(
        [moved(data, pos + (stretch - 1) * side[:, None] * bond) for stretch in _STRETCHES.tolist()]
    ).energy
    lowest = _first_minimum(energies)
    barriers = []
    for way in (range(lowest, len(energies)), range(lowest, -1, -1)):
        along = energies[list(way)] - energies[lowest]
        highest = along.cummax(0)
        holes = (highest.values - along > _FALL).nonzero().flatten()
        last = int(holes[0]) if len(holes) else len(along) - 1
        top = int(highest.indices[last])
        barriers.append((float(along[top]), float(_STRETCHES[way[top]] * bond.norm()), len(holes) > 0))
    return min(barriers)


def _first_minimum(energies: Tensor) -> int:
    """Walk downhill from the structure's own length."""
    place = int((_STRETCHES - 1).abs().argmin())
    while True:
        near = range(max(place - 1, 0), min(place + 2, len(energies)))
        lowest = min(near, key=lambda k: float(energies[k]))
        if lowest == place:
            return place
        place = lowest


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


CHECKS: dict[str, Callable[[Subject, Samples], Iterator[Finding]]] = {
    "extensivity": check_extensivity,
    "bonds": check_bonds,
    "elements": check_elements,
    "padding": check_padding,
}
